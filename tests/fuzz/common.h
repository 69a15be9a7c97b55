// What the fuzz targets have in common.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "base/buffer.h"

namespace musicgen {

inline void poll() {}

// A finding, if it does not hold.
inline void require(bool holds, const std::string& what) {
  if (holds) return;
  std::fprintf(stderr, "finding: %s\n", what.c_str());
  std::abort();
}

template <typename T>
bool same(const Buffer<T>& a, const Buffer<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

}  // namespace musicgen
