// How a model's tensors are laid into memory: in the order in which a step reads them.
#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <utility>

#include "base/checked.h"
#include "generate/recurrent.h"

namespace musicgen::generate {

namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
constexpr std::size_t kLine = 64;
constexpr std::size_t kSecondLevelCache = std::size_t{1} << 20;  // or more, on today's machines

int gates_of(Cell cell) { return cell == Cell::lstm ? 4 : cell == Cell::gru ? 3 : 1; }

const Tensor& tensor_of(const Tensors& tensors, const std::string& name) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) throw std::invalid_argument("tensor " + name + ": expected, got none");
  return found->second;
}

std::uint16_t bfloat16_of(float x) {  // to nearest, ties to even; weights are finite
  std::uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

float bfloat16_rounded(float x) {
  const std::uint32_t bits = static_cast<std::uint32_t>(bfloat16_of(x)) << 16;
  float out;
  std::memcpy(&out, &bits, 4);
  return out;
}

}  // namespace

int Slot::output_rows() const {
  int rows = size + static_cast<int>(copies.size()) + kPitchClasses * static_cast<int>(periodic.size());
  for (const Relative& r : relative) rows += 2 * r.radius + 1;
  return rows;
}

// Lays matrices, biases and tables into one arena. Runs twice over the same calls: first to count bytes, then to write.
class RecurrentModel::Packer {
 public:
  Packer(RecurrentModel& model, const Tensors& tensors, const Kernels& kernels)
      : model_(model), tensors_(tensors), kernels_(kernels) {}

  void run() {
    lay_out();
    model_.arena_ = Arena(used_);
    writing_ = true;
    bytes_ = used_;
    used_ = 0;
    lay_out();
  }

 private:
  void lay_out() {
    const RecurrentSpec& spec = model_.spec_;
    const int gates = gates_of(spec.cell);
    model_.units_ = padded(spec.hidden_size);
    model_.gate_rows_ = gates * model_.units_;
    const std::vector<int> tiles = tiles_of(gates * model_.units_ / kLanes, gates);
    const std::vector<std::int64_t> gate_map = gate_row_map(gates);

    model_.layers_.assign(to_size(spec.num_layers), Layer{});
    std::size_t macs = 0;
    for (int k = 0; k < spec.num_layers; ++k) {
      Layer& layer = model_.layers_[to_size(k)];
      const std::string suffix = "_l" + std::to_string(k);
      layer.cell = spec.cell;
      layer.units = model_.units_;
      layer.has_input = k > 0;
      const Tensor& bias_ih = tensor_of(tensors_, "rnn.bias_ih" + suffix);
      const Tensor& bias_hh = tensor_of(tensors_, "rnn.bias_hh" + suffix);
      const bool apart = spec.cell == Cell::gru;
      layer.bias = row_of(
          gate_map, [&](std::int64_t r) { return apart ? bias_ih.at(r, 0) : bias_ih.at(r, 0) + bias_hh.at(r, 0); });
      if (apart) layer.bias_hh = row_of(gate_map, [&](std::int64_t r) { return bias_hh.at(r, 0); });
      std::vector<std::pair<Matrix*, const Tensor*>> matrices;
      if (k > 0) matrices.emplace_back(&layer.ih, &tensor_of(tensors_, "rnn.weight_ih" + suffix));
      matrices.emplace_back(&layer.hh, &tensor_of(tensors_, "rnn.weight_hh" + suffix));
      pack(matrices, gate_map, tiles, spec.hidden_size, model_.precision_);
      macs += matrices.size() * to_size(model_.gate_rows_) * to_size(model_.units_);
    }

    model_.heads_.assign(spec.slots.size(), Head{});
    model_.most_rows_ = kLanes;
    model_.most_tokens_ = 0;
    for (std::size_t s = 0; s < spec.slots.size(); ++s) {
      const Slot& slot = spec.slots[s];
      Head& head = model_.heads_[s];
      const std::string prefix = "head." + slot.name;
      int width = spec.hidden_size;
      if (slot.hidden_size > 0) {
        width = slot.hidden_size;
        const std::vector<std::int64_t> map = plain_row_map(width);
        const Tensor& bias = tensor_of(tensors_, prefix + ".hidden.bias");
        head.hidden_bias = row_of(map, [&](std::int64_t r) { return bias.at(r, 0); });
        pack({{&head.hidden, &tensor_of(tensors_, prefix + ".hidden.weight")}}, map,
             tiles_of(padded(width) / kLanes, 1), spec.hidden_size, model_.precision_);
        macs += to_size(padded(width)) * to_size(model_.units_);
        for (const int f : slot.inputs)
          head.inputs.push_back(
              plain_table(tensor_of(tensors_, prefix + ".input." + spec.feature_names[to_size(f)] + ".weight"), width));
        model_.most_rows_ = std::max(model_.most_rows_, padded(width));
      }
      const int rows = slot.output_rows();
      const std::vector<std::int64_t> map = plain_row_map(rows);
      const Tensor& bias = tensor_of(tensors_, prefix + ".output.bias");
      // Rows that only pad a linear head's vocabulary can never be drawn.
      head.output_bias = row_of(map, [&](std::int64_t r) { return bias.at(r, 0); }, kMinusInfinity);
      pack({{&head.output, &tensor_of(tensors_, prefix + ".output.weight")}}, map, tiles_of(padded(rows) / kLanes, 1),
           width, model_.precision_);
      macs += to_size(padded(rows)) * to_size(padded(width));
      model_.most_rows_ = std::max(model_.most_rows_, padded(rows));
      model_.most_tokens_ = std::max(model_.most_tokens_, slot.size);
    }
    model_.macs_per_frame_ = macs;
    lay_out_inputs(gate_map, tiles);
  }

