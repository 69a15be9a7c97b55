#include <algorithm>
#include <utility>

#include "generate/packing.h"
#include "generate/recurrent.h"

namespace musicgen::generate {

namespace {

int gates_of(Cell cell) { return cell == Cell::lstm ? 4 : cell == Cell::gru ? 3 : 1; }

}  // namespace

int Slot::output_rows() const {
  int rows = size + static_cast<int>(copies.size()) + kPitchClasses * static_cast<int>(periodic.size());
  for (const Relative& r : relative) rows += 2 * r.radius + 1;
  return rows;
}

class RecurrentModel::Packer final : public Packing {
 public:
  Packer(RecurrentModel& model, const Tensors& tensors, const Kernels& kernels)
      : Packing(model.precision_, model.arena_), model_(model), tensors_(tensors), kernels_(kernels) {}

 private:
  void lay_out() override {
    const RecurrentSpec& spec = model_.spec_;
    const int gates = gates_of(spec.cell);
    model_.units_ = padded(spec.hidden_size);
    model_.gate_rows_ = gates * model_.units_;
    const std::vector<int> tiles = tiles_of(gates * model_.units_ / kLanes, gates);
    const Indices gate_rows = gate_indices(gates, spec.hidden_size);

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
          gate_rows, [&](std::int64_t r) { return apart ? bias_ih.at(r, 0) : bias_ih.at(r, 0) + bias_hh.at(r, 0); });
      if (apart) layer.bias_hh = row_of(gate_rows, [&](std::int64_t r) { return bias_hh.at(r, 0); });
      std::vector<Part> parts;
      const Indices columns = plain_indices(spec.hidden_size);
      if (k > 0) parts.push_back({&layer.ih, &tensor_of(tensors_, "rnn.weight_ih" + suffix), columns});
      parts.push_back({&layer.hh, &tensor_of(tensors_, "rnn.weight_hh" + suffix), columns});
      pack(parts, gate_rows, tiles, model_.precision_);
      macs += parts.size() * to_size(model_.gate_rows_) * to_size(model_.units_);
    }

