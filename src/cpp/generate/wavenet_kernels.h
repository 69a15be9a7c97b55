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
  const float* starts;  // of the gates' sums, layer by layer, where there is a condition; else null
  float* h;             // input of the first layer; overwritten
  float* sums;          // scratch: twice the channels
  void* z;              // out: of all layers end to end, floats or bytes

  const float* start(int layer, std::size_t gates) const {
    return starts != nullptr ? starts + static_cast<std::size_t>(layer) * gates : layers[layer].gate_bias;
  }
  // The input of a layer `back` samples ago.
  std::size_t row(const WaveNetLayer& layer, std::int64_t back) const {
    return layer.first_row + (static_cast<std::size_t>(time - back) & layer.mask);
  }
};

// Residual and the next layer's first tap lie side by side where their sums fit the registers together.
inline bool side_by_side(int channel_vecs) { return 3 * channel_vecs <= kMaxTileVecs; }

struct WaveNetKernels {
  // z = tanh(filter) * sigmoid(gate), and its bytes times 127 where `bytes` is not null. Sums of 16 filters, then those
  // of their gates, and so on; n units, a multiple of 16.
  void (*gate)(const float* sums, float* z, unsigned char* bytes, int n);
  // h += x
  void (*add)(float* h, const float* x, int n);
  // x = max(x, 0)
  void (*relu)(float* x, int n);
  // Bytes of x, 127 standing for its largest magnitude; returns what a byte is worth.
  float (*quantise)(const float* x, unsigned char* bytes, int n);
  // All layers for one sequence, for a number of channels known when this was compiled; null for others.
  void (*(*layers_for)(Precision precision, int channel_vecs))(const WaveNetStep& step);
};

const WaveNetKernels& wavenet_kernels_for(Isa isa);

}  // namespace musicgen::generate
