#include "generate/frames_kernels.h"

#include "generate/lanes.h"

namespace musicgen::generate {

namespace {

#define MUSICGEN_KERNELS "generate/frames_kernels.inl"
#include "generate/every_isa.inl"

}  // namespace

const FramesKernels& frames_kernels_for(Isa isa) { return MUSICGEN_OF(isa, kFramesKernels); }

}  // namespace musicgen::generate
