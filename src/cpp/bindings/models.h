// What the doors of all models share.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "base/interrupt.h"
#include "bindings/arrays.h"
#include "bindings/signals.h"
#include "generate/packing.h"

namespace musicgen::generate {

template <class T>
T choice(const py::object& value, const char* name, std::initializer_list<std::pair<const char*, T>> choices) {
  const auto text = py::cast<std::string>(value);
  for (const auto& [known, result] : choices)
    if (text == known) return result;
  throw std::invalid_argument(std::string(name) + ": got unknown '" + text + "'");
}

inline Precision precision_of(const std::string& name) {
  return choice<Precision>(
      py::str(name), "precision",
      {{"float32", Precision::float32}, {"bfloat16", Precision::bfloat16}, {"int8", Precision::int8}});
}

// Pointers into the arrays of `tensors`, which outlive the call.
inline Tensors tensors_of(const py::dict& tensors) {
  Tensors out;
  for (const auto& [key, value] : tensors) {
    const auto name = py::cast<std::string>(key);
    const auto array = py::reinterpret_borrow<py::array>(value);
    Tensor t;
    t.rows = array.ndim() > 0 ? array.shape(0) : 1;
    t.cols = t.rows > 0 ? array.size() / t.rows : 0;
    if (py::array_t<float, py::array::c_style>::check_(value)) {
      t.values = static_cast<const float*>(array.data());
    } else if (py::array_t<std::int8_t, py::array::c_style>::check_(value)) {
      const py::str scale = py::str(name + ".scale");
      if (!tensors.contains(scale)) throw std::invalid_argument("tensor " + name + ".scale: expected, got none");
      t.bytes = static_cast<const std::int8_t*>(array.data());
      t.scale = array_of<float>(tensors[scale], "scale", {array.shape(0)}).data();
    } else {
      throw py::type_error("tensor " + name + ": expected a C-contiguous float32 or int8 array");
    }
    out.emplace(name, t);
  }
  return out;
}

template <class T>
py::array_t<T> array_copy(const std::vector<T>& values) {
  py::array_t<T> out(static_cast<py::ssize_t>(values.size()));
  std::copy(values.begin(), values.end(), out.mutable_data());
  return out;
}

}  // namespace musicgen::generate