  // The first layer's input product: one table of packed gate sums for every feature, so that a step only adds rows.
  void lay_out_inputs(const std::vector<std::int64_t>& gate_map, const std::vector<int>& tiles) {
    const RecurrentSpec& spec = model_.spec_;
    const Tensor& weight = tensor_of(tensors_, "rnn.weight_ih_l0");
    model_.base_ = model_.layers_[0].bias;
    model_.trunk_.clear();
    std::int64_t column = 0;
    for (std::size_t i = 0; i < spec.trunk.size(); ++i) {
      const std::string& name = spec.feature_names[to_size(spec.trunk[i])];
      const Tensor& embedding = tensor_of(tensors_, "trunk." + name + ".weight");
      // The biases go into the first table.
      model_.trunk_.push_back(gate_table(embedding, weight, column, gate_map, tiles, i == 0 ? model_.base_ : nullptr));
      if (spec.concat) column += spec.trunk_dims[i];
    }
    if (spec.vector_size > 0) {
      const Tensor& projection = tensor_of(tensors_, "vector.weight");
      pack({{&model_.vector_projection_, &projection}}, plain_row_map(spec.vector_dim),
           tiles_of(padded(spec.vector_dim) / kLanes, 1), spec.vector_size, Precision::float32);
      pack_columns(model_.vector_input_, weight, column, spec.vector_dim, gate_map, tiles);
    }
  }

  // Packed row -> row of the tensor, -1 where it only pads. Blocks of 16 units, each with all of its gates.
  std::vector<std::int64_t> gate_row_map(int gates) const {
    std::vector<std::int64_t> map;
    const int hidden = model_.spec_.hidden_size;
    for (int unit = 0; unit < model_.units_; unit += kLanes)
      for (int gate = 0; gate < gates; ++gate)
        for (int lane = 0; lane < kLanes; ++lane)
          map.push_back(unit + lane < hidden ? static_cast<std::int64_t>(gate) * hidden + unit + lane : -1);
    return map;
  }

  static std::vector<std::int64_t> plain_row_map(int rows) {
    std::vector<std::int64_t> map(to_size(padded(rows)), -1);
    for (int r = 0; r < rows; ++r) map[to_size(r)] = r;
    return map;
  }

  // Measured on Zen 5, one sequence. bfloat16: configuration C (14 MB) takes 96 us a step with 16 lines, 101 without; D
  // (32 MB) 390 with 32, 410 with 16, 470 without. float32: B (3.8 MB) 28 with 8 lines, 31 without, but C and D (25 and
  // 58 MB) lose a tenth at any distance. int8 does not change.
  int lines_ahead(Precision precision) const {
    if (precision == Precision::bfloat16) return bytes_ <= 16 * kSecondLevelCache ? 16 : 32;
    return precision == Precision::float32 && bytes_ <= 8 * kSecondLevelCache ? 8 : 0;
  }

  std::byte* take(std::size_t bytes) {
    const std::size_t at = used_;
    used_ += round_up(bytes, kLine);
    return writing_ ? model_.arena_.data() + at : nullptr;
  }

