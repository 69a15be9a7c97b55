// audio: short-time spectra, bands, cepstra, and back.
#include <pybind11/complex.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <complex>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "audio/stft.h"
#include "base/checked.h"
#include "base/cpu.h"
#include "bindings/arrays.h"
#include "bindings/signals.h"
#include "bindings/tiles.h"

using namespace pybind11::literals;
using namespace musicgen;

namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

template <typename T>
std::vector<T> values_of(const Array<T>& array) {
  return {array.data(), array.data() + array.size()};
}

template <typename T>
std::unique_ptr<audio::Analysis<T>> analysis(const Array<double>& window, const std::string& stop, double power,
                                             const std::optional<Array<T>>& bands,
                                             const std::optional<Array<T>>& cepstra, bool decibels, double least,
                                             std::optional<double> range) {
  audio::Recipe<T> recipe;
  recipe.window = values_of(window);
  recipe.n_fft = static_cast<int>(window.size());
  recipe.power = power;
  recipe.decibels = decibels;
  recipe.least = static_cast<T>(least);
  if (range) recipe.range = static_cast<T>(*range);
  if (stop == "magnitudes") recipe.stop = audio::Stop::magnitudes;
  if (bands) {
    if (bands->ndim() != 2 || bands->shape(1) != recipe.n_fft / 2 + 1)
      throw std::invalid_argument("bands: expected " + std::to_string(recipe.n_fft / 2 + 1) + " columns");
    recipe.stop = audio::Stop::bands;
    recipe.n_bands = static_cast<int>(bands->shape(0));
    recipe.bands = values_of(*bands);
  }
  if (cepstra) {
    if (cepstra->ndim() != 2 || cepstra->shape(1) != recipe.n_bands)
      throw std::invalid_argument("cepstra: expected " + std::to_string(recipe.n_bands) + " columns");
    recipe.stop = audio::Stop::cepstra;
    recipe.n_cepstra = static_cast<int>(cepstra->shape(0));
    recipe.cepstra = values_of(*cepstra);
  }
  return std::make_unique<audio::Analysis<T>>(std::move(recipe));
}

// Frames of some channels, and their first and last samples with zeros around them.
template <typename T>
struct Framed {
  std::vector<audio::Frames<T>> channels;
  std::vector<T> edges;
};

// signals (channels, n), heads and tails (channels, any): frames as audio::Frames says, all of them inside. Heads and
// tails without samples are those of signals between zeros.
template <typename T>
Framed<T> frames_of(const Array<T>& signals, const Array<T>& heads, const Array<T>& tails, std::int64_t n_fft,
                    std::int64_t hop, std::int64_t offset, std::int64_t n_frames, std::int64_t n_head,
                    std::int64_t n_tail) {
  bool fits = signals.ndim() == 2 && heads.ndim() == 2 && tails.ndim() == 2 && hop > 0 && offset >= 0 && n_fft > 0 &&
              n_head >= 0 && n_tail >= 0 && n_head + n_tail <= n_frames && heads.shape(0) == signals.shape(0) &&
              tails.shape(0) == signals.shape(0);
  if (!fits) throw std::invalid_argument("frames: expected signals, heads and tails of as many channels");
  const std::int64_t n = signals.shape(1), tail_begin = (n_frames - n_tail) * hop - offset;
  const std::int64_t head = n_head == 0 ? 0 : (n_head - 1) * hop + n_fft;
  const std::int64_t tail = n_tail == 0 ? 0 : (n_tail - 1) * hop + n_fft;
  const bool head_made = head > 0 && heads.shape(1) == 0, tail_made = tail > 0 && tails.shape(1) == 0;
  fits = (head_made ? offset <= head && head - offset <= n : head <= heads.shape(1)) &&
         (tail_made ? 0 <= tail_begin && tail_begin <= n && n <= tail_begin + tail : tail <= tails.shape(1)) &&
         (n_head + n_tail == n_frames || (n_head * hop >= offset && tail_begin - hop + n_fft <= n));
  if (!fits) throw std::invalid_argument("frames: expected to lie inside the signals");

  Framed<T> framed;
  framed.edges.resize(checked_product(to_size(signals.shape(0)), to_size(head_made * head + tail_made * tail)));
  T* edge = framed.edges.data();
  for (py::ssize_t c = 0; c < signals.shape(0); ++c) {
    const T* signal = signals.data() + c * n;
    const T *head_of = heads.data() + c * heads.shape(1), *tail_of = tails.data() + c * tails.shape(1);
    if (head_made) {
      std::copy_n(signal, head - offset, edge + offset);
      head_of = edge;
      edge += head;
    }
    if (tail_made) {
      std::copy(signal + tail_begin, signal + n, edge);
      tail_of = edge;
      edge += tail;
    }
    framed.channels.push_back({signal, head_of, tail_of, n, hop, offset, n_frames, n_head, n_tail});
  }
  return framed;
}

