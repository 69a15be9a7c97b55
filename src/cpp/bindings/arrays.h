// numpy arrays at the door: checked for dtype, layout and shape, then plain pointers.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace musicgen {

namespace py = pybind11;

inline std::string shape_text(const std::vector<py::ssize_t>& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + ")";
}

// A C-contiguous array of T with this shape, or an error that names it. Nothing is converted or copied.
template <class T>
py::array_t<T> array_of(const py::object& object, const char* name, const std::vector<py::ssize_t>& shape) {
  if (!py::array_t<T, py::array::c_style>::check_(object)) {
    throw py::type_error(std::string(name) + ": expected a C-contiguous array of " +
                         py::cast<std::string>(py::str(py::dtype::of<T>())) + ", got " +
                         py::cast<std::string>(py::repr(py::type::of(object))));
  }
  auto array = py::reinterpret_borrow<py::array_t<T>>(object);
  const std::vector<py::ssize_t> got(array.shape(), array.shape() + array.ndim());
  if (got != shape)
    throw std::invalid_argument(std::string(name) + ": expected shape " + shape_text(shape) + ", got " +
                                shape_text(got));
  return array;
}

// Every element in [low, high], or an error that names the first one outside.
template <class T>
void check_range(const py::array_t<T>& array, const char* name, std::int64_t low, std::int64_t high) {
  const T* values = array.data();
  for (py::ssize_t i = 0; i < array.size(); ++i) {
    if (values[i] < low || values[i] > high) {
      throw std::invalid_argument(std::string(name) + ": expected values in [" + std::to_string(low) + ", " +
                                  std::to_string(high) + "], got " + std::to_string(values[i]) + " at flat index " +
                                  std::to_string(i));
    }
  }
}

}  // namespace musicgen
