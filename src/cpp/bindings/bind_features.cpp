// audio: numbers out of signals and spectrograms. Inputs and outputs are arrays of float32 that Python has checked and
// made; results are written into `out`.
#include <pybind11/complex.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <complex>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "audio/features.h"
#include "base/cpu.h"
#include "bindings/arrays.h"
#include "bindings/signals.h"
#include "bindings/tiles.h"

namespace py = pybind11;
using namespace pybind11::literals;
using namespace musicgen;

namespace {

using Plain = py::array_t<float, py::array::c_style>;  // side by side
using Doubles = py::array_t<double, py::array::c_style>;
using Strided = py::array_t<float, 0>;  // anywhere

std::vector<py::ssize_t> shape_of(const py::array& array) { return {array.shape(), array.shape() + array.ndim()}; }

void expect_shape(const py::array& array, const char* name, const std::vector<py::ssize_t>& shape) {
  if (shape_of(array) != shape) {
    throw std::invalid_argument(std::string(name) + ": expected shape " + shape_text(shape) + ", got " +
                                shape_text(shape_of(array)));
  }
}

// Spectra of shape (channels, bins, frames), with any strides.
TileSource spectra_of(const Strided& S, bool signs_allowed) {
  if (S.ndim() != 3 || S.size() == 0) {
    throw std::invalid_argument("S: expected shape (channels, bins, frames), got " + shape_text(shape_of(S)));
  }
  constexpr py::ssize_t size = sizeof(float);
  const audio::Spectra spectra{
      S.data(), S.shape(0), S.shape(1), S.shape(2), S.strides(0) / size, S.strides(1) / size, S.strides(2) / size};
  return {audio::tiles_of(spectra, signs_allowed, isa_in_use(), poll_signals), {S}};
}

// One value for each frame.
void expect_frames(const Plain& out, const audio::Tiles& tiles) {
  expect_shape(out, "out", {tiles.channels, tiles.frames});
}

// One value for each bin.
void expect_bins(const Doubles& values, const char* name, const audio::Tiles& tiles) {
  expect_shape(values, name, {tiles.bins});
}

// Calls work(begin, count) for pieces of n elements, without the lock; Ctrl-C is heard in between.
template <typename Work>
void in_pieces(std::int64_t n, const Work& work) {
  constexpr std::int64_t piece = 1 << 20;  // a millisecond
  without_lock([&] {
    for (std::int64_t begin = 0; begin < n; begin += piece) {
      if (begin > 0) poll_signals();
      work(begin, std::min(piece, n - begin));
    }
  });
}

// How many NaN and infinities, and the flat index of the first one (-1: none).
py::tuple nonfinite(const Plain& values) {
  audio::Nonfinite found{0, -1};
  const Isa isa = isa_in_use();
  in_pieces(values.size(), [&, data = values.data()](std::int64_t begin, std::int64_t count) {
    const audio::Nonfinite here = audio::nonfinite(data + begin, count, isa);
    if (found.count == 0 && here.count > 0) found.first = begin + here.first;
    found.count += here.count;
  });
  return py::make_tuple(found.count, found.first);
}

bool any_from(const Plain& values, float limit) {
  bool found = false;
  const Isa isa = isa_in_use();
  in_pieces(values.size(), [&, data = values.data()](std::int64_t begin, std::int64_t count) {
    found = found || audio::any_from(data + begin, count, limit, isa);
  });
  return found;
}

float to_log(const Plain& x, bool squared, double factor, double amin, double offset, Plain& out) {
  expect_shape(out, "out", shape_of(x));
  if (!(amin >= 1e-300)) throw std::invalid_argument("amin: expected >= 1e-300, got " + std::to_string(amin));
  float top = -std::numeric_limits<float>::infinity();
  const Isa isa = isa_in_use();
  in_pieces(x.size(), [&, from = x.data(), to = out.mutable_data()](std::int64_t begin, std::int64_t count) {
    top = std::max(top, audio::to_log(from + begin, count, squared, factor, amin, offset, to + begin, isa));
  });
  return top;
}

void at_least(Plain& out, float floor) {
  const Isa isa = isa_in_use();
  in_pieces(out.size(), [&, to = out.mutable_data()](std::int64_t begin, std::int64_t count) {
    audio::at_least(to + begin, count, floor, isa);
  });
}

void exp2_of(const Plain& x, double rate, double scale, Plain& out) {
  expect_shape(out, "out", shape_of(x));
  const Isa isa = isa_in_use();
  in_pieces(x.size(), [&, from = x.data(), to = out.mutable_data()](std::int64_t begin, std::int64_t count) {
    audio::exp2_of(from + begin, count, rate, scale, to + begin, isa);
  });
}

// One of the laws of companding; of values in [-1, 1], checked by Python.
template <typename From, typename To, void (*law)(const From*, std::int64_t, double, To*, Isa)>
void companded(const py::array_t<From, py::array::c_style>& x, double mu, py::array_t<To, py::array::c_style>& out) {
  expect_shape(out, "out", shape_of(x));
  const Isa isa = isa_in_use();
  in_pieces(x.size(), [&, from = x.data(), to = out.mutable_data()](std::int64_t begin, std::int64_t count) {
    law(from + begin, count, mu, to + begin, isa);
  });
}

using Complex = py::array_t<std::complex<float>, py::array::c_style>;

void polar(const Complex& x, Plain& magnitude, Complex& direction) {
  expect_shape(magnitude, "magnitude", shape_of(x));
  expect_shape(direction, "direction", shape_of(x));
  const Isa isa = isa_in_use();
  const auto* from = reinterpret_cast<const float*>(x.data());
  auto* to = reinterpret_cast<float*>(direction.mutable_data());
  in_pieces(x.size(), [&, length = magnitude.mutable_data()](std::int64_t begin, std::int64_t count) {
    audio::polar(from + 2 * begin, count, length + begin, to + 2 * begin, isa);
  });
}

audio::Framing framing_of(const Plain& y, std::int64_t frame_length, std::int64_t hop_length, const Plain& out) {
  if (y.ndim() != 2) throw std::invalid_argument("y: expected shape (rows, samples), got " + shape_text(shape_of(y)));
  if (hop_length < 1 || frame_length < 1 || y.shape(1) < frame_length) {
    throw std::invalid_argument("frame_length: expected 1 to " + std::to_string(y.shape(1)) +
                                " and hop_length >= 1, got " + std::to_string(frame_length) + " and " +
                                std::to_string(hop_length));
  }
  const std::int64_t frames = 1 + (y.shape(1) - frame_length) / hop_length;
  expect_shape(out, "out", {y.shape(0), frames});
  return {y.shape(0), y.shape(1), frames, frame_length, hop_length};
}

void rms(const Plain& y, std::int64_t frame_length, std::int64_t hop_length, Plain& out) {
  const audio::Framing framing = framing_of(y, frame_length, hop_length, out);
  const Isa isa = isa_in_use();
  without_lock([&, from = y.data(), to = out.mutable_data()] { audio::rms(from, framing, to, isa, poll_signals); });
}

void zero_crossing_rate(const Plain& y, std::int64_t frame_length, std::int64_t hop_length, float threshold,
                        bool zero_apart, Plain& out) {
  const audio::Framing framing = framing_of(y, frame_length, hop_length, out);
  const Isa isa = isa_in_use();
  without_lock([&, from = y.data(), to = out.mutable_data()] {
    audio::zero_crossing_rate(from, framing, threshold, zero_apart, to, isa, poll_signals);
  });
}

// Frames [begin, begin + len(out)) of y (n,), shape (frames, padded length), and their energies.
void kaldi_frames(const Plain& y, std::int64_t first_start, std::int64_t hop_length, const Doubles& window,
                  bool remove_mean, bool raw_energy, double preemphasis, std::int64_t begin, Plain& out,
                  Plain& energies) {
  if (y.ndim() != 1 || y.size() == 0 || window.ndim() != 1 || window.size() == 0 || out.ndim() != 2 ||
      out.shape(1) < window.size() || hop_length < 1 || begin < 0 || first_start < -window.size()) {
    throw std::invalid_argument("out: expected rows of at least " + std::to_string(window.size()) +
                                " values, got shape " + shape_text(shape_of(out)));
  }
  expect_shape(energies, "energies", {out.shape(0)});
  const audio::KaldiFrames options{y.size(),    first_start, hop_length,  window.size(), out.shape(1),
                                   remove_mean, raw_energy,  preemphasis, window.data()};
  without_lock([&, from = y.data(), to = out.mutable_data(), energy = energies.mutable_data(), count = out.shape(0)] {
    audio::kaldi_frames(from, options, begin, begin + count, to, energy, poll_signals);
  });
}

void centroid(const TileSource& source, const Doubles& frequencies, Plain& out) {
  expect_bins(frequencies, "freq", source.tiles);
  expect_frames(out, source.tiles);
  const Isa isa = isa_in_use();
  without_lock(
      [&, bins = frequencies.data(), to = out.mutable_data()] { audio::centroid(source.tiles, bins, to, isa); });
}

// `centres` of None: those of centroid().
void bandwidth(const TileSource& source, const Doubles& frequencies, const py::object& centres, bool norm, double p,
               Plain& out) {
  expect_bins(frequencies, "freq", source.tiles);
  expect_frames(out, source.tiles);
  const float* centre = nullptr;
  if (!centres.is_none())
    centre = array_of<float>(centres, "centroid", {source.tiles.channels, source.tiles.frames}).data();
  const Isa isa = isa_in_use();
  without_lock([&, bins = frequencies.data(), to = out.mutable_data()] {
    audio::bandwidth(source.tiles, bins, centre, norm, p, to, isa);
  });
}

void rolloff(const TileSource& source, const Doubles& values, double share, Plain& out) {
  expect_bins(values, "freq", source.tiles);
  expect_frames(out, source.tiles);
  const Isa isa = isa_in_use();
  without_lock(
      [&, bins = values.data(), to = out.mutable_data()] { audio::rolloff(source.tiles, bins, share, to, isa); });
}

void flatness(const TileSource& source, double power, double amin, Plain& out) {
  expect_frames(out, source.tiles);
  if (!(amin >= 1e-300)) throw std::invalid_argument("amin: expected >= 1e-300, got " + std::to_string(amin));
  const Isa isa = isa_in_use();
  without_lock([&, to = out.mutable_data()] { audio::flatness(source.tiles, power, amin, to, isa); });
}

void weighted_norm(const TileSource& source, const Doubles& weights, Plain& out) {
  expect_bins(weights, "weights", source.tiles);
  expect_frames(out, source.tiles);
  const Isa isa = isa_in_use();
  without_lock(
      [&, bins = weights.data(), to = out.mutable_data()] { audio::weighted_norm(source.tiles, bins, to, isa); });
}

// weights (rows, bins), out (channels, rows, frames).
void weighted_sums(const TileSource& source, const Doubles& weights, Plain& out) {
  const audio::Tiles& tiles = source.tiles;
  if (weights.ndim() != 2 || weights.shape(1) != tiles.bins) {
    throw std::invalid_argument("weights: expected " + std::to_string(tiles.bins) + " columns, got shape " +
                                shape_text(shape_of(weights)));
  }
  expect_shape(out, "out", {tiles.channels, weights.shape(0), tiles.frames});
  const Isa isa = isa_in_use();
  without_lock([&, rows = weights.shape(0), from = weights.data(), to = out.mutable_data()] {
    audio::weighted_sums(tiles, from, rows, to, isa);
  });
}

// bands: (first bin, one past the last, how many to average).
void extremes(const TileSource& source, const std::vector<std::tuple<std::int64_t, std::int64_t, std::int64_t>>& bands,
              Plain& valley, Plain& peak) {
  const audio::Tiles& tiles = source.tiles;
  std::vector<audio::Band> checked;
  for (const auto& [low, high, count] : bands) {
    if (!(0 <= low && low < high && high <= tiles.bins && 1 <= count && count <= high - low)) {
      throw std::invalid_argument("bands: expected some of " + std::to_string(tiles.bins) + " bins, got " +
                                  std::to_string(low) + " to " + std::to_string(high) + ", " + std::to_string(count) +
                                  " of them");
    }
    checked.push_back({low, high, count});
  }
  const std::vector<py::ssize_t> shape = {tiles.channels, static_cast<py::ssize_t>(checked.size()), tiles.frames};
  expect_shape(valley, "valley", shape);
  expect_shape(peak, "peak", shape);
  const Isa isa = isa_in_use();
  without_lock([&, low = valley.mutable_data(), high = peak.mutable_data()] {
    audio::extremes(tiles, checked, low, high, isa);
  });
}

// Positions in bins and heights of all peaks of all frames.
py::tuple peaks(const TileSource& source, std::int64_t low, std::int64_t high, float threshold) {
  audio::Peaks found;
  const Isa isa = isa_in_use();
  without_lock([&] { found = audio::peaks(source.tiles, low, high, threshold, isa); });
  const auto size = static_cast<py::ssize_t>(found.position.size());
  return py::make_tuple(Plain(size, found.position.data()), Plain(size, found.height.data()));
}

// out[rows, n - width + 1] within an array of rows of any length.
void correlate(const Plain& x, const Doubles& taps, std::int64_t first, Plain& out) {
  if (x.ndim() != 2 || taps.ndim() != 1 || taps.size() < 1 || x.shape(1) < taps.size()) {
    throw std::invalid_argument("x: expected shape (rows, at least as many as taps), got " + shape_text(shape_of(x)));
  }
  const py::ssize_t inner = x.shape(1) - taps.size() + 1;
  if (out.ndim() != 2 || out.shape(0) != x.shape(0) || first < 0 || out.shape(1) < first + inner) {
    throw std::invalid_argument("out: expected room for " + std::to_string(inner) + " values from " +
                                std::to_string(first) + ", got shape " + shape_text(shape_of(out)));
  }
  const Isa isa = isa_in_use();
  without_lock([&, from = x.data(), weights = taps.data(), to = out.mutable_data() + first] {
    audio::correlate(from, x.shape(0), x.shape(1), weights, taps.size(), to, out.shape(1), isa, poll_signals);
  });
}

}  // namespace

