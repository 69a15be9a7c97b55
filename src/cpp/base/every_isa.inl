// The file MUSICGEN_KERNELS once for every instruction set, each time after its registers and in a namespace of its
// own. See base/registers.h.

namespace baseline {
#include "base/registers_baseline.inl"

#include MUSICGEN_KERNELS
}  // namespace baseline

#if MUSICGEN_X86

MUSICGEN_BEGIN_AVX2
namespace avx2 {
#include "base/registers_avx2.inl"

#include MUSICGEN_KERNELS
}  // namespace avx2
MUSICGEN_END_TARGET

MUSICGEN_BEGIN_AVX512
namespace avx512 {
#include "base/registers_avx512.inl"

#include MUSICGEN_KERNELS
}  // namespace avx512
MUSICGEN_END_TARGET

#endif

#undef MUSICGEN_KERNELS
