// The arithmetic of a WaveNet's step, once for every instruction set. Orders of summation as in kernels.h: a gate's sum
// starts from its bias (or the condition's share, which contains it) and goes through the taps, oldest first.
#pragma once

#include <cstdint>

#include "base/cpu.h"
#include "generate/kernels.h"

namespace musicgen::generate {

constexpr int kMaxTaps = 3;

// One layer. Its inputs of the past are rows of a ring, newest at time & mask.
struct WaveNetLayer {
  std::int64_t dilation = 1;
  std::size_t first_row = 0;  // of its ring, in all rings
  std::size_t mask = 0;
  Matrix taps[kMaxTaps];  // oldest first; rows of filter and gate interleaved, sixteen by sixteen
  Matrix residual;        // none in the last layer
  Matrix condition;       // float32
  const float* gate_bias = nullptr;
  const float* residual_bias = nullptr;
};

// One sequence at one sample.
struct WaveNetStep {
  const WaveNetLayer* layers;
  int n_layers;
  int n_taps;
  unsigned char* rings;
  float* scales;  // int8: of every row of the rings
  std::size_t row_bytes;
  std::int64_t time;
  const float* starts;     // of the gates' sums, layer by layer, where there is a condition; else null
  float* h;                // input of the first layer; overwritten
  float* sums;             // scratch: twice the channels
  std::size_t sums_pitch;  // from one layer's sums to those of the next; 0: one scratch for all
  void* z;                 // out: of all layers end to end, floats or bytes

  const float* start(int layer, std::size_t gates) const {
    return starts != nullptr ? starts + static_cast<std::size_t>(layer) * gates : layers[layer].gate_bias;
  }
  // The input of a layer `back` samples ago.
  std::size_t row(const WaveNetLayer& layer, std::int64_t back) const {
    return layer.first_row + (static_cast<std::size_t>(time - back) & layer.mask);
  }
};

// For a number of channels known when this was compiled.
struct WaveNetLayerKernels {
  // All layers for one sequence.
  void (*all)(const WaveNetStep& step);
  // The same in parts for two threads: what the older taps of a layer add to its sums; and the chain: its input is
  // remembered, the newest tap added, z made of it, and h becomes the input of the next layer.
  void (*older)(const WaveNetStep& step, int layer);
  void (*chain)(const WaveNetStep& step, int layer);
};

// Some rows (vectors [first, first + vecs)) of a dense product, columns after columns as they come.
struct RowsProduct {
  const Matrix* matrix;
  const float* start;
  int first, vecs;
  void* sums;  // 64 bytes a vector
  float* out;  // of all rows
};

struct WaveNetKernels {
  // z = tanh(filter) * sigmoid(gate), and its bytes times 127 where `bytes` is not null. Sums of 16 filters, then those
  // of their gates, and so on; n units, a multiple of 16.
  void (*gate)(const float* sums, float* z, unsigned char* bytes, int n);
  // h += x
  void (*add)(float* h, const float* x, int n);
  // out = max(x, 0)
  void (*relu)(const float* x, float* out, int n);
  // Null for numbers of channels that are not compiled.
  const WaveNetLayerKernels* (*layers_for)(Precision precision, int channel_vecs);
  void (*rows_begin)(const RowsProduct& product);
  // Columns [first, first + n), of which x holds the values.
  void (*rows_add)(const RowsProduct& product, int first, int n, const void* x);
  // out = the sums; `scale`: what a byte of x is worth.
  void (*rows_end)(const RowsProduct& product, float scale);
};

const WaveNetKernels& wavenet_kernels_for(Isa isa);

}  // namespace musicgen::generate
