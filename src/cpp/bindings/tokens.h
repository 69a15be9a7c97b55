// Rows of tokens as numpy arrays: shape (n,) where a row is one token, else (n, width).
#pragma once

#include <pybind11/numpy.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "base/buffer.h"
#include "bindings/midi_arrays.h"

namespace musicgen {

using Tokens = py::array_t<std::int32_t, py::array::c_style>;

template <typename T>
py::array rows_of_width(Buffer<T>& values, int width) {
  py::array flat = array_of(values, plain<T>());
  return width == 1 ? flat : flat.reshape({py::ssize_t{-1}, py::ssize_t{width}});
}

// The number of rows, or a ValueError for another shape.
inline std::size_t count_rows(const Tokens& tokens, py::ssize_t width) {
  if (tokens.ndim() != (width == 1 ? 1 : 2) || (width > 1 && tokens.shape(1) != width)) {
    throw std::invalid_argument("tokens: expected shape " +
                                (width == 1 ? std::string("(n,)") : "(n, " + std::to_string(width) + ")") +
                                ", got one of " + std::to_string(tokens.ndim()) + " dimensions and " +
                                std::to_string(tokens.size()) + " values");
  }
  return static_cast<std::size_t>(tokens.shape(0));
}

}  // namespace musicgen
