#include "audio/kernels.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "base/registers.h"

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

#define MUSICGEN_KERNELS "audio/kernels.inl"
#include "base/every_isa.inl"

}  // namespace

template <typename T>
const Kernels<T>& kernels_for(Isa isa) {
  return MUSICGEN_OF(isa, kKernels<T>);
}

template const Kernels<float>& kernels_for<float>(Isa isa);
template const Kernels<double>& kernels_for<double>(Isa isa);

}  // namespace musicgen::audio
