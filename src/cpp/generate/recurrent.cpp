#include "generate/recurrent.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <utility>

#include "base/checked.h"
#include "base/parallel.h"

namespace musicgen::generate {

namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
constexpr std::size_t kLine = 64;
constexpr std::size_t kSecondLevelCache = std::size_t{1} << 20;  // or more, on today's machines

int gates_of(Cell cell) { return cell == Cell::lstm ? 4 : cell == Cell::gru ? 3 : 1; }

int padded(int n) { return static_cast<int>(round_up(static_cast<std::size_t>(n), kLanes)); }

std::size_t to_size(std::int64_t n) { return static_cast<std::size_t>(n); }

inline void prefetch(const void* p) {
#if defined(__GNUC__)
  __builtin_prefetch(p);
#else
  (void)p;
#endif
}

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
  int rows = size + static_cast<int>(copies.size());
  for (const Relative& r : relative) rows += 2 * r.radius + 1;
  return rows;
}

// ---------------------------------------------------------------------------------------------------------- packing

// Lays matrices, biases and tables into one arena. Runs twice over the same calls: first to count bytes, then to write.
class RecurrentModel::Packer {
 public:
  Packer(RecurrentModel& model, const Tensors& tensors, const Kernels& kernels)
      : model_(model), tensors_(tensors), kernels_(kernels) {}

  void run() {
    lay_out();
    model_.arena_ = Arena(used_);
    writing_ = true;
    far_ = used_ > kSecondLevelCache;
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
      layer.bias = row_of(gate_map, [&](std::int64_t r) { return apart ? bias_ih.at(r, 0) : bias_ih.at(r, 0) + bias_hh.at(r, 0); });
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
        pack({{&head.hidden, &tensor_of(tensors_, prefix + ".hidden.weight")}}, map, tiles_of(padded(width) / kLanes, 1),
             spec.hidden_size, model_.precision_);
        macs += to_size(padded(width)) * to_size(model_.units_);
        for (const int f : slot.inputs)
          head.inputs.push_back(plain_table(tensor_of(tensors_, prefix + ".input." + spec.feature_names[to_size(f)] + ".weight"), width));
        model_.most_rows_ = std::max(model_.most_rows_, padded(width));
      }
      const int rows = slot.output_rows();
      const std::vector<std::int64_t> map = plain_row_map(rows);
      const Tensor& bias = tensor_of(tensors_, prefix + ".output.bias");
      // Rows that only pad a linear head's vocabulary can never be drawn.
      head.output_bias = row_of(map, [&](std::int64_t r) { return bias.at(r, 0); }, kMinusInfinity);
      pack({{&head.output, &tensor_of(tensors_, prefix + ".output.weight")}}, map, tiles_of(padded(rows) / kLanes, 1), width,
           model_.precision_);
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
      pack({{&model_.vector_projection_, &projection}}, plain_row_map(spec.vector_dim), tiles_of(padded(spec.vector_dim) / kLanes, 1),
           spec.vector_size, Precision::float32);
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
      matrix->far = far_;
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
        // The last tile may be smaller, but keeps the place of a full one: tiles of a matrix are one pitch apart. It may
        // also be larger, where a matrix stands alone.
        std::byte* out = take(tile_bytes(precision, std::max(tiles.front(), tiles[tile]), padded_cols));
        if (tile == 0) matrix->weights = reinterpret_cast<const char*>(out);
        if (writing_) write_tile(out, *tensor, 0, cols, map.data() + first_row, tiles[tile], padded_cols, precision);
      }
      first_row += to_size(tiles[tile]) * kLanes;
    }
  }

  // Columns [first, first + count) of a matrix, in float32 (in the arena).
  void pack_columns(Matrix& matrix, const Tensor& tensor, std::int64_t first, int count, const std::vector<std::int64_t>& map,
                    const std::vector<int>& tiles) {
    describe_columns(matrix, map, tiles, count);
    std::byte* out = take(columns_bytes(tiles, matrix.cols));
    matrix.weights = reinterpret_cast<const char*>(out);
    if (writing_) write_columns(out, tensor, first, count, map, tiles, matrix.cols);
  }

  static void describe_columns(Matrix& matrix, const std::vector<std::int64_t>& map, const std::vector<int>& tiles, int count) {
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

  void write_columns(std::byte* out, const Tensor& tensor, std::int64_t first, int count, const std::vector<std::int64_t>& map,
                     const std::vector<int>& tiles, int cols) const {
    std::size_t row = 0;
    for (const int vecs : tiles) {
      write_tile(out, tensor, first, count, map.data() + row, vecs, cols, Precision::float32);
      out += tile_bytes(Precision::float32, vecs, cols);
      row += to_size(vecs) * kLanes;
    }
  }

  void write_tile(std::byte* out, const Tensor& t, std::int64_t first, int cols, const std::int64_t* map, int vecs, int padded_cols,
                  Precision precision) const {
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

  Table gate_table(const Tensor& embedding, const Tensor& weight, std::int64_t first, const std::vector<std::int64_t>& map,
                   const std::vector<int>& tiles, const float* bias) {
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
      rows.push_back({bias != nullptr ? bias : zeros.data(), {reinterpret_cast<const unsigned char*>(x), 1.0f},
                      out + to_size(r) * table.pitch});
    }
    kernels_.dense(matrix, rows.data(), static_cast<int>(rows.size()));
    return table;
  }

  RecurrentModel& model_;
  const Tensors& tensors_;
  const Kernels& kernels_;
  bool writing_ = false, far_ = false;
  std::size_t used_ = 0;
};

