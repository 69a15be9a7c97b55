#include <algorithm>
#include <utility>

#include "generate/frames.h"

namespace musicgen::generate {

class FramesModel::Packer final : public Packing {
 public:
  Packer(FramesModel& model, const Tensors& tensors)
      : Packing(model.precision_, model.arena_), model_(model), tensors_(tensors) {}

 private:
  void lay_out() override {
    const FramesSpec& spec = model_.spec_;
    const int gates = spec.cell == Cell::lstm ? 4 : spec.cell == Cell::gru ? 3 : 1;
    model_.units_ = padded(spec.hidden_size);
    model_.gate_rows_ = gates * model_.units_;
    model_.width_ = padded(spec.filters);
    const std::vector<int> tiles = tiles_of(model_.gate_rows_ / kLanes, gates);
    const Indices gate_rows = gate_indices(gates, spec.hidden_size), columns = plain_indices(spec.hidden_size);

    std::size_t macs = 0;
    model_.layers_.assign(to_size(spec.num_layers), Layer{});
    for (int k = 0; k < spec.num_layers; ++k) {
      Layer& layer = model_.layers_[to_size(k)];
      const std::string suffix = "_l" + std::to_string(k);
      layer.cell = spec.cell;
      layer.units = model_.units_;
      layer.has_input = k > 0;
      const Tensor &bias_ih = of("rnn.bias_ih" + suffix), &bias_hh = of("rnn.bias_hh" + suffix);
      const bool apart = spec.cell == Cell::gru;
      layer.bias = row_of(
          gate_rows, [&](std::int64_t r) { return apart ? bias_ih.at(r, 0) : bias_ih.at(r, 0) + bias_hh.at(r, 0); });
      if (apart) layer.bias_hh = row_of(gate_rows, [&](std::int64_t r) { return bias_hh.at(r, 0); });
      std::vector<Part> parts;
      if (k > 0) parts.push_back({&layer.ih, &of("rnn.weight_ih" + suffix), columns});
      parts.push_back({&layer.hh, &of("rnn.weight_hh" + suffix), columns});
      pack(parts, gate_rows, tiles, model_.precision_);
      macs += parts.size() * to_size(model_.gate_rows_) * to_size(model_.units_);
    }
    const Tensor& input = of("rnn.weight_ih_l0");
    model_.inputs_ = table(input.cols, gate_rows, [&](std::int64_t c, std::int64_t r) { return input.at(r, c); });

    const Indices keys = plain_indices(spec.keys), filters = plain_indices(spec.filters);
    const Tensor& key_bias = of("key.bias");
    model_.key_bias_ = row_of(keys, [&](std::int64_t r) { return key_bias.at(r, 0); });
    pack({{&model_.key_, &of("key.weight"), columns}}, keys, tiles_of(padded(spec.keys) / kLanes, 1),
         model_.precision_);
    model_.no_bias_ = row_of(filters, [](std::int64_t) { return 0.0f; });
    pack({{&model_.condition_, &of("condition.weight"), columns}}, filters, tiles_of(model_.width_ / kLanes, 1),
         model_.precision_);
    macs += to_size(padded(spec.keys) + model_.width_) * to_size(model_.units_);

    const Tensor &position = of("position.weight"), &local = of("local.weight"), &ranks = of("ranks.weight"),
                 &output = of("output.weight");
    const auto as_it_is = [](const Tensor& t) {
      return [&t](std::int64_t row, std::int64_t f) { return t.at(row, f); };
    };
    model_.position_ = table(spec.keys, filters, as_it_is(position));
    // Taps the other way round: a key below a note sees it with a high tap.
    const std::int64_t taps = 2 * spec.reach + 1;
    model_.local_ = table(spec.channels() * taps, filters, [&](std::int64_t row, std::int64_t f) {
      return local.at(f, row / taps * taps + (taps - 1 - row % taps));
    });
    if (spec.notes) {
      const Tensor& written = of("written.weight");
      model_.written_ = table(spec.reach, filters,
                              [&](std::int64_t row, std::int64_t f) { return written.at(f, spec.reach - 1 - row); });
    }
    model_.ranks_ = table(ranks.rows, filters, as_it_is(ranks));
    model_.output_ = table(1, filters, as_it_is(output));
    macs += to_size(spec.keys) * to_size(model_.width_);
    model_.macs_per_frame_ = macs;
  }

  const Tensor& of(const std::string& name) const { return tensor_of(tensors_, name); }

  // Rows of floats, as much of each as the model's precision keeps.
  template <class ValueOf>
  const float* table(std::int64_t rows, const Indices& columns, ValueOf value_of) {
    float* out = take_of<float>(checked_product(to_size(rows), columns.size()));
    if (!writing()) return out;
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::size_t i = 0; i < columns.size(); ++i)
        out[to_size(r) * columns.size() + i] = columns[i] < 0 ? 0.0f : stored(value_of(r, columns[i]));
    return out;
  }

  FramesModel& model_;
  const Tensors& tensors_;
};

FramesModel::FramesModel(FramesSpec spec, const Tensors& tensors, Precision precision)
    : spec_(std::move(spec)), precision_(precision) {
  const int needed = std::max(*std::max_element(spec_.lags.begin(), spec_.lags.end()), spec_.match_window) + 2;
  while (history_ < needed) history_ *= 2;
  Packer(*this, tensors).run();
}

}  // namespace musicgen::generate
