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

// Magnitudes or powers of several channels, anywhere in memory. Strides in values.
struct Spectra {
  const float* values;
  std::int64_t channels, bins, frames;
  std::int64_t channel_stride, bin_stride, frame_stride;
};

struct Nonfinite {
  std::int64_t count, first;  // -1: none
};

// NaN and infinities among n values.
Nonfinite nonfinite(const float* values, std::int64_t n, Isa isa);

// -- decibels and companding: element by element -------------------------------------------------------------------

// out = 10 log10(max(x, amin)) - offset, of the squares where `squared`. Returns the largest. amin >= 1e-300.
float to_db(const float* x, std::int64_t n, bool squared, double amin, double offset, float* out, Isa isa);
// out = max(out, floor).
void at_least(float* out, std::int64_t n, float floor, Isa isa);
// out = scale * 2^(x * rate), at most what a float can hold.
void exp2_of(const float* x, std::int64_t n, double rate, double scale, float* out, Isa isa);
// out = sign(x) log(1 + mu |x|) / log(1 + mu), for |x| <= 1.
void mu_compress(const float* x, std::int64_t n, double mu, float* out, Isa isa);
// Of that, floor((c + 1) / 2 * mu + 0.5).
void mu_law(const float* x, std::int64_t n, double mu, std::int32_t* out, Isa isa);
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

// -- measures of spectra: out[channels][frames] ---------------------------------------------------------------------

// Each throws std::invalid_argument where a value is negative.
void centroid(const Spectra& S, const double* frequencies, float* out, Isa isa, const Poll& poll);
// (sum S |f - centroid|^p)^(1/p); S divided by its sum first where `norm`. `centres`: out of centroid(), or null.
void bandwidth(const Spectra& S, const double* frequencies, const float* centres, bool norm, double p, float* out,
               Isa isa, const Poll& poll);
// values[k] of the first bin k at which the sum from below reaches `share` of the whole.
void rolloff(const Spectra& S, const double* values, double share, float* out, Isa isa, const Poll& poll);
// Geometric over arithmetic mean of max(S^power, amin).
void flatness(const Spectra& S, double power, double amin, float* out, Isa isa, const Poll& poll);
// Root of the sum of weights[k] S[k]^2. Signs do not matter.
void weighted_norm(const Spectra& S, const double* weights, float* out, Isa isa, const Poll& poll);

// Bins [low, high) of which the `count` smallest and largest are averaged.
struct Band {
  std::int64_t low, high, count;
};
// valley and peak: [channels][bands][frames].
void extremes(const Spectra& S, const std::vector<Band>& bands, float* valley, float* peak, Isa isa, const Poll& poll);

// Peaks of spectra, refined by a parabola: bins [low, high) that pass both neighbours and `threshold` times the largest
// of their frame. Positions in bins, and heights.
struct Peaks {
  std::vector<float> position, height;
};
Peaks peaks(const Spectra& S, std::int64_t low, std::int64_t high, float threshold, Isa isa, const Poll& poll);

// out[rows][n - width + 1] = sum over k of taps[k] x[.. + k].
void correlate(const float* x, std::int64_t rows, std::int64_t n, const double* taps, std::int64_t width, float* out,
               std::int64_t out_stride, Isa isa, const Poll& poll);

}  // namespace musicgen::audio
