// What feed-forward networks do to the sums of their products, once for every instruction set.
#pragma once

#include "base/cpu.h"

namespace musicgen::generate {

enum class Activation { none, relu, leaky_relu, tanh, sigmoid };

constexpr float kLeak = 0.2f;

struct FeedForwardKernels {
  // values = activation(values * scale); n a multiple of 16.
  void (*activate)(float* values, int n, Activation activation, float scale);
  // The largest magnitude; n a multiple of 16.
  float (*largest_magnitude)(const float* values, int n);
};

const FeedForwardKernels& feedforward_kernels_for(Isa isa);

}  // namespace musicgen::generate
