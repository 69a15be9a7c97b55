// Short-time spectra and what is made of them, block by block: sixteen frames are windowed, transformed, summed into
// bands, taken to decibels and to cepstra in cache, and only what was asked for is written.
//
// Numbers do not depend on the number of threads or on how a signal is cut up: a frame is its own business.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#include "audio/fft.h"
#include "audio/kernels.h"
#include "base/cpu.h"

namespace musicgen::audio {

using Idle = std::function<void()>;  // called every few milliseconds; may throw

// Frames of one channel. Frame f begins at f * hop in `head` for f < n_head, else at f * hop - offset in `signal` while
// f < n_frames - n_tail, else at (f - n_frames + n_tail) * hop in `tail`.
template <typename T>
struct Frames {
  const T *signal, *head, *tail;
  std::int64_t length, hop, offset, n_frames, n_head, n_tail;

  const T* at(std::int64_t f) const {
    if (f < n_head) return head + f * hop;
    if (f < n_frames - n_tail) return signal + (f * hop - offset);
    return tail + (f - (n_frames - n_tail)) * hop;
  }
};

enum class Stop { spectrum, magnitudes, bands, cepstra };

// What is made of a frame. Everything but the transform may be left out from some stage on.
template <typename T>
struct Recipe {
  int n_fft = 0;
  std::vector<double> window;  // n_fft values
  Stop stop = Stop::spectrum;
  double power = 2;  // of the magnitudes
  int n_bands = 0;
  std::vector<T> bands;   // shape (n_bands, bins)
  bool decibels = false;  // of the bands: 10 log10(max(x, least))
  T least = T(1e-10);
  T range = std::numeric_limits<T>::infinity();  // decibels below the highest of all frames are raised to that
  int n_cepstra = 0;
  std::vector<T> cepstra;  // shape (n_cepstra, n_bands)
};

template <typename T>
class Analysis {
 public:
  explicit Analysis(Recipe<T> recipe);

  int n_fft() const { return recipe_.n_fft; }
  Stop stop() const { return recipe_.stop; }
  int rows() const;  // values that come out of a frame; complex ones count twice

  // All frames of all channels. Spectra and magnitudes of a frame follow one another: out[channel][frame][row]; bands
  // and cepstra lie in rows of frames: out[channel][row][frame]. False: there is a NaN or an infinity in the signals.
  bool run(const std::vector<Frames<T>>& channels, T* out, int threads, Isa isa, const Idle& idle) const;

  // Magnitudes (or bands) of sixteen frames at a time, in rows of lanes, for others to measure while they are in cache:
  // body(channel, first frame, how many, values), from several threads at once. Signals must be finite.
  using Body = std::function<void(std::size_t, std::int64_t, int, const T*)>;
  void each(const std::vector<Frames<T>>& channels, const Body& body, int threads, Isa isa, const Idle& idle) const;

 private:
  struct Block;
  struct Pass;
  void work(Pass& pass, std::size_t item) const;
  const T* levels(const Block& block, T* scratch) const;
  void write(const Block& block, const T* rows, T* scratch) const;
  std::size_t scratch_values() const;

  Recipe<T> recipe_;
  RealFft<T> fft_;
  std::vector<T> window_;
  std::vector<SparseRow> sparse_;
  std::vector<T> weights_;
  SparseRows<T> bands_{};
};

// Signals from their short-time spectra: frames are transformed back, windowed and added up where they overlap, and the
// sum is divided by that of the squared windows.
template <typename T>
class Synthesis {
 public:
  Synthesis(int n_fft, const std::vector<double>& window, std::int64_t hop);

  // spectra[channel][frame][bin], complex; out[channel][length], its first sample at `offset` from that of frame 0.
  void run(const T* spectra, std::int64_t channels, std::int64_t n_frames, std::int64_t channel_stride,
           std::int64_t offset, T* out, std::int64_t length, int threads, Isa isa, const Idle& idle) const;

 private:
  RealFft<T> fft_;
  std::vector<T> window_, squares_;
  std::int64_t hop_;
};

}  // namespace musicgen::audio
