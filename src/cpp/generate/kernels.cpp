#include "generate/kernels.h"

#include "generate/lanes.h"

namespace musicgen::generate {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

#define MUSICGEN_KERNELS "generate/kernels.inl"
#include "generate/every_isa.inl"

}  // namespace

const Kernels& kernels_for(Isa isa) { return MUSICGEN_OF(isa, kKernels); }

std::vector<int> tiles_of(int vecs, int gates) {
  std::vector<int> tiles;
  const int full = gates == 1 ? 8 : 2 * gates;
  const int most = gates == 1 ? kMaxTileVecs : full;
  while (vecs > most) {
    tiles.push_back(full);
    vecs -= full;
  }
  if (vecs > 0) tiles.push_back(vecs);
  return tiles;
}

std::size_t tile_bytes(Precision precision, int tile_vecs, int cols) {
  const std::size_t columns_a_line = precision == Precision::float32 ? 1 : precision == Precision::bfloat16 ? 2 : 4;
  return static_cast<std::size_t>(64) * static_cast<std::size_t>(tile_vecs) *
         (static_cast<std::size_t>(cols) / columns_a_line);
}

}  // namespace musicgen::generate
