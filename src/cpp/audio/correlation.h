// Sums of products of a matrix with every stretch of longer ones, by Fourier transforms in double precision: blocks of
// every row that overlap, times the conjugates of the clip's rows, added up over the rows and transformed back.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "base/cpu.h"

namespace musicgen::audio {

class FastCorrelation {
 public:
  // clip (dims, frames), C order.
  FastCorrelation(const float* clip, int dims, std::int64_t frames, Isa isa);
  ~FastCorrelation();

  // Whether this is quicker than to multiply and add, for a piece of so many frames.
  static bool pays(int dims, std::int64_t clip_frames, std::int64_t frames);

  // out[t] = sum over rows r and frames j of clip[r][j] * piece[r][t + j], within 1e-15 of the norm of the clip times
  // that of the piece. `stop` is told how much was done since it was asked last, in multiplications; true ends the
  // call, which then returns false.
  using Stop = std::function<bool(std::int64_t)>;
  bool run(const float* piece, std::int64_t frames, double* out, const Stop& stop) const;

 private:
  struct Plan;
  std::unique_ptr<const Plan> plan_;
};

}  // namespace musicgen::audio