void register_features(py::module_& m) {
  const auto x = py::arg("x").noconvert(), y = py::arg("y").noconvert();
  const auto out = py::arg("out").noconvert();
  m.def("nonfinite", &nonfinite, py::arg("values").noconvert());
  m.def("any_from", &any_from, py::arg("values").noconvert(), "limit"_a);
  m.def("to_log", &to_log, x, "squared"_a, "factor"_a, "amin"_a, "offset"_a, out);
  m.def("at_least", &at_least, out, "floor"_a);
  m.def("exp2_of", &exp2_of, x, "rate"_a, "scale"_a, out);
  m.def("mu_compress", &companded<float, float, audio::mu_compress>, x, "mu"_a, out);
  m.def("mu_law", &companded<float, std::int32_t, audio::mu_law>, x, "mu"_a, out);
  m.def("mu_expand", &companded<double, float, audio::mu_expand>, x, "mu"_a, out);
  m.def("polar", &polar, x, py::arg("magnitude").noconvert(), py::arg("direction").noconvert());
  m.def("rms", &rms, y, "frame_length"_a, "hop_length"_a, out);
  m.def("zero_crossing_rate", &zero_crossing_rate, y, "frame_length"_a, "hop_length"_a, "threshold"_a, "zero_apart"_a,
        out);
  m.def("kaldi_frames", &kaldi_frames, y, "first_start"_a, "hop_length"_a, py::arg("window").noconvert(),
        "remove_mean"_a, "raw_energy"_a, "preemphasis"_a, "begin"_a, out, py::arg("energies").noconvert());
  py::class_<TileSource>(m, "Tiles");
  m.def("spectra", &spectra_of, py::arg("S").noconvert(), "signs_allowed"_a);
  m.def("spectral_centroid", &centroid, "tiles"_a, py::arg("frequencies").noconvert(), out);
  m.def("spectral_bandwidth", &bandwidth, "tiles"_a, py::arg("frequencies").noconvert(), "centres"_a, "norm"_a, "p"_a,
        out);
  m.def("spectral_rolloff", &rolloff, "tiles"_a, py::arg("values").noconvert(), "share"_a, out);
  m.def("spectral_flatness", &flatness, "tiles"_a, "power"_a, "amin"_a, out);
  m.def("spectral_norm", &weighted_norm, "tiles"_a, py::arg("weights").noconvert(), out);
  m.def("spectral_sums", &weighted_sums, "tiles"_a, py::arg("weights").noconvert(), out);
  m.def("spectral_extremes", &extremes, "tiles"_a, "bands"_a, py::arg("valley").noconvert(),
        py::arg("peak").noconvert());
  m.def("spectral_peaks", &peaks, "tiles"_a, "low"_a, "high"_a, "threshold"_a);
  m.def("correlate", &correlate, x, py::arg("taps").noconvert(), "first"_a, out);
}
