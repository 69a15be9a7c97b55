// audio: numbers out of signals and spectrograms.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "audio/features.h"
#include "bindings/signals.h"

namespace py = pybind11;
using namespace pybind11::literals;
using namespace musicgen;

namespace {

using Floats = py::array_t<float, py::array::c_style>;

// How many NaN and infinities, and the flat index of the first one (-1: none).
py::tuple nonfinite(const Floats& values) {
  audio::Nonfinite found{};
  without_lock([&, data = values.data(), size = values.size()] { found = audio::nonfinite(data, size); });
  return py::make_tuple(found.count, found.first);
}

}  // namespace

void register_features(py::module_& m) { m.def("nonfinite", &nonfinite, py::arg("values").noconvert()); }