RecurrentModel::RecurrentModel(RecurrentSpec spec, const Tensors& tensors, Precision precision)
    : spec_(std::move(spec)), precision_(precision) {
  int lag = 1;
  for (std::size_t i = 0; i < spec_.features.size(); ++i) {
    const Feature& f = spec_.features[i];
    if (f.kind == FeatureKind::difference) differences_.push_back(i);
    if (f.kind == FeatureKind::token || f.kind == FeatureKind::sounding) lag = std::max(lag, f.lag);
    if (f.kind == FeatureKind::match || f.kind == FeatureKind::match_length) needs_match_ = true;
  }
  const int needed = std::max(lag, needs_match_ ? spec_.match_window : 0) + 2;
  while (history_ < needed) history_ *= 2;
  Packer(*this, tensors, kernels_for(isa_in_use())).run();
}

// ------------------------------------------------------------------------------------------------------------ states

SequenceState start_of(const RecurrentModel& model) {
  const RecurrentSpec& spec = model.spec();
  const std::size_t slots = spec.slots.size(), ring = to_size(model.history());
  SequenceState state;
  state.h.assign(to_size(spec.num_layers) * to_size(model.units()), 0.0f);
  if (spec.cell == Cell::lstm) state.c = state.h;
  state.tokens.assign(ring * slots, 0);
  state.sounding.assign(ring * slots, 0);
  state.last_onset.assign(slots, -1);
  if (model.needs_match()) {
    state.hashes.assign(ring, 0);
    state.match.assign(ring, 0);
  }
  return state;
}

namespace {

// -------------------------------------------------------------------------------------------------- features of the past

// The features of one sequence, kept up to date from its state.
class History {
 public:
  History() = default;
  History(const RecurrentModel& model, SequenceState& state)
      : model_(&model), spec_(&model.spec()), state_(&state), mask_(model.history() - 1), slots_(spec_->slots.size()) {}

  // Feature ids for the coming frame, as far as the past determines them.
  void look(const std::int32_t* given, int* ids) {
    const std::int64_t t = state_->frame;
    if (model_->needs_match()) find_match(t);
    for (std::size_t i = 0; i < spec_->features.size(); ++i) {
      const Feature& f = spec_->features[i];
      switch (f.kind) {
        case FeatureKind::token:
          ids[i] = t < f.lag ? start_id(f.slot) : state_->tokens[at(t - f.lag, f.slot)];
          break;
        case FeatureKind::sounding:
          ids[i] = t < f.lag ? start_id(f.slot) : state_->sounding[at(t - f.lag, f.slot)];
          break;
        case FeatureKind::held:
          ids[i] = bucket(f, state_->last_onset[to_size(f.slot)] < 0 ? 0 : (t - 1) - state_->last_onset[to_size(f.slot)]);
          break;
        case FeatureKind::clock:
          ids[i] = static_cast<int>((t / f.divide) % f.period);
          break;
        case FeatureKind::match:
          ids[i] = match_length_ == 0 ? start_id(f.slot) : state_->tokens[at(match_frame_, f.slot)];
          break;
        case FeatureKind::match_length:
          ids[i] = bucket(f, match_length_);
          break;
        case FeatureKind::interval:
          ids[i] = interval(f, t);
          break;
        case FeatureKind::given:
          ids[i] = given[f.given];
          break;
        case FeatureKind::chosen:
        case FeatureKind::chosen_sounding:
          ids[i] = start_id(f.slot);
          break;
        case FeatureKind::difference:
          break;
      }
    }
    compare(ids);
  }

