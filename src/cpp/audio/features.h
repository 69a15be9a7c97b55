// Numbers out of signals and spectrograms.
#pragma once

#include <cstddef>
#include <cstdint>

namespace musicgen::audio {

struct Nonfinite {
  std::int64_t count, first;  // -1: none
};

// NaN and infinities among n values.
Nonfinite nonfinite(const float* values, std::int64_t n);

}  // namespace musicgen::audio
