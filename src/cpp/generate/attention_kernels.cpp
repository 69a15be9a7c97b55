#include "generate/attention_kernels.h"

#include "generate/lanes.h"

namespace musicgen::generate {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Added to the last block's scores, from 16 - (slots that count): the others are never seen.
constexpr float kUnseen[2 * kLanes] = {
    0,          0,          0,          0,          0,          0,          0,          0,
    0,          0,          0,          0,          0,          0,          0,          0,
    -kInfinity, -kInfinity, -kInfinity, -kInfinity, -kInfinity, -kInfinity, -kInfinity, -kInfinity,
    -kInfinity, -kInfinity, -kInfinity, -kInfinity, -kInfinity, -kInfinity, -kInfinity, -kInfinity};

#define MUSICGEN_KERNELS "generate/attention_kernels.inl"
#include "generate/every_isa.inl"

}  // namespace

const AttentionKernels& attention_kernels_for(Isa isa) { return MUSICGEN_OF(isa, kAttentionKernels); }

}  // namespace musicgen::generate
