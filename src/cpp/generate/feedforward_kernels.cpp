#include "generate/feedforward_kernels.h"

#include "generate/lanes.h"

namespace musicgen::generate {

namespace {

#define MUSICGEN_KERNELS "generate/feedforward_kernels.inl"
#include "generate/every_isa.inl"

}  // namespace

const FeedForwardKernels& feedforward_kernels_for(Isa isa) { return MUSICGEN_OF(isa, kKernels); }

}  // namespace musicgen::generate
