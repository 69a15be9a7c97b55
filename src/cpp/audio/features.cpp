#include "audio/features.h"

#include <algorithm>
#include <cstring>

namespace musicgen::audio {

namespace {

// Of NaN and infinities all exponent bits are set, and only of these. Compared as integers: a float comparison would
// be as fast, but denormals cost more on some machines.
inline bool is_nonfinite(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return (bits & 0x7f800000u) == 0x7f800000u;
}

std::int64_t count_in(const float* values, std::int64_t n) {
  std::uint32_t count = 0;
  for (std::int64_t i = 0; i < n; ++i) count += is_nonfinite(values[i]);
  return count;
}

}  // namespace

Nonfinite nonfinite(const float* values, std::int64_t n) {
  constexpr std::int64_t block = 1 << 20;
  Nonfinite found{0, -1};
  for (std::int64_t at = 0; at < n; at += block) {
    const std::int64_t size = std::min(block, n - at);
    const std::int64_t count = count_in(values + at, size);
    if (count > 0 && found.first < 0)
      found.first = std::find_if(values + at, values + at + size, is_nonfinite) - values;
    found.count += count;
  }
  return found;
}

}  // namespace musicgen::audio