    model_.heads_.assign(spec.slots.size(), Head{});
    model_.most_rows_ = kLanes;
    model_.most_tokens_ = 0;
    for (std::size_t s = 0; s < spec.slots.size(); ++s) {
      const Slot& slot = spec.slots[s];
      Head& head = model_.heads_[s];
      model_.most_tokens_ = std::max(model_.most_tokens_, slot.size);
      if (!spec.heads) continue;
      const std::string prefix = "head." + slot.name;
      int width = spec.hidden_size;
      if (slot.hidden_size > 0) {
        width = slot.hidden_size;
        const Indices hidden_rows = plain_indices(width);
        const Tensor& bias = tensor_of(tensors_, prefix + ".hidden.bias");
        head.hidden_bias = row_of(hidden_rows, [&](std::int64_t r) { return bias.at(r, 0); });
        pack({{&head.hidden, &tensor_of(tensors_, prefix + ".hidden.weight"), plain_indices(spec.hidden_size)}},
             hidden_rows, tiles_of(padded(width) / kLanes, 1), model_.precision_);
        macs += to_size(padded(width)) * to_size(model_.units_);
        for (const int f : slot.inputs)
          head.inputs.push_back(
              plain_table(tensor_of(tensors_, prefix + ".input." + spec.feature_names[to_size(f)] + ".weight"), width));
        model_.most_rows_ = std::max(model_.most_rows_, padded(width));
      }
      const int rows = slot.output_rows();
      const Indices output_rows = plain_indices(rows);
      const Tensor& bias = tensor_of(tensors_, prefix + ".output.bias");
      // Rows that only pad a linear head's vocabulary can never be drawn.
      head.output_bias = row_of(output_rows, [&](std::int64_t r) { return bias.at(r, 0); }, kMinusInfinity);
      pack({{&head.output, &tensor_of(tensors_, slot.output_weight), plain_indices(width)}}, output_rows,
           tiles_of(padded(rows) / kLanes, 1), model_.precision_);
      macs += to_size(padded(rows)) * to_size(padded(width));
      model_.most_rows_ = std::max(model_.most_rows_, padded(rows));
    }
    model_.macs_per_frame_ = macs;
    lay_out_inputs(gate_rows, tiles);
  }

  // The first layer's input product: one table of packed gate sums for every feature, so that a step only adds rows.
  void lay_out_inputs(const Indices& gate_rows, const std::vector<int>& tiles) {
    const RecurrentSpec& spec = model_.spec_;
    const Tensor& weight = tensor_of(tensors_, "rnn.weight_ih_l0");
    model_.base_ = model_.layers_[0].bias;
    model_.trunk_.clear();
    std::int64_t column = 0;
    for (std::size_t i = 0; i < spec.trunk.size(); ++i) {
      const std::string& name = spec.feature_names[to_size(spec.trunk[i])];
      const Tensor& embedding = tensor_of(tensors_, "trunk." + name + ".weight");
      // The biases go into the first table.
      model_.trunk_.push_back(gate_table(embedding, weight, column, gate_rows, tiles, i == 0 ? model_.base_ : nullptr));
      if (spec.concat) column += spec.trunk_dims[i];
    }
    if (spec.vector_initial) lay_out_initial();
    if (spec.vector_dim > 0) {
      const Tensor& projection = tensor_of(tensors_, "vector.weight");
      pack({{&model_.vector_projection_, &projection, plain_indices(spec.vector_size)}}, plain_indices(spec.vector_dim),
           tiles_of(padded(spec.vector_dim) / kLanes, 1), Precision::float32);
      const Indices columns = spaced_indices(column, 1, spec.vector_dim);
      describe(model_.vector_input_, gate_rows.size(), tiles, columns.size(), Precision::float32);
      std::byte* out = take(matrix_bytes(tiles, columns.size()));
      model_.vector_input_.weights = reinterpret_cast<const char*>(out);
      if (writing()) write_matrix(out, weight, columns, gate_rows, tiles);
    }
  }

  void lay_out_initial() {
    const RecurrentSpec& spec = model_.spec_;
    Indices rows;
    const int states = spec.num_layers * (spec.cell == Cell::lstm ? 2 : 1);
    for (int k = 0; k < states; ++k) {
      const Indices state = spaced_indices(static_cast<std::int64_t>(k) * spec.hidden_size, 1, spec.hidden_size);
      rows.insert(rows.end(), state.begin(), state.end());
    }
    const Tensor& bias = tensor_of(tensors_, "initial.bias");
    model_.initial_bias_ = row_of(rows, [&](std::int64_t r) { return bias.at(r, 0); });
    pack({{&model_.initial_, &tensor_of(tensors_, "initial.weight"), plain_indices(spec.vector_size)}}, rows,
         tiles_of(static_cast<int>(rows.size()) / kLanes, 1), Precision::float32);
  }

  Table plain_table(const Tensor& tensor, int width) {
    Table table;
    table.pitch = to_size(padded(width));
    float* out = take_of<float>(checked_product(to_size(tensor.rows), table.pitch));
    table.rows = out;
    if (writing())
      for (std::int64_t r = 0; r < tensor.rows; ++r)
        for (int c = 0; c < width; ++c) out[to_size(r) * table.pitch + to_size(c)] = stored(tensor.at(r, c));
    return table;
  }

  Table gate_table(const Tensor& embedding, const Tensor& weight, std::int64_t first, const Indices& gate_rows,
                   const std::vector<int>& tiles, const float* bias) {
    Table table;
    table.pitch = gate_rows.size();
    float* out = take_of<float>(checked_product(to_size(embedding.rows), table.pitch));
    table.rows = out;
    if (!writing()) return table;

    const int dim = static_cast<int>(embedding.cols);
    const Indices columns = spaced_indices(first, 1, dim);
    Matrix matrix;
    describe(matrix, gate_rows.size(), tiles, columns.size(), Precision::float32);
    Arena packed(matrix_bytes(tiles, columns.size()));
    write_matrix(packed.data(), weight, columns, gate_rows, tiles);
    matrix.weights = reinterpret_cast<const char*>(packed.data());

    const std::vector<float> zeros(gate_rows.size(), 0.0f);
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
