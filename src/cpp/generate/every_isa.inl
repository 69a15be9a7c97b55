// The file MUSICGEN_KERNELS once for every instruction set, each time after its lanes and activations and in a
// namespace of its own. See generate/lanes.h.

namespace baseline {
#include "generate/lanes_baseline.inl"

#include "generate/activations.inl"

#include MUSICGEN_KERNELS
}  // namespace baseline

#if MUSICGEN_X86

MUSICGEN_BEGIN_AVX2
namespace avx2 {
#include "generate/lanes_avx2.inl"

#include "generate/activations.inl"

#include MUSICGEN_KERNELS
}  // namespace avx2
MUSICGEN_END_TARGET

MUSICGEN_BEGIN_AVX512
namespace avx512 {
#include "generate/lanes_avx512.inl"

#include "generate/activations.inl"

#include MUSICGEN_KERNELS
}  // namespace avx512
MUSICGEN_END_TARGET

#endif

#undef MUSICGEN_KERNELS
