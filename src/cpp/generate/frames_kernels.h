// The arithmetic of networks over frames, once for every instruction set. Orders of summation as in kernels.h.
#pragma once

#include "base/cpu.h"
#include "generate/kernels.h"

namespace musicgen::generate {

// What the keys are asked: z = start + output · relu(sums + rows of the key), filters in their order.
struct KeyQuestions {
  const float* sums;    // (keys, width)
  const float* start;   // (keys)
  const float* output;  // (width)
  const float* table;   // rows of `width` that keys add
  const int* rows;      // (keys, n_rows): which
  int n_rows;
  int width;  // a multiple of 16
  float* z;   // out: (keys)
};

struct FramesKernels {
  // sum += x; n a multiple of 16.
  void (*add)(float* sum, const float* x, int n);
  // The keys [first, last).
  void (*ask)(const KeyQuestions& questions, int first, int last);
  // out = ln(1 + exp(z)); n a multiple of 16.
  void (*softplus)(const float* z, float* out, int n);
};

const FramesKernels& frames_kernels_for(Isa isa);

}  // namespace musicgen::generate
