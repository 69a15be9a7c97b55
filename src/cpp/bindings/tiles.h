// Where tiles of spectra come from, and what their memory belongs to.
#pragma once

#include <pybind11/pybind11.h>

#include <vector>

#include "audio/features.h"

namespace musicgen {

struct TileSource {
  audio::Tiles tiles;
  std::vector<pybind11::object> owners;
};

}  // namespace musicgen
