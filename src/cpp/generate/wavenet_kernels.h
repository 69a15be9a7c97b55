// The arithmetic of a WaveNet's step beside its products, once for every instruction set.
#pragma once

#include "base/cpu.h"
#include "generate/kernels.h"

namespace musicgen::generate {

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
};

const WaveNetKernels& wavenet_kernels_for(Isa isa);

}  // namespace musicgen::generate