  // The features that compare two others, once these are known.
  void compare(int* ids) const {
    for (const std::size_t i : model_->differences()) {
      const Feature& f = spec_->features[i];
      const Feature &a = spec_->features[to_size(f.first)], &b = spec_->features[to_size(f.second)];
      ids[i] = difference(a.slot, ids[f.first], b.slot, ids[f.second], f.limit);
    }
  }

  // A token of the coming frame has been drawn: what its slot sounds now.
  int sounding_with(int slot, int token) const {
    if (token != spec_->slots[to_size(slot)].hold) return token;
    return state_->frame == 0 ? start_id(slot) : state_->sounding[at(state_->frame - 1, slot)];
  }

  // The frame is complete.
  void advance(const std::int32_t* frame) {
    const std::int64_t t = state_->frame;
    std::uint64_t hash = 14695981039346656037ull;
    for (std::size_t s = 0; s < slots_; ++s) {
      const int slot = static_cast<int>(s), hold = spec_->slots[s].hold;
      const bool onset = hold >= 0 ? frame[s] != hold : t == 0 || frame[s] != state_->tokens[at(t - 1, slot)];
      const int sounds = sounding_with(slot, frame[s]);
      state_->tokens[at(t, slot)] = frame[s];
      state_->sounding[at(t, slot)] = sounds;
      if (onset) state_->last_onset[s] = t;
      hash = (hash ^ static_cast<std::uint64_t>(frame[s])) * 1099511628211ull;
    }
    if (model_->needs_match()) state_->hashes[to_size(t & mask_)] = hash;
    state_->frame = t + 1;
  }

 private:
  int start_id(int slot) const { return spec_->slots[to_size(slot)].size; }

  std::size_t at(std::int64_t frame, int slot) const { return to_size(frame & mask_) * slots_ + to_size(slot); }

  static int bucket(const Feature& f, std::int64_t value) {
    int id = 0;
    while (id < static_cast<int>(f.buckets.size()) && f.buckets[to_size(id)] <= value) ++id;
    return id;
  }

  int interval(const Feature& f, std::int64_t t) const {
    if (t == 0) return 0;
    return difference(f.slot, state_->sounding[at(t - 1, f.slot)], f.other_slot, state_->sounding[at(t - 1, f.other_slot)], f.limit);
  }

  int difference(int slot_a, int a, int slot_b, int b, int limit) const {
    return is_pitch(slot_a, a) && is_pitch(slot_b, b) ? 1 + limit + std::clamp(a - b, -limit, limit) : 0;
  }

  bool is_pitch(int slot, int id) const {
    const Slot& s = spec_->slots[to_size(slot)];
    return id >= std::max(s.first_pitch, 0) && id < s.size;
  }

  bool equal(std::int64_t a, std::int64_t b) const {
    if (state_->hashes[to_size(a & mask_)] != state_->hashes[to_size(b & mask_)]) return false;
    return std::equal(&state_->tokens[at(a, 0)], &state_->tokens[at(a, 0)] + slots_, &state_->tokens[at(b, 0)]);
  }

  // match[j]: length of the longest common suffix of frames[.. t-1] and frames[.. j-1]; the longest wins, then the latest.
  // One pass from the previous frame's lengths: walking down, match[j - 1] is still the old one.
  void find_match(std::int64_t t) {
    match_length_ = 0;
    match_frame_ = 0;
    const std::int64_t first = std::max<std::int64_t>(1, t - spec_->match_window);
    for (std::int64_t j = t - 1; j >= first; --j) {
      int length = 0;
      if (equal(t - 1, j - 1)) length = 1 + (j > 1 ? state_->match[to_size((j - 1) & mask_)] : 0);
      state_->match[to_size(j & mask_)] = length;
      if (length > match_length_) {
        match_length_ = length;
        match_frame_ = j;
      }
    }
  }