  template <class T>
  T* take_of(std::size_t count) {
    return reinterpret_cast<T*>(take(checked_product(count, sizeof(T))));
  }

  template <class ValueOf>
  const float* row_of(const std::vector<std::int64_t>& map, ValueOf value_of, float padding = 0.0f) {
    float* out = take_of<float>(map.size());
    if (writing_)
      for (std::size_t i = 0; i < map.size(); ++i) out[i] = map[i] < 0 ? padding : value_of(map[i]);
    return out;
  }

  // Several matrices with the same rows, tile by tile behind one another.
  void pack(const std::vector<std::pair<Matrix*, const Tensor*>>& matrices, const std::vector<std::int64_t>& map,
            const std::vector<int>& tiles, int cols, Precision precision) {
    const int padded_cols = padded(cols);
    for (const auto& [matrix, tensor] : matrices) {
      matrix->precision = precision;
      matrix->vecs = static_cast<int>(map.size()) / kLanes;
      matrix->cols = padded_cols;
      matrix->tiles = tiles;
      matrix->far = bytes_ > kSecondLevelCache;
      matrix->lines_ahead = matrix->far ? lines_ahead(precision) : 0;
      matrix->tile_pitch = matrices.size() * tile_bytes(precision, tiles.front(), padded_cols);
      if (precision == Precision::int8) {
        if (writing_ && tensor->bytes == nullptr)
          throw std::invalid_argument("int8 weights: expected int8 tensors for every product, got float32");
        const Tensor& t = *tensor;
        matrix->scale = row_of(map, [&](std::int64_t r) { return t.scale[r]; });
        int* minus_bias = take_of<int>(map.size());
        if (writing_)
          for (std::size_t i = 0; i < map.size(); ++i) {
            int sum = 0;
            for (std::int64_t c = 0; map[i] >= 0 && c < t.cols; ++c) sum += t.bytes[map[i] * t.cols + c];
            minus_bias[i] = -128 * sum;
          }
        matrix->minus_bias = minus_bias;
      }
    }
    std::size_t first_row = 0;
    for (std::size_t tile = 0; tile < tiles.size(); ++tile) {
      for (const auto& [matrix, tensor] : matrices) {
        // The last tile may be smaller, but keeps the place of a full one: tiles of a matrix are one pitch apart. It
        // may also be larger, where a matrix stands alone.
        std::byte* out = take(tile_bytes(precision, std::max(tiles.front(), tiles[tile]), padded_cols));
        if (tile == 0) matrix->weights = reinterpret_cast<const char*>(out);
        if (writing_) write_tile(out, *tensor, 0, cols, map.data() + first_row, tiles[tile], padded_cols, precision);
      }
      first_row += to_size(tiles[tile]) * kLanes;
    }
  }

  // Columns [first, first + count) of a matrix, in float32 (in the arena).
  void pack_columns(Matrix& matrix, const Tensor& tensor, std::int64_t first, int count,
                    const std::vector<std::int64_t>& map, const std::vector<int>& tiles) {
    describe_columns(matrix, map, tiles, count);
    std::byte* out = take(columns_bytes(tiles, matrix.cols));
    matrix.weights = reinterpret_cast<const char*>(out);
    if (writing_) write_columns(out, tensor, first, count, map, tiles, matrix.cols);
  }

  static void describe_columns(Matrix& matrix, const std::vector<std::int64_t>& map, const std::vector<int>& tiles,
                               int count) {
    matrix.precision = Precision::float32;
    matrix.vecs = static_cast<int>(map.size()) / kLanes;
    matrix.cols = padded(count);
    matrix.tiles = tiles;
    matrix.tile_pitch = tile_bytes(Precision::float32, tiles.front(), matrix.cols);
  }

  static std::size_t columns_bytes(const std::vector<int>& tiles, int cols) {
    std::size_t bytes = 0;
    for (const int vecs : tiles) bytes += tile_bytes(Precision::float32, vecs, cols);
    return bytes;
  }

  void write_columns(std::byte* out, const Tensor& tensor, std::int64_t first, int count,
                     const std::vector<std::int64_t>& map, const std::vector<int>& tiles, int cols) const {
    std::size_t row = 0;
    for (const int vecs : tiles) {
      write_tile(out, tensor, first, count, map.data() + row, vecs, cols, Precision::float32);
      out += tile_bytes(Precision::float32, vecs, cols);
      row += to_size(vecs) * kLanes;
    }
  }

