// match: feature sequences to curves over the pieces of a library.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "audio/match.h"
#include "bindings/arrays.h"
#include "bindings/signals.h"

using namespace pybind11::literals;
using namespace musicgen;

namespace {

using Floats = py::array_t<float>;

constexpr py::ssize_t max_frames = (py::ssize_t{1} << 30) - 1;
constexpr py::ssize_t max_dims = 1 << 20;

// A (dims, frames) array of at least one frame; `dims` 0: any number of rows.
audio::Sequence sequence_of(const py::handle& object, const std::string& name, py::ssize_t dims) {
  if (!py::array_t<float, py::array::c_style>::check_(object))
    throw py::type_error(name + ": expected a C-contiguous array of float32, got " +
                         py::cast<std::string>(py::repr(py::type::of(object))));
  const auto array = py::reinterpret_borrow<Floats>(object);
  const bool fits = array.ndim() == 2 && array.shape(0) >= 1 && (dims == 0 || array.shape(0) == dims) &&
                    array.shape(0) <= max_dims && array.shape(1) >= 1 && array.shape(1) <= max_frames;
  if (!fits)
    throw std::invalid_argument(name + ": expected shape (" + (dims == 0 ? "dims" : std::to_string(dims)) +
                                ", frames) with 1 to " + std::to_string(max_frames) + " frames, got " +
                                shape_text({array.shape(), array.shape() + array.ndim()}));
  return {array.data(), array.shape(1)};
}

struct Library {
  Library(const Floats& clip_array, const py::list& list, int threads) {
    clip = sequence_of(clip_array, "clip", 0);
    dims = static_cast<int>(clip_array.shape(0));
    for (std::size_t k = 0; k < list.size(); ++k)
      pieces.push_back(sequence_of(list[k], "pieces[" + std::to_string(k) + "]", dims));
    if (threads < 1) throw std::invalid_argument("threads: expected at least 1, got " + std::to_string(threads));
  }

  audio::Sequence clip;
  int dims;
  std::vector<audio::Sequence> pieces;
};

audio::Warping warping_of(const std::string& metric, const std::array<float, 3>& weights) {
  audio::Warping options;
  if (metric != "cosine" && metric != "euclidean")
    throw std::invalid_argument("metric: expected 'cosine' or 'euclidean', got '" + metric + "'");
  options.cost = metric == "cosine" ? audio::Cost::cosine : audio::Cost::euclidean;
  for (const float weight : weights)
    if (!(weight > 0 && weight <= 1e6f))
      throw std::invalid_argument("step_weights: expected numbers above 0, at most 1e6, got " + std::to_string(weight));
  options.weights = weights;
  return options;
}

py::list correlate(const Floats& clip, const py::list& pieces, bool center, int threads) {
  const Library library(clip, pieces, threads);
  py::list out;
  std::vector<float*> curves;
  for (const audio::Sequence& piece : library.pieces) {
    Floats curve(std::max<py::ssize_t>(0, piece.frames - library.clip.frames + 1));
    curves.push_back(curve.mutable_data());
    out.append(std::move(curve));
  }
  const Isa isa = isa_in_use();
  Signals signals;
  without_lock([&] {
    const audio::Correlation options{center};
    if (!audio::correlate(options, library.dims, library.clip, library.pieces, curves, threads, isa, signals))
      throw Interrupted();
  });
  return out;
}

py::list warp(const Floats& clip, const py::list& pieces, const std::string& metric,
              const std::array<float, 3>& weights, int threads) {
  const Library library(clip, pieces, threads);
  const audio::Warping options = warping_of(metric, weights);
  py::list out;
  std::vector<float*> costs;
  std::vector<std::int32_t*> starts;
  for (const audio::Sequence& piece : library.pieces) {
    Floats cost(piece.frames);
    py::array_t<std::int32_t> start(piece.frames);
    costs.push_back(cost.mutable_data());
    starts.push_back(start.mutable_data());
    out.append(py::make_tuple(std::move(cost), std::move(start)));
  }
  const Isa isa = isa_in_use();
  Signals signals;
  without_lock([&] {
    if (!audio::warp(options, library.dims, library.clip, library.pieces, costs, starts, threads, isa, signals))
      throw Interrupted();
  });
  return out;
}

py::array_t<std::int64_t> warp_path(const Floats& clip, const Floats& stretch, const std::string& metric,
                                    const std::array<float, 3>& weights) {
  const audio::Sequence query = sequence_of(clip, "clip", 0);
  const audio::Sequence piece = sequence_of(stretch, "stretch", clip.shape(0));
  const audio::Warping options = warping_of(metric, weights);
  const Isa isa = isa_in_use();
  std::vector<std::int64_t> path;
  Signals signals;
  without_lock([&] {
    path = audio::warp_path(options, static_cast<int>(clip.shape(0)), query, piece, isa, signals);
    if (path.empty()) throw Interrupted();
  });
  py::array_t<std::int64_t> out({static_cast<py::ssize_t>(path.size() / 2), py::ssize_t{2}});
  std::copy(path.begin(), path.end(), out.mutable_data());
  return out;
}

}  // namespace

void register_match(py::module_& m) {
  m.def("match_correlate", &correlate, py::arg("clip").noconvert(), "pieces"_a, "center"_a, "threads"_a);
  m.def("match_warp", &warp, py::arg("clip").noconvert(), "pieces"_a, "metric"_a, "step_weights"_a, "threads"_a);
  m.def("match_warp_path", &warp_path, py::arg("clip").noconvert(), py::arg("stretch").noconvert(), "metric"_a,
        "step_weights"_a);
}
