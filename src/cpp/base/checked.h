// Size arithmetic that cannot wrap. Used before rounding up and before allocating.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <new>

namespace musicgen {

// Product of sizes, or std::bad_array_new_length where it passes what the machine can address.
inline std::size_t checked_product(std::size_t a, std::size_t b) {
  if (b != 0 && a > std::numeric_limits<std::size_t>::max() / 2 / b) throw std::bad_array_new_length();
  return a * b;
}

template <class... Rest>
std::size_t checked_product(std::size_t a, std::size_t b, Rest... rest) {
  return checked_product(checked_product(a, b), static_cast<std::size_t>(rest)...);
}

// A size that is known not to be negative.
inline std::size_t to_size(std::int64_t n) { return static_cast<std::size_t>(n); }

inline std::size_t round_up(std::size_t n, std::size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

}  // namespace musicgen