  void write_tile(std::byte* out, const Tensor& t, std::int64_t first, int cols, const std::int64_t* map, int vecs,
                  int padded_cols, Precision precision) const {
    const int together = precision == Precision::float32 ? 1 : precision == Precision::bfloat16 ? 2 : 4;
    for (int c = 0; c < padded_cols; c += together)
      for (int r = 0; r < vecs * kLanes; ++r)
        for (int j = 0; j < together; ++j) {
          const bool real = map[r] >= 0 && c + j < cols;
          const std::size_t at = to_size(c) * to_size(vecs * kLanes) + to_size(r * together + j);
          if (precision == Precision::int8) {
            reinterpret_cast<std::int8_t*>(out)[at] = real ? t.bytes[map[r] * t.cols + first + c + j] : std::int8_t{0};
          } else {
            const float value = real ? t.at(map[r], first + c + j) : 0.0f;
            if (precision == Precision::bfloat16) {
              reinterpret_cast<std::uint16_t*>(out)[at] = bfloat16_of(value);
            } else {
              reinterpret_cast<float*>(out)[at] = stored(value);
            }
          }
        }
  }

  // What is left of a float in the model's precision: tables are made of weights as they are stored.
  float stored(float value) const { return model_.precision_ == Precision::bfloat16 ? bfloat16_rounded(value) : value; }

  Table plain_table(const Tensor& tensor, int width) {
    Table table;
    table.pitch = to_size(padded(width));
    float* out = take_of<float>(checked_product(to_size(tensor.rows), table.pitch));
    table.rows = out;
    if (writing_)
      for (std::int64_t r = 0; r < tensor.rows; ++r)
        for (int c = 0; c < width; ++c) out[to_size(r) * table.pitch + to_size(c)] = stored(tensor.at(r, c));
    return table;
  }

  Table gate_table(const Tensor& embedding, const Tensor& weight, std::int64_t first,
                   const std::vector<std::int64_t>& map, const std::vector<int>& tiles, const float* bias) {
    Table table;
    table.pitch = map.size();
    float* out = take_of<float>(checked_product(to_size(embedding.rows), table.pitch));
    table.rows = out;
    if (!writing_) return table;

    const int dim = static_cast<int>(embedding.cols);
    Matrix matrix;
    describe_columns(matrix, map, tiles, dim);
    Arena columns(columns_bytes(tiles, matrix.cols));
    write_columns(columns.data(), weight, first, dim, map, tiles, matrix.cols);
    matrix.weights = reinterpret_cast<const char*>(columns.data());

    const std::vector<float> zeros(map.size(), 0.0f);
    std::vector<float> inputs(checked_product(to_size(embedding.rows), to_size(matrix.cols)), 0.0f);
    std::vector<DenseRow> rows;
    for (std::int64_t r = 0; r < embedding.rows; ++r) {
      float* x = inputs.data() + to_size(r) * to_size(matrix.cols);
      for (int c = 0; c < dim; ++c) x[c] = stored(embedding.at(r, c));
      rows.push_back({bias != nullptr ? bias : zeros.data(),
                      {reinterpret_cast<const unsigned char*>(x), 1.0f},
                      out + to_size(r) * table.pitch});
    }
    kernels_.dense(matrix, rows.data(), static_cast<int>(rows.size()));
    return table;
  }

  RecurrentModel& model_;
  const Tensors& tensors_;
  const Kernels& kernels_;
  bool writing_ = false;
  std::size_t bytes_ = 0;  // of the whole model, once counted
  std::size_t used_ = 0;
};

RecurrentModel::RecurrentModel(RecurrentSpec spec, const Tensors& tensors, Precision precision)
    : spec_(std::move(spec)), precision_(precision) {
  int lag = 1;
  for (std::size_t i = 0; i < spec_.features.size(); ++i) {
    const Feature& f = spec_.features[i];
    if (f.kind == FeatureKind::difference || f.kind == FeatureKind::degree || f.kind == FeatureKind::parallel)
      combined_.push_back(i);
    if (f.kind == FeatureKind::token || f.kind == FeatureKind::sounding) lag = std::max(lag, f.lag);
    if (f.kind == FeatureKind::match || f.kind == FeatureKind::match_length) needs_match_ = true;
  }
  const int needed = std::max(lag, needs_match_ ? spec_.match_window : 0) + 2;
  while (history_ < needed) history_ *= 2;
  Packer(*this, tensors, kernels_for(isa_in_use())).run();
}

}  // namespace musicgen::generate
