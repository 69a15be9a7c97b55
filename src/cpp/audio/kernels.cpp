#include "audio/kernels.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "base/target.h"

#if MUSICGEN_X86
#include <immintrin.h>
#elif MUSICGEN_ARM64
#include <arm_neon.h>
#endif

#if defined(_MSC_VER) && !defined(__clang__)
#define MUSICGEN_ALWAYS_INLINE
#else
#define MUSICGEN_ALWAYS_INLINE __attribute__((always_inline))
#endif

namespace musicgen::audio {

namespace {

template <typename T>
constexpr T kInfinity = std::numeric_limits<T>::infinity();

inline void fetch_to_write(const void* p) {
#if defined(__GNUC__)
  __builtin_prefetch(p, 1);
#else
  (void)p;
#endif
}

double decibels_of_double(double x) { return 10.0 * std::log10(x); }

namespace baseline {
#include "base/registers_baseline.inl"

#include "audio/kernels.inl"
}  // namespace baseline

#if MUSICGEN_X86

MUSICGEN_BEGIN_AVX2
namespace avx2 {
#include "base/registers_avx2.inl"

#include "audio/kernels.inl"
}  // namespace avx2
MUSICGEN_END_TARGET

MUSICGEN_BEGIN_AVX512
namespace avx512 {
#include "base/registers_avx512.inl"

#include "audio/kernels.inl"
}  // namespace avx512
MUSICGEN_END_TARGET

#endif

}  // namespace

template <typename T>
const Kernels<T>& kernels_for(Isa isa) {
#if MUSICGEN_X86
  if (isa == Isa::avx512) return avx512::kKernels<T>;
  if (isa == Isa::avx2) return avx2::kKernels<T>;
#endif
  (void)isa;
  return baseline::kKernels<T>;
}

template const Kernels<float>& kernels_for<float>(Isa isa);
template const Kernels<double>& kernels_for<double>(Isa isa);

}  // namespace musicgen::audio