// `out` has as many values as come out of all frames.
template <typename T, typename Out>
bool analyse(const audio::Analysis<T>& analysis, const Array<T>& signals, const Array<T>& heads, const Array<T>& tails,
             std::int64_t n_fft, std::int64_t hop, std::int64_t offset, std::int64_t n_frames, std::int64_t n_head,
             std::int64_t n_tail, Array<Out>& out, int threads) {
  const auto framed = frames_of<T>(signals, heads, tails, n_fft, hop, offset, n_frames, n_head, n_tail);
  const std::int64_t values = signals.shape(0) * n_frames * analysis.rows();
  constexpr std::int64_t parts = sizeof(Out) / sizeof(T);
  if (out.size() * parts != values)
    throw std::invalid_argument("out: expected " + std::to_string(values / parts) + " values, got " +
                                std::to_string(out.size()));
  T* to = reinterpret_cast<T*>(out.mutable_data());
  const Isa isa = isa_in_use();
  bool finite = false;
  without_lock([&] { finite = analysis.run(framed.channels, to, threads, isa, poll_signals); });
  return finite;
}

// `analyse` for what is asked for most: contiguous sound of shape (..., n) with a frame or more of samples, between
// zeros where it is `centred`. Shape (..., rows, frames), of spectra (..., frames, bins). None: something is out of the
// ordinary or not finite, and the caller knows how to look for it. Half the time of a call that finds the caches cold
// goes into all that Python does before and after.
template <typename T>
py::object analyse_plain(const audio::Analysis<T>& analysis, const py::array& y, std::int64_t hop, bool centred,
                         int threads) {
  const bool aligned = (y.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0;
  if (!py::isinstance<Array<T>>(y) || !aligned || y.ndim() == 0 || y.size() == 0 || hop < 1) return py::none();
  const std::int64_t n_fft = analysis.n_fft(), n = y.shape(y.ndim() - 1), pad = centred ? n_fft / 2 : 0;
  if (n < n_fft) return py::none();
  const std::int64_t n_frames = 1 + (n + 2 * pad - n_fft) / hop, n_head = (pad + hop - 1) / hop;
  const std::int64_t tail = 1 + (n + pad - n_fft) / hop;  // the first frame over the right edge
  if (tail <= n_head) return py::none();

  const py::ssize_t channels = y.size() / n;
  const auto signals = py::reinterpret_steal<Array<T>>(py::array(y).reshape({channels, n}).release());
  const Array<T> none(std::vector<py::ssize_t>{channels, 0});
  std::vector<py::ssize_t> shape(y.shape(), y.shape() + y.ndim() - 1);
  const auto run = [&](auto out) -> py::object {
    const bool finite =
        analyse(analysis, signals, none, none, n_fft, hop, pad, n_frames, n_head, n_frames - tail, out, threads);
    return finite ? py::object(std::move(out)) : py::none();
  };
  if (analysis.stop() == audio::Stop::spectrum) {
    shape.insert(shape.end(), {n_frames, n_fft / 2 + 1});
    return run(Array<std::complex<T>>(shape));
  }
  shape.insert(shape.end(), {analysis.rows(), n_frames});
  return run(Array<T>(shape));
}

// The magnitudes of the frames for measures that take tiles. `self` and the signals live as long as the tiles.
TileSource tiles(const py::object& self, const Array<float>& signals, const Array<float>& heads,
                 const Array<float>& tails, std::int64_t n_fft, std::int64_t hop, std::int64_t offset,
                 std::int64_t n_frames, std::int64_t n_head, std::int64_t n_tail, int threads) {
  const auto* analysis = self.cast<const audio::Analysis<float>*>();
  const auto framed = std::make_shared<const Framed<float>>(
      frames_of<float>(signals, heads, tails, n_fft, hop, offset, n_frames, n_head, n_tail));
  const auto count = static_cast<std::int64_t>(framed->channels.size());
  const auto each = [analysis, framed, threads,
                     isa = isa_in_use()](const std::function<void(const audio::Tile&)>& body) {
    const auto measure = [&](std::size_t channel, std::int64_t first, int n, const float* values) {
      body({values, static_cast<std::int64_t>(channel), first, n});
    };
    analysis->each(framed->channels, measure, threads, isa, poll_signals);
  };
  return {{count, analysis->rows(), n_frames, each}, {self, signals, heads, tails}};
}

template <typename T>
void synthesise(const audio::Synthesis<T>& synthesis, const Array<std::complex<T>>& spectra, std::int64_t bins,
                std::int64_t n_frames, std::int64_t offset, Array<T>& out, int threads) {
  if (spectra.ndim() != 3 || out.ndim() != 2 || spectra.shape(0) != out.shape(0) || spectra.shape(2) != bins ||
      n_frames > spectra.shape(1) || offset < 0)
    throw std::invalid_argument("spectra: expected shape (channels, frames, " + std::to_string(bins) + ")");
  const T* from = reinterpret_cast<const T*>(spectra.data());
  T* to = out.mutable_data();
  const std::int64_t channels = spectra.shape(0), stride = 2 * bins * spectra.shape(1), length = out.shape(1);
  const Isa isa = isa_in_use();
  without_lock(
      [&] { synthesis.run(from, channels, n_frames, stride, offset, to, length, threads, isa, poll_signals); });
}

template <typename T>
void register_for(py::module_& m, const char* analysis_name, const char* synthesis_name) {
  py::class_<audio::Analysis<T>>(m, analysis_name)
      .def(py::init(&analysis<T>), py::arg("window").noconvert(), "stop"_a, "power"_a, py::arg("bands").noconvert(),
           py::arg("cepstra").noconvert(), "decibels"_a, "least"_a, "range"_a)
      .def("run", &analyse<T, T>, py::arg("signals").noconvert(), py::arg("heads").noconvert(),
           py::arg("tails").noconvert(), "n_fft"_a, "hop"_a, "offset"_a, "n_frames"_a, "n_head"_a, "n_tail"_a,
           py::arg("out").noconvert(), "threads"_a)
      .def("run", &analyse<T, std::complex<T>>, py::arg("signals").noconvert(), py::arg("heads").noconvert(),
           py::arg("tails").noconvert(), "n_fft"_a, "hop"_a, "offset"_a, "n_frames"_a, "n_head"_a, "n_tail"_a,
           py::arg("out").noconvert(), "threads"_a)
      .def("run_plain", &analyse_plain<T>, "y"_a, "hop"_a, "centred"_a, "threads"_a);
  py::class_<audio::Synthesis<T>>(m, synthesis_name)
      .def(py::init([](const Array<double>& window, std::int64_t hop) {
             return std::make_unique<audio::Synthesis<T>>(static_cast<int>(window.size()), values_of(window), hop);
           }),
           py::arg("window").noconvert(), "hop"_a)
      .def("run", &synthesise<T>, py::arg("spectra").noconvert(), "bins"_a, "n_frames"_a, "offset"_a,
           py::arg("out").noconvert(), "threads"_a);
}

}  // namespace

void register_spectra(py::module_& m) {
  register_for<float>(m, "Analysis32", "Synthesis32");
  register_for<double>(m, "Analysis64", "Synthesis64");
  m.def("tiles", &tiles, "analysis"_a, py::arg("signals").noconvert(), py::arg("heads").noconvert(),
        py::arg("tails").noconvert(), "n_fft"_a, "hop"_a, "offset"_a, "n_frames"_a, "n_head"_a, "n_tail"_a,
        "threads"_a);
}
