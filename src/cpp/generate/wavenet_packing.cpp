#include <utility>

#include "generate/packing.h"
#include "generate/wavenet.h"

namespace musicgen::generate {

class WaveNetModel::Packer final : public Packing {
 public:
  Packer(WaveNetModel& model, const Tensors& tensors)
      : Packing(model.precision_, model.arena_), model_(model), spec_(model.spec_), tensors_(tensors) {}

 private:
  void lay_out() override {
    model_.macs_ = 0;
    lay_out_input();
    for (std::size_t i = 0; i < model_.layers_.size(); ++i) lay_out_layer(i);
    dense(model_.skip_, model_.skip_bias_, "skip", layer_columns(), spec_.skip_channels);
    dense(model_.hidden_, model_.hidden_bias_, "hidden", plain_indices(spec_.skip_channels), spec_.hidden_channels);
    // Rows that only pad the classes can never be drawn.
    dense(model_.logits_, model_.logits_bias_, "logits", plain_indices(spec_.hidden_channels), spec_.rows(),
          kMinusInfinity);
    if (spec_.condition_channels > 0) lay_out_condition();
  }

  void lay_out_input() {
    const Indices columns = plain_indices(spec_.residual_channels);
    const Tensor& weight = tensor_of(tensors_, spec_.classes > 0 ? "embedding.weight" : "input.weight");
    float* table = take_of<float>(checked_product(to_size(spec_.classes > 0 ? spec_.classes : 1), columns.size()));
    model_.input_table_ = table;
    if (spec_.classes == 0) {
      model_.input_bias_ = bias("input", columns);
      if (writing())
        for (int c = 0; c < spec_.residual_channels; ++c) table[c] = stored(weight.at(c, 0));
    } else if (writing()) {
      for (int r = 0; r < spec_.classes; ++r)
        for (int c = 0; c < spec_.residual_channels; ++c)
          table[to_size(r) * columns.size() + to_size(c)] = stored(weight.at(r, c));
    }
  }

  // In the order in which a step of one sequence reads them: the first tap of a layer goes with the residual before it.
  void lay_out_layer(std::size_t i) {
    WaveNetLayer& layer = model_.layers_[i];
    const Indices units = plain_indices(spec_.residual_channels);
    if (i > 0)
      dense(model_.layers_[i - 1].residual, model_.layers_[i - 1].residual_bias, name_of(i - 1, "residual"), units,
            spec_.residual_channels);
    const Indices rows = gate_indices(2, spec_.residual_channels);
    const std::vector<int> tiles = tiles_of(static_cast<int>(rows.size()) / kLanes, 1);
    const Tensor& gate = tensor_of(tensors_, name_of(i, "gate.weight"));
    layer.gate_bias = bias(name_of(i, "gate"), rows);
    for (int k = 0; k < spec_.kernel_size; ++k)
      product({&layer.taps[k], &gate, spaced_indices(k, spec_.kernel_size, spec_.residual_channels)}, rows, tiles);
  }

  static std::string name_of(std::size_t layer, const char* what) {
    return "layers." + std::to_string(layer) + "." + what;
  }

  // z of all layers end to end, each padded.
  Indices layer_columns() const {
    Indices columns;
    for (std::size_t i = 0; i < model_.layers_.size(); ++i) {
      const Indices part =
          spaced_indices(static_cast<std::int64_t>(i) * spec_.residual_channels, 1, spec_.residual_channels);
      columns.insert(columns.end(), part.begin(), part.end());
    }
    return columns;
  }

  void lay_out_condition() {
    const Indices width = plain_indices(spec_.condition_width);
    // Columns as the frames lie in memory: channels of the first frame, of the next, …
    Indices columns;
    for (int k = 0; k < spec_.condition_kernel_size; ++k)
      for (int n = 0; n < spec_.condition_channels; ++n)
        columns.push_back(static_cast<std::int64_t>(n) * spec_.condition_kernel_size + k);
    columns.resize(round_up(columns.size(), kLanes), -1);
    model_.conv_bias_ = bias("condition.conv", width);
    pack({{&model_.conv_, &tensor_of(tensors_, "condition.conv.weight"), columns}}, width,
         tiles_of(static_cast<int>(width.size()) / kLanes, 1), Precision::float32);
    const Indices rows = gate_indices(2, spec_.residual_channels);
    for (std::size_t i = 0; i < model_.layers_.size(); ++i)
      pack({{&model_.layers_[i].condition, &tensor_of(tensors_, "layers." + std::to_string(i) + ".condition.weight"),
             width}},
           rows, tiles_of(static_cast<int>(rows.size()) / kLanes, 1), Precision::float32);
  }

  void dense(Matrix& matrix, const float*& row, const std::string& name, const Indices& columns, int n,
             float padding = 0.0f) {
    const Indices rows = plain_indices(n);
    row = bias(name, rows, padding);
    product({&matrix, &tensor_of(tensors_, name + ".weight"), columns}, rows,
            tiles_of(static_cast<int>(rows.size()) / kLanes, 1));
  }

  void product(const Part& part, const Indices& rows, const std::vector<int>& tiles) {
    pack({part}, rows, tiles, model_.precision_);
    model_.macs_ += rows.size() * part.columns.size();
  }

  const float* bias(const std::string& name, const Indices& rows, float padding = 0.0f) {
    const Tensor& tensor = tensor_of(tensors_, name + ".bias");
    return row_of(rows, [&](std::int64_t r) { return tensor.at(r, 0); }, padding);
  }

  WaveNetModel& model_;
  const WaveNetSpec& spec_;
  const Tensors& tensors_;
};

WaveNetModel::WaveNetModel(WaveNetSpec spec, const Tensors& tensors, Precision precision)
    : spec_(std::move(spec)), precision_(precision), channels_(padded(spec_.residual_channels)) {
  for (const int dilation : spec_.dilations) {
    WaveNetLayer layer;
    layer.dilation = dilation;
    layer.first_row = ring_rows_;
    std::size_t rows = 1;
    while (rows < checked_product(to_size(spec_.kernel_size - 1), to_size(dilation))) rows *= 2;
    layer.mask = rows - 1;
    ring_rows_ += rows;
    layers_.push_back(std::move(layer));
  }
  Packer(*this, tensors).run();
}

std::int64_t WaveNetModel::receptive_field() const {
  std::int64_t samples = 1;
  for (const int dilation : spec_.dilations) samples += static_cast<std::int64_t>(spec_.kernel_size - 1) * dilation;
  return samples;
}

}  // namespace musicgen::generate
