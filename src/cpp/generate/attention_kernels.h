// The arithmetic of attention, once for every instruction set.
//
// One order of summation. A score is one chain of fused multiply-adds over the query's numbers, then its biases. The
// weights exp(score - largest) are added up sixteen by sixteen. A number of the result is four chains over the slots
// (slot modulo four), added up as (0 + 1) + (2 + 3), then divided by the sum of the weights. Slots are taken in the
// order in which they lie in the cache.
#pragma once

#include <cstddef>

#include "base/cpu.h"
#include "generate/kernels.h"

namespace musicgen::generate {

enum class Activation { relu, gelu, gated };

// What a query sees: `count` keys and values of every head, a head `pitch` bytes behind the one before.
//
// Keys lie in blocks of sixteen slots, in a block number by number: [head_size][16] floats, or [head_size / 2][16]
// pairs of bfloat16. Values lie slot by slot: [head_size] floats, or for every two slots [head_size] pairs of bfloat16.
// Slots behind `count`, up to the next multiple of sixteen, are readable and finite.
struct AttentionView {
  const char* keys;
  const char* values;
  std::size_t pitch;
  int count;
};

// One query of all heads. Biases are added to the scores where they are not null: a row for each head, readable up to
// the next multiple of sixteen.
struct AttentionQuery {
  AttentionView view;
  float* query;  // heads x head_size; scaled in place
  const float* bias[2];
  std::size_t bias_pitch[2];  // floats from one head's row to the next
  float* scores;              // scratch: `count` floats, rounded up to a multiple of sixteen
  float* out;                 // heads x head_size; zero where nothing is seen
};

struct AttentionKernels {
  // out = (x - mean) / sqrt(variance + 1e-5) * gain + shift, and then x += later where that is not null.
  void (*normalise)(float* x, const float* gain, const float* shift, const float* later, float* out, int n);
  // out = relu(x), gelu(x) (its tanh form), or gelu of the first n times the next n; n a multiple of 16.
  void (*activate)(Activation activation, const float* x, float* out, int n);
  void (*attend)(const AttentionQuery& query, int heads, int head_size, bool halves);
};

constexpr float kNormEpsilon = 1e-5f;

const AttentionKernels& attention_kernels_for(Isa isa);

}  // namespace musicgen::generate
