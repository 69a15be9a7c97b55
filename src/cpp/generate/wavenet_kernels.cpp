#include "generate/wavenet_kernels.h"

#include "generate/lanes.h"

namespace musicgen::generate {

namespace {

#define MUSICGEN_KERNELS "generate/wavenet_kernels.inl"
#include "generate/every_isa.inl"

}  // namespace

const WaveNetKernels& wavenet_kernels_for(Isa isa) { return MUSICGEN_OF(isa, kWaveNetKernels); }

}  // namespace musicgen::generate
