#include "generate/wavenet_kernels.h"

#include <cmath>
#include <cstring>

#include "base/target.h"

#if MUSICGEN_X86
#include <immintrin.h>
#elif MUSICGEN_ARM64
#include <arm_neon.h>
#endif

#if defined(_MSC_VER) && !defined(__clang__)
#define __attribute__(x)
#define __builtin_memcpy std::memcpy
#define __builtin_fmaf std::fma
#endif

namespace musicgen::generate {

namespace {

namespace baseline {
#include "generate/lanes_baseline.inl"

#include "generate/activations.inl"

#include "generate/wavenet_kernels.inl"
}  // namespace baseline

#if MUSICGEN_X86

MUSICGEN_BEGIN_AVX2
namespace avx2 {
#include "generate/lanes_avx2.inl"

#include "generate/activations.inl"

#include "generate/wavenet_kernels.inl"
}  // namespace avx2
MUSICGEN_END_TARGET

MUSICGEN_BEGIN_AVX512
namespace avx512 {
#include "generate/lanes_avx512.inl"

#include "generate/activations.inl"

#include "generate/wavenet_kernels.inl"
}  // namespace avx512
MUSICGEN_END_TARGET

#endif

}  // namespace

const WaveNetKernels& wavenet_kernels_for(Isa isa) {
#if MUSICGEN_X86
  if (isa == Isa::avx512) return avx512::kWaveNetKernels;
  if (isa == Isa::avx2) return avx2::kWaveNetKernels;
#endif
  (void)isa;
  return baseline::kWaveNetKernels;
}

}  // namespace musicgen::generate
