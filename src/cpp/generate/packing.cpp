#include "generate/packing.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace musicgen::generate {

namespace {

constexpr std::size_t kLine = 64;

float bfloat16_rounded(float x) {
  const std::uint32_t bits = static_cast<std::uint32_t>(bfloat16_of(x)) << 16;
  float out;
  std::memcpy(&out, &bits, 4);
  return out;
}

}  // namespace

std::uint16_t bfloat16_of(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

const Tensor& tensor_of(const Tensors& tensors, const std::string& name) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) throw std::invalid_argument("tensor " + name + ": expected, got none");
  return found->second;
}

Indices plain_indices(int n) { return spaced_indices(0, 1, n); }

Indices spaced_indices(std::int64_t first, std::int64_t step, int n) {
  Indices indices(to_size(padded(n)), -1);
  for (int i = 0; i < n; ++i) indices[to_size(i)] = first + step * i;
  return indices;
}

Indices gate_indices(int gates, int units) {
  Indices indices;
  for (int unit = 0; unit < units; unit += kLanes)
    for (int gate = 0; gate < gates; ++gate)
      for (int lane = 0; lane < kLanes; ++lane)
        indices.push_back(unit + lane < units ? static_cast<std::int64_t>(gate) * units + unit + lane : -1);
  return indices;
}

void Packing::run() {
  lay_out();
  arena_ = Arena(used_);
  writing_ = true;
  bytes_ = used_;
  used_ = 0;
  lay_out();
}

std::byte* Packing::take(std::size_t bytes) {
  const std::size_t at = used_;
  used_ += round_up(bytes, kLine);
  return writing_ ? arena_.data() + at : nullptr;
}

// Measured on Zen 5, one sequence. bfloat16: configuration C (14 MB) takes 96 us a step with 16 lines, 101 without; D
// (32 MB) 390 with 32, 410 with 16, 470 without. float32: B (3.8 MB) 28 with 8 lines, 31 without, but C and D (25 and
// 58 MB) lose a tenth at any distance. int8 does not change.
int Packing::lines_ahead(Precision precision) const {
  if (precision == Precision::bfloat16) return bytes_ <= 16 * kSecondLevelCache ? 16 : 32;
  return precision == Precision::float32 && bytes_ <= 8 * kSecondLevelCache ? 8 : 0;
}

void Packing::describe(Matrix& matrix, std::size_t rows, const std::vector<int>& tiles, std::size_t columns,
                       Precision precision) {
  matrix.precision = precision;
  matrix.vecs = static_cast<int>(rows) / kLanes;
  matrix.cols = static_cast<int>(columns);
  matrix.tiles = tiles;
  matrix.tile_pitch = tile_bytes(precision, tiles.front(), matrix.cols);
}

// All but the weights themselves.
void Packing::prepare(const Part& part, const Indices& rows, const std::vector<int>& tiles, Precision precision) {
  Matrix& matrix = *part.matrix;
  const Tensor& tensor = *part.tensor;
  describe(matrix, rows.size(), tiles, part.columns.size(), precision);
  matrix.far = bytes_ > kSecondLevelCache;
  matrix.lines_ahead = matrix.far ? lines_ahead(precision) : 0;
  if (precision != Precision::int8) return;
  if (writing_ && tensor.bytes == nullptr)
    throw std::invalid_argument("int8 weights: expected int8 tensors for every product, got float32");
  matrix.scale = row_of(rows, [&](std::int64_t r) { return tensor.scale[r]; });
  int* minus_bias = take_of<int>(rows.size());
  if (writing_)
    for (std::size_t i = 0; i < rows.size(); ++i) {
      int sum = 0;
      for (const std::int64_t c : part.columns)
        if (rows[i] >= 0 && c >= 0) sum += tensor.bytes[rows[i] * tensor.cols + c];
      minus_bias[i] = -128 * sum;
    }
  matrix.minus_bias = minus_bias;
}

void Packing::pack(const std::vector<Part>& parts, const Indices& rows, const std::vector<int>& tiles,
                   Precision precision) {
  for (const Part& part : parts) {
    prepare(part, rows, tiles, precision);
    part.matrix->tile_pitch *= parts.size();
  }
  std::size_t first_row = 0;
  for (std::size_t tile = 0; tile < tiles.size(); ++tile) {
    for (const auto& [matrix, tensor, columns] : parts) {
      // The last tile may be smaller, but keeps the place of a full one: tiles of a matrix are one pitch apart. It
      // may also be larger, where a matrix stands alone.
      std::byte* out = take(tile_bytes(precision, std::max(tiles.front(), tiles[tile]), matrix->cols));
      if (tile == 0) matrix->weights = reinterpret_cast<const char*>(out);
      if (writing_) write_tile(out, *tensor, columns, rows.data() + first_row, tiles[tile], precision);
    }
    first_row += to_size(tiles[tile]) * kLanes;
  }
}

std::size_t Packing::matrix_bytes(const std::vector<int>& tiles, std::size_t columns) {
  std::size_t bytes = 0;
  for (const int vecs : tiles) bytes += tile_bytes(Precision::float32, vecs, static_cast<int>(columns));
  return bytes;
}

void Packing::write_matrix(std::byte* out, const Tensor& tensor, const Indices& columns, const Indices& rows,
                           const std::vector<int>& tiles) const {
  std::size_t row = 0;
  for (const int vecs : tiles) {
    write_tile(out, tensor, columns, rows.data() + row, vecs, Precision::float32);
    out += tile_bytes(Precision::float32, vecs, static_cast<int>(columns.size()));
    row += to_size(vecs) * kLanes;
  }
}

void Packing::write_tile(std::byte* out, const Tensor& t, const Indices& columns, const std::int64_t* rows, int vecs,
                         Precision precision) const {
  const std::size_t together = precision == Precision::float32 ? 1 : precision == Precision::bfloat16 ? 2 : 4;
  const std::size_t height = to_size(vecs) * kLanes;
  for (std::size_t c = 0; c < columns.size(); ++c)
    for (std::size_t r = 0; r < height; ++r) {
      const bool real = rows[r] >= 0 && columns[c] >= 0;
      const std::size_t at = c / together * together * height + r * together + c % together;
      if (precision == Precision::int8) {
        reinterpret_cast<std::int8_t*>(out)[at] = real ? t.bytes[rows[r] * t.cols + columns[c]] : std::int8_t{0};
      } else {
        const float value = real ? t.at(rows[r], columns[c]) : 0.0f;
        if (precision == Precision::bfloat16) {
          reinterpret_cast<std::uint16_t*>(out)[at] = bfloat16_of(value);
        } else {
          reinterpret_cast<float*>(out)[at] = stored(value);
        }
      }
    }
}

float Packing::stored(float value) const { return precision_ == Precision::bfloat16 ? bfloat16_rounded(value) : value; }

}  // namespace musicgen::generate