  const RecurrentModel* model_ = nullptr;
  const RecurrentSpec* spec_ = nullptr;
  SequenceState* state_ = nullptr;
  std::int64_t mask_ = 0;
  std::size_t slots_ = 0;
  int match_length_ = 0;
  std::int64_t match_frame_ = 0;
};

// ---------------------------------------------------------------------------------------------------------- the loop

// Asks the caller's interrupt in the calling thread, by the amount of work done; the other threads see the flag.
class Watch {
 public:
  Watch(Interrupt* interrupt, std::atomic<bool>& stopped) : interrupt_(interrupt), stopped_(stopped) {}

  // True when the call should end.
  bool after(std::size_t macs) {
    work_ += macs;
    if (work_ < kWorkBetweenLooks) return false;
    work_ = 0;
    if (interrupt_ != nullptr) {
      const auto now = std::chrono::steady_clock::now();
      if (now - last_ > std::chrono::milliseconds(20)) {
        last_ = now;
        if (interrupt_->requested()) stopped_ = true;
      }
    }
    return stopped_;
  }

 private:
  static constexpr std::size_t kWorkBetweenLooks = 5'000'000;  // 0.1 ms on a fast path, 10 ms on the slowest
  Interrupt* interrupt_;
  std::atomic<bool>& stopped_;
  std::size_t work_ = 0;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

// One thread's share of a request: the sequences [first, first + count). All memory is taken in the constructor.
class Worker {
 public:
  Worker(const RecurrentModel& model, std::vector<SequenceState>& states, const Request& request, std::int64_t first,
         std::int64_t count, const Kernels& kernels)
      : model_(model),
        spec_(model.spec()),
        request_(request),
        kernels_(kernels),
        states_(states),
        first_(first),
        sampler_(request.options, model.most_tokens()),
        n_slots_(spec_.slots.size()),
        n_layers_(to_size(spec_.num_layers)),
        units_(to_size(model.units())),
        int8_(model.precision() == Precision::int8) {
    const std::size_t n = to_size(count), gate_rows = to_size(model.gate_rows()), most_rows = to_size(model.most_rows());
    const std::size_t per_sequence = 3 * n_layers_ * units_ + 2 * gate_rows + 2 * most_rows;  // floats
    const std::size_t per_sequence_bytes = 2 * n_layers_ * units_ + 2 * most_rows;
    floats_ = Arena(checked_product(n, per_sequence, sizeof(float)) + kGroupScratch * sizeof(float) +
                    checked_product(n, per_sequence_bytes) + 4096);
    auto* p = reinterpret_cast<float*>(floats_.data());
    const auto take = [&p](std::size_t count_of) {
      float* at = p;
      p += count_of;
      return at;
    };
    scratch_ = take(kGroupScratch);
    sequences_.resize(n);
    for (std::size_t b = 0; b < n; ++b) {
      Sequence& s = sequences_[b];
      s.history = History(model, states[to_size(first) + b]);
      s.ids.assign(spec_.features.size(), 0);
      s.layers.resize(n_layers_);
      for (LayerMemory& m : s.layers) {
        m.h[0] = take(units_);
        m.h[1] = take(units_);
        m.c = take(units_);
      }
      s.start = take(gate_rows);
      s.vector = take(gate_rows);
      s.u = take(most_rows);
      s.z = take(most_rows);
    }
    auto* q = reinterpret_cast<unsigned char*>(p);
    for (Sequence& s : sequences_) {
      for (LayerMemory& m : s.layers) {
        m.q[0] = q;
        m.q[1] = q + units_;
        q += 2 * units_;
      }
      s.u_bytes = q;
      q += most_rows;
    }
    layer_rows_.resize(n);
    dense_rows_.resize(n);
    active_.reserve(n);
    drawing_.reserve(n);
    load_states();
    project_vectors();
  }

  // False if it was stopped.
  bool run(Watch& watch) {
    active_.clear();
    for (std::size_t b = 0; b < sequences_.size(); ++b) active_.push_back(b);
    for (std::int64_t t = 0; t < request_.n_frames && !active_.empty(); ++t) {
      for (const std::size_t b : active_) begin_frame(b, t);
      for (std::size_t k = 0; k < n_layers_; ++k) {
        step_layer(k);
        if (watch.after(active_.size() * model_.macs_per_frame() / n_layers_)) return false;
      }
      for (std::size_t s = 0; s < n_slots_; ++s) draw_slot(s, t);
      end_frame(t);
    }
    store_states();
    return true;
  }

