// A short clip in long pieces: where do its feature vectors go best?
//
// Sequences are (dims, frames) float32, one row per feature. Two measures, both in memory linear in the frames:
//
// - correlation: the normalised cross-correlation of the whole clip with every stretch of the same length, of long
//   clips by Fourier transforms;
// - warping: subsequence dynamic time warping with the steps (1,1), (0,1), (1,0), in frames of clip and piece, where
//   D[0,j] = C[0,j] and D[i,j] = min over steps k of D[i - k0, j - k1] + weights[k] C[i,j]; of equal sums the first
//   step wins (M. Müller, Fundamentals of Music Processing, section 7.2; librosa.sequence.dtw with subseq=True).
//
// Sixteen lanes hold offsets (correlation) or cells of one antidiagonal (warping), and every sum has one order, so
// AVX2, AVX-512 and NEON give the same bits, as does any number of threads; x86 without fma rounds differently.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "base/cpu.h"
#include "base/interrupt.h"

namespace musicgen::audio {

struct Sequence {
  const float* values;  // (dims, frames), C order
  std::int64_t frames;
};

struct Correlation {
  bool center = true;  // take the mean of every row off, in the clip and in every stretch
};

enum class Cost { cosine, euclidean };

struct Warping {
  Cost cost = Cost::cosine;
  std::array<float, 3> weights = {1, 1, 1};
};

// curves[k][t] = the correlation of the clip with frames t … t + m - 1 of piece k, in [-1, 1], for pieces of at least
// m = clip.frames frames; 0 where a side has no variation (no energy without `center`). False if interrupted.
bool correlate(const Correlation& options, int dims, const Sequence& clip, const std::vector<Sequence>& pieces,
               const std::vector<float*>& curves, int threads, Isa isa, Interrupt& interrupt);

// costs[k][j] = D[m-1, j], the cost of the cheapest path through the whole clip that ends at frame j of piece k, and
// starts[k][j] the frame where that path begins. False if interrupted. Fewer than 2^30 frames.
bool warp(const Warping& options, int dims, const Sequence& clip, const std::vector<Sequence>& pieces,
          const std::vector<float*>& costs, const std::vector<std::int32_t*>& starts, int threads, Isa isa,
          Interrupt& interrupt);

// The cells (i, j) of the path that `warp` found to the last frame of `stretch`, in order, as pairs; empty if
// interrupted. Takes 4 bytes for every cell of clip times stretch.
std::vector<std::int64_t> warp_path(const Warping& options, int dims, const Sequence& clip, const Sequence& stretch,
                                    Isa isa, Interrupt& interrupt);

}  // namespace musicgen::audio
