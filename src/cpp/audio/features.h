// Numbers out of signals and spectrograms.
//
// Spectra are worked on in tiles of sixteen frames: sixteen values of the first bin, sixteen of the second, and so on.
// Whatever is added up over bins or samples is added up in double precision, in order and lane by lane, without fused
// operations: every instruction set gives the same bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "base/cpu.h"

namespace musicgen::audio {

constexpr int kTileFrames = 16;

using Poll = std::function<void()>;  // called every few milliseconds; may throw

// Up to sixteen frames of one channel; those that are missing repeat another.
struct Tile {
  const float* x;
  std::int64_t channel, first, count;
};

// Magnitudes or powers of several channels, tile by tile, wherever they come from. `each` may call its argument from
// several threads at once, in any order.
struct Tiles {
  std::int64_t channels, bins, frames;
  std::function<void(const std::function<void(const Tile&)>&)> each;
};

// Spectra anywhere in memory. Strides in values.
struct Spectra {
  const float* values;
  std::int64_t channels, bins, frames;
  std::int64_t channel_stride, bin_stride, frame_stride;
};

// Their tiles. Throws std::invalid_argument where a value is negative, unless `signs_allowed`.
Tiles tiles_of(const Spectra& S, bool signs_allowed, Isa isa, const Poll& poll);

struct Nonfinite {
  std::int64_t count, first;  // -1: none
};

// NaN and infinities among n values.
Nonfinite nonfinite(const float* values, std::int64_t n, Isa isa);

// Whether there is a NaN or a magnitude of at least `limit`, which is positive.
bool any_from(const float* values, std::int64_t n, float limit, Isa isa);

// -- decibels and companding: element by element -------------------------------------------------------------------

// out = factor log(max(x, amin)) - offset, of the squares where `squared`. Returns the largest. amin >= 1e-300.
float to_log(const float* x, std::int64_t n, bool squared, double factor, double amin, double offset, float* out,
             Isa isa);
// out = max(out, floor).
void at_least(float* out, std::int64_t n, float floor, Isa isa);
// out = scale * 2^(x * rate), at most what a float can hold.
void exp2_of(const float* x, std::int64_t n, double rate, double scale, float* out, Isa isa);
// out = sign(x) log(1 + mu |x|) / log(1 + mu), for |x| <= 1.
void mu_compress(const float* x, std::int64_t n, double mu, float* out, Isa isa);
// Of that, floor((c + 1) / 2 * mu + 0.5).
void mu_law(const float* x, std::int64_t n, double mu, std::int32_t* out, Isa isa);
// The way back from mu_compress.
void mu_expand(const double* x, std::int64_t n, double mu, float* out, Isa isa);
// n complex numbers as magnitude and x / |x|, which is 1 for 0.
void polar(const float* x, std::int64_t n, float* magnitude, float* direction, Isa isa);

// -- frames of a signal: rows of `length` samples, `frames` frames of `frame_length`, `hop_length` apart ------------

struct Framing {
  std::int64_t rows, length, frames, frame_length, hop_length;
};

// Root of the mean square, out[rows][frames].
void rms(const float* y, const Framing& framing, float* out, Isa isa, const Poll& poll);
// Share of the samples whose sign differs from the one before, inside each frame. Values in [-threshold, threshold]
// count as 0, which is positive, or a sign of its own where `zero_apart`.
void zero_crossing_rate(const float* y, const Framing& framing, float threshold, bool zero_apart, float* out, Isa isa,
                        const Poll& poll);

// Frames as Kaldi cuts and prepares them: without their mean, with x[i] - preemphasis * x[i - 1], windowed, padded with
// zeros to `padded_length`.
struct KaldiFrames {
  std::int64_t n;            // samples
  std::int64_t first_start;  // of frame 0; samples before the first and after the last are mirrored
  std::int64_t hop_length, frame_length, padded_length;
  bool remove_mean, raw_energy;  // energy without the mean, or of what comes out
  double preemphasis;
  const double* window;  // frame_length values
};
// Frames [begin, end): out[end - begin][padded_length], energies[end - begin].
void kaldi_frames(const float* y, const KaldiFrames& options, std::int64_t begin, std::int64_t end, float* out,
                  float* energies, const Poll& poll);

// -- measures of spectra: out[channels][frames] ---------------------------------------------------------------------

void centroid(const Tiles& tiles, const double* frequencies, float* out, Isa isa);
// (sum S |f - centroid|^p)^(1/p); S divided by its sum first where `norm`. `centres`: out of centroid(), or null.
void bandwidth(const Tiles& tiles, const double* frequencies, const float* centres, bool norm, double p, float* out,
               Isa isa);
// values[k] of the first bin k at which the sum from below reaches `share` of the whole.
void rolloff(const Tiles& tiles, const double* values, double share, float* out, Isa isa);
// Geometric over arithmetic mean of max(S^power, amin).
void flatness(const Tiles& tiles, double power, double amin, float* out, Isa isa);
// Root of the sum of weights[k] S[k]^2.
void weighted_norm(const Tiles& tiles, const double* weights, float* out, Isa isa);
// Sums of weights[row][k] S[k]: out[channels][rows][frames].
void weighted_sums(const Tiles& tiles, const double* weights, std::int64_t rows, float* out, Isa isa);

// Bins [low, high) of which the `count` smallest and largest are averaged.
struct Band {
  std::int64_t low, high, count;
};
// valley and peak: [channels][bands][frames].
void extremes(const Tiles& tiles, const std::vector<Band>& bands, float* valley, float* peak, Isa isa);

// Peaks of spectra, refined by a parabola: bins [low, high) that pass both neighbours and `threshold` times the largest
// of their frame. Positions in bins, and heights; in no particular order.
struct Peaks {
  std::vector<float> position, height;
};
Peaks peaks(const Tiles& tiles, std::int64_t low, std::int64_t high, float threshold, Isa isa);

// out[rows][n - width + 1] = sum over k of taps[k] x[.. + k].
void correlate(const float* x, std::int64_t rows, std::int64_t n, const double* taps, std::int64_t width, float* out,
               std::int64_t out_stride, Isa isa, const Poll& poll);

}  // namespace musicgen::audio