 private:
  struct LayerMemory {
    float* h[2] = {nullptr, nullptr};
    unsigned char* q[2] = {nullptr, nullptr};
    float scale[2] = {kByteScale, kByteScale};
    float* c = nullptr;
    int now = 0;
  };

  struct Sequence {
    History history;
    std::vector<int> ids;
    std::vector<LayerMemory> layers;
    const float* start_row = nullptr;
    float* start = nullptr;
    float* vector = nullptr;
    float* u = nullptr;
    float* z = nullptr;
    unsigned char* u_bytes = nullptr;
  };

  static constexpr std::size_t kGroupScratch = 48 * kScratchFloats;

  std::size_t index(std::size_t b, std::int64_t t, std::size_t s) const {
    return ((to_size(first_) + b) * to_size(request_.n_frames) + to_size(t)) * n_slots_ + s;
  }

  Input input_of(const LayerMemory& m) const {
    if (int8_) return {m.q[m.now], m.scale[m.now]};
    return {reinterpret_cast<const unsigned char*>(m.h[m.now]), 1.0f};
  }

  void load_states() {
    for (std::size_t b = 0; b < sequences_.size(); ++b) {
      const SequenceState& state = states_[to_size(first_) + b];
      for (std::size_t k = 0; k < n_layers_; ++k) {
        LayerMemory& m = sequences_[b].layers[k];
        m.now = 0;
        std::memcpy(m.h[0], state.h.data() + k * units_, units_ * sizeof(float));
        if (!state.c.empty()) std::memcpy(m.c, state.c.data() + k * units_, units_ * sizeof(float));
        if (int8_) requantise(m);
      }
    }
  }

  // The bytes that the last step of the previous call stored, from the floats that it left.
  void requantise(LayerMemory& m) {
    const int n = static_cast<int>(units_);
    float largest = 1.0f;
    if (spec_.cell == Cell::rnn_relu) largest = std::max(0.0f, *std::max_element(m.h[0], m.h[0] + units_));
    kernels_.to_bytes(m.h[0], m.q[0], n, largest > 0.0f ? 127.0f / largest : 0.0f);
    m.scale[0] = largest * kByteScale;
  }

  void store_states() {
    for (std::size_t b = 0; b < sequences_.size(); ++b) {
      SequenceState& state = states_[to_size(first_) + b];
      for (std::size_t k = 0; k < n_layers_; ++k) {
        const LayerMemory& m = sequences_[b].layers[k];
        std::memcpy(state.h.data() + k * units_, m.h[m.now], units_ * sizeof(float));
        if (!state.c.empty()) std::memcpy(state.c.data() + k * units_, m.c, units_ * sizeof(float));
      }
    }
  }

  // A condition vector is the same in every frame: its share of the first layer's sums is computed once.
  void project_vectors() {
    if (spec_.vector_size == 0) return;
    const std::size_t in = to_size(padded(spec_.vector_size)), out = to_size(padded(spec_.vector_dim));
    std::vector<float> raw(in, 0.0f), projected(out, 0.0f), none(std::max(out, to_size(model_.gate_rows())), 0.0f);
    for (std::size_t b = 0; b < sequences_.size(); ++b) {
      const float* v = request_.vector + (to_size(first_) + b) * to_size(spec_.vector_size);
      std::copy(v, v + spec_.vector_size, raw.begin());
      const DenseRow one = {none.data(), {reinterpret_cast<const unsigned char*>(raw.data()), 1.0f}, projected.data()};
      kernels_.dense(model_.vector_projection(), &one, 1);
      const DenseRow two = {none.data(), {reinterpret_cast<const unsigned char*>(projected.data()), 1.0f}, sequences_[b].vector};
      kernels_.dense(model_.vector_input(), &two, 1);
    }
  }

  void begin_frame(std::size_t b, std::int64_t t) {
    Sequence& s = sequences_[b];
    const std::int32_t* given =
        request_.given + ((to_size(first_) + b) * to_size(request_.n_frames) + to_size(t)) * to_size(spec_.num_given);
    s.history.look(given, s.ids.data());
    const auto& tables = model_.trunk();
    const std::size_t rows = to_size(model_.gate_rows());
    s.start_row = tables.empty() ? model_.base() : tables[0].row(s.ids[to_size(spec_.trunk[0])]);
    if (tables.size() <= 1 && spec_.vector_size == 0) {
      // Which row is only known now; every tile's sums start from it.
      for (std::size_t i = 0; i < rows; i += kLine / sizeof(float)) prefetch(s.start_row + i);
      return;
    }
    std::copy(s.start_row, s.start_row + rows, s.start);
    for (std::size_t i = 1; i < tables.size(); ++i) add(s.start, tables[i].row(s.ids[to_size(spec_.trunk[i])]), rows);
    if (spec_.vector_size > 0) add(s.start, s.vector, rows);
    s.start_row = s.start;
  }

