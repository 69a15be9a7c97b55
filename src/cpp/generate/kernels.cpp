#include "generate/kernels.h"

#include <cmath>
#include <cstring>
#include <limits>

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

inline void fetch_ahead(const void* p) {
#if defined(__GNUC__)
  __builtin_prefetch(p);
#else
  (void)p;
#endif
}

inline void fetch_near(const void* p) {  // to the second level only
#if defined(__GNUC__)
  __builtin_prefetch(p, 0, 2);
#else
  (void)p;
#endif
}

constexpr float kInfinity = std::numeric_limits<float>::infinity();

namespace baseline {
#include "generate/lanes_baseline.inl"

#include "generate/activations.inl"

#include "generate/kernels.inl"
}  // namespace baseline

#if MUSICGEN_X86

MUSICGEN_BEGIN_AVX2
namespace avx2 {
#include "generate/lanes_avx2.inl"

#include "generate/activations.inl"

#include "generate/kernels.inl"
}  // namespace avx2
MUSICGEN_END_TARGET

MUSICGEN_BEGIN_AVX512
namespace avx512 {
#include "generate/lanes_avx512.inl"

#include "generate/activations.inl"

#include "generate/kernels.inl"
}  // namespace avx512
MUSICGEN_END_TARGET

#endif

}  // namespace

const Kernels& kernels_for(Isa isa) {
#if MUSICGEN_X86
  if (isa == Isa::avx512) return avx512::kKernels;
  if (isa == Isa::avx2) return avx2::kKernels;
#endif
  (void)isa;
  return baseline::kKernels;
}

std::vector<int> tiles_of(int vecs, int gates) {
  std::vector<int> tiles;
  const int full = gates == 1 ? 8 : 2 * gates;
  const int most = gates == 1 ? kMaxTileVecs : full;
  while (vecs > most) {
    tiles.push_back(full);
    vecs -= full;
  }
  if (vecs > 0) tiles.push_back(vecs);
  return tiles;
}

std::size_t tile_bytes(Precision precision, int tile_vecs, int cols) {
  const std::size_t columns_a_line = precision == Precision::float32 ? 1 : precision == Precision::bfloat16 ? 2 : 4;
  return static_cast<std::size_t>(64) * static_cast<std::size_t>(tile_vecs) *
         (static_cast<std::size_t>(cols) / columns_a_line);
}

}  // namespace musicgen::generate