  static void add(float* sum, const float* row, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) sum[i] += row[i];
  }

  void step_layer(std::size_t k) {
    const Layer& layer = model_.layers()[k];
    for (std::size_t i = 0; i < active_.size(); ++i) {
      Sequence& s = sequences_[active_[i]];
      LayerMemory& m = s.layers[k];
      LayerRow& row = layer_rows_[i];
      const int next = 1 - m.now;
      row.start = k == 0 ? s.start_row : layer.bias;
      if (k > 0) row.x = input_of(s.layers[k - 1]);
      row.h = input_of(m);
      row.h_float = m.h[m.now];
      row.c = m.c;
      row.h_out = m.h[next];
      row.bytes_out = int8_ ? m.q[next] : nullptr;
      row.scale_out = &m.scale[next];
    }
    kernels_.layer(layer, layer_rows_.data(), static_cast<int>(active_.size()), scratch_);
    for (const std::size_t b : active_) {
      LayerMemory& m = sequences_[b].layers[k];
      m.now = 1 - m.now;
    }
  }

  void draw_slot(std::size_t slot_index, std::int64_t t) {
    const Slot& slot = spec_.slots[slot_index];
    const RecurrentModel::Head& head = model_.heads()[slot_index];
    const bool all = request_.log_probs != nullptr || request_.logits != nullptr;
    drawing_.clear();
    for (const std::size_t b : active_) {
      const std::int32_t forced = request_.forced ? request_.forced[index(b, t, slot_index)] : -1;
      if (forced >= 0) request_.tokens[index(b, t, slot_index)] = forced;
      if (forced < 0 || all) drawing_.push_back(b);
    }
    if (!drawing_.empty()) {
      const int n = static_cast<int>(drawing_.size());
      if (slot.hidden_size > 0) {
        const std::size_t width = to_size(padded(slot.hidden_size));
        for (std::size_t i = 0; i < drawing_.size(); ++i) {
          Sequence& s = sequences_[drawing_[i]];
          std::copy(head.hidden_bias, head.hidden_bias + width, s.u);
          for (std::size_t j = 0; j < head.inputs.size(); ++j)
            add(s.u, head.inputs[j].row(s.ids[to_size(slot.inputs[j])]), width);
          dense_rows_[i] = {s.u, input_of(s.layers.back()), s.u};
        }
        kernels_.dense(head.hidden, dense_rows_.data(), n);
        for (std::size_t i = 0; i < drawing_.size(); ++i) {
          Sequence& s = sequences_[drawing_[i]];
          kernels_.tanh(s.u, int8_ ? s.u_bytes : nullptr, static_cast<int>(width));
          const Input u = int8_ ? Input{s.u_bytes, kByteScale} : Input{reinterpret_cast<const unsigned char*>(s.u), 1.0f};
          dense_rows_[i] = {head.output_bias, u, s.z};
        }
      } else {
        for (std::size_t i = 0; i < drawing_.size(); ++i) {
          Sequence& s = sequences_[drawing_[i]];
          dense_rows_[i] = {head.output_bias, input_of(s.layers.back()), s.z};
        }
      }
      kernels_.dense(head.output, dense_rows_.data(), n);
      for (const std::size_t b : drawing_) choose(b, slot_index, t);
    }
    for (const std::size_t b : active_) tell_later_heads(b, slot_index, request_.tokens[index(b, t, slot_index)]);
  }

  void choose(std::size_t b, std::size_t slot_index, std::int64_t t) {
    const Slot& slot = spec_.slots[slot_index];
    Sequence& s = sequences_[b];
    const std::size_t at = index(b, t, slot_index);
    float* logits = s.z;
    add_references(slot, s.ids.data(), logits);
    for (int i = slot.size; i < padded(slot.size); ++i) logits[i] = kMinusInfinity;

    const std::size_t most = to_size(model_.most_tokens());
    if (request_.logits) {
      float* out = request_.logits + at * most;
      std::copy(logits, logits + slot.size, out);
      std::fill(out + slot.size, out + most, kMinusInfinity);
    }
    const std::int32_t forced = request_.forced ? request_.forced[at] : -1;
    const double log_sum = request_.log_probs ? sampler_.log_normaliser(kernels_, logits, slot.size) : 0.0;
    if (forced >= 0) {
      if (request_.log_probs) request_.log_probs[at] = static_cast<double>(logits[forced]) - log_sum;
      return;
    }
    if (request_.allowed) {
      const std::size_t frame = request_.allowed_frames == 1 ? 0 : to_size(t);
      const std::uint8_t* allowed = request_.allowed + (frame * n_slots_ + slot_index) * most;
      for (int i = 0; i < slot.size; ++i)
        if (!allowed[i]) logits[i] = kMinusInfinity;
    }
    const int token = sampler_.draw(kernels_, logits, slot.size, request_.coins[at]);
    if (token < 0)
      throw std::invalid_argument("allowed: no token is left for slot '" + slot.name + "' at frame " + std::to_string(t));
    request_.tokens[at] = token;
    if (request_.log_probs) request_.log_probs[at] = static_cast<double>(logits[token]) - log_sum;
  }

  static void add_references(const Slot& slot, const int* ids, float* z) {
    const float* rows = z + slot.size;
    for (const Relative& r : slot.relative) {
      const int ref = ids[r.feature];
      if (ref >= slot.first_pitch && ref < slot.size) {
        const int low = std::max(slot.first_pitch, ref - r.radius), high = std::min(slot.size - 1, ref + r.radius);
        for (int i = low; i <= high; ++i) z[i] += rows[i - ref + r.radius];
      }
      rows += 2 * r.radius + 1;
    }
    for (const int f : slot.copies) {
      if (ids[f] < slot.size) z[ids[f]] += *rows;
      ++rows;
    }
  }

  void tell_later_heads(std::size_t b, std::size_t slot_index, int token) {
    Sequence& s = sequences_[b];
    for (std::size_t i = 0; i < spec_.features.size(); ++i) {
      const Feature& f = spec_.features[i];
      if (to_size(f.slot) != slot_index) continue;
      if (f.kind == FeatureKind::chosen) s.ids[i] = token;
      if (f.kind == FeatureKind::chosen_sounding) s.ids[i] = s.history.sounding_with(f.slot, token);
    }
    s.history.compare(s.ids.data());
  }

  void end_frame(std::int64_t t) {
    std::size_t kept = 0;
    for (const std::size_t b : active_) {
      const std::int32_t* frame = request_.tokens + index(b, t, 0);
      sequences_[b].history.advance(frame);
      request_.lengths[to_size(first_) + b] = t + 1;
      const bool ends = request_.stop_slot >= 0 && frame[request_.stop_slot] == request_.stop_token;
      if (!ends) active_[kept++] = b;
    }
    active_.resize(kept);
  }

  const RecurrentModel& model_;
  const RecurrentSpec& spec_;
  const Request& request_;
  const Kernels& kernels_;
  std::vector<SequenceState>& states_;
  std::int64_t first_;
  Sampler sampler_;
  std::size_t n_slots_, n_layers_, units_;
  bool int8_;
  Arena floats_;
  float* scratch_ = nullptr;
  std::vector<Sequence> sequences_;
  std::vector<LayerRow> layer_rows_;
  std::vector<DenseRow> dense_rows_;
  std::vector<std::size_t> active_, drawing_;
};

}  // namespace

bool recurrent_sample(const RecurrentModel& model, std::vector<SequenceState>& states, const Request& request, int threads,
                      Isa isa, Interrupt& interrupt) {
  const auto batch = static_cast<std::int64_t>(states.size());
  const std::int64_t parts = std::max<std::int64_t>(1, std::min<std::int64_t>(threads, batch));
  const Kernels& kernels = kernels_for(isa);
  std::atomic<bool> stopped{false};
  const auto share = [&](int part) {
    const std::int64_t first = batch * part / parts, last = batch * (part + 1) / parts;
    Worker worker(model, states, request, first, last - first, kernels);
    Watch watch(part == 0 ? &interrupt : nullptr, stopped);
    worker.run(watch);
  };
  parallel(static_cast<int>(parts), share, [&] {
    if (interrupt.requested()) stopped = true;
  });
  return !stopped;
}

}  // namespace musicgen::generate
