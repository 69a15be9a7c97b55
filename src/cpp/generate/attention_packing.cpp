#include <algorithm>
#include <string>
#include <utility>

#include "generate/attention.h"

namespace musicgen::generate {

class AttentionModel::Packer final : public Packing {
 public:
  Packer(AttentionModel& model, const Tensors& tensors)
      : Packing(model.precision_, model.arena_), model_(model), spec_(model.spec_), tensors_(tensors) {}

 private:
  void lay_out() override {
    const AttentionMemorySpec& memory = spec_.memory;
    model_.macs_per_token_ = 0;
    model_.layers_.assign(to_size(spec_.num_layers), Layer{});
    model_.memory_layers_.assign(to_size(memory.num_layers), Layer{});
    for (int i = 0; i < spec_.num_layers; ++i) lay_out_layer(i);
    model_.norm_ = norm("norm");
    const Tensor& matrix = tensor_of(tensors_, spec_.tied ? "embedding.weight" : "output.weight");
    model_.output_ = product(matrix, "output", spec_.width, spec_.vocab_size, kMinusInfinity);
    model_.embedding_ = table("embedding.weight");
    model_.macs_per_token_ += macs_;
    macs_ = 0;
    if (memory.context == 0) return;
    model_.memory_embedding_ = table("memory.embedding.weight");
    for (int i = 0; i < memory.num_layers; ++i) {
      Layer& layer = model_.memory_layers_[to_size(i)];
      lay_out_self(layer, "memory.layers." + std::to_string(i));
      layer.bias = biases("memory.layers." + std::to_string(i), 2 * memory.context - 1, layer.bias_pitch,
                          [&](std::int64_t at) { return signed_bucket(at - (memory.context - 1)); });
    }
    model_.memory_norm_ = norm("memory.norm");
    const Tensor& place = tensor_of(tensors_, "memory.place.weight");
    model_.place_bias_.rows = rows_of(spec_.num_heads, 2 * memory.reach + 1, model_.place_bias_.pitch,
                                      [&](std::int64_t head, std::int64_t at) { return place.at(head, at); });
    macs_ = 0;  // an encoder works once a piece
  }

  void lay_out_layer(int i) {
    Layer& layer = model_.layers_[to_size(i)];
    const std::string name = "layers." + std::to_string(i);
    lay_out_self(layer, name);
    const std::int64_t context = spec_.context;
    layer.bias = biases(name, 2 * context, layer.bias_pitch,
                        [&](std::int64_t at) { return spec_.buckets[to_size((2 * context - at) % context)]; });
    if (spec_.memory.context == 0) return;
    layer.before_cross = norm(name + ".before_cross");
    layer.query = product(name + ".cross.query", spec_.width, spec_.width);
    layer.crossed = product(name + ".cross.out", spec_.width, spec_.width);
    const std::size_t of_decoder = macs_;
    layer.keys_values = product(name + ".cross.keys_values", spec_.width, 2 * spec_.width);
    macs_ = of_decoder;
  }

  void lay_out_self(Layer& layer, const std::string& name) {
    layer.before_attention = norm(name + ".before_attention");
    layer.qkv = product(name + ".attention.qkv", spec_.width, 3 * spec_.width);
    layer.attended = product(name + ".attention.out", spec_.width, spec_.width);
    layer.before_mlp = norm(name + ".before_mlp");
    layer.up = product(name + ".mlp.up", spec_.width, spec_.mlp_rows());
    layer.down = product(name + ".mlp.down", spec_.mlp_size, spec_.width);
  }

  // Of the keys behind a query, then of those before it: an encoder looks both ways.
  std::int64_t signed_bucket(std::int64_t distance) const {
    const std::int64_t last = static_cast<std::int64_t>(spec_.buckets.size()) - 1;
    const std::int64_t bucket = spec_.buckets[to_size(std::min(std::abs(distance), last))];
    return distance <= 0 ? bucket : bucket + spec_.buckets.back() + 1;
  }

  // A row for every head.
  template <class ValueOf>
  const float* rows_of(int heads, std::int64_t n, std::size_t& pitch, ValueOf value_of) {
    pitch = round_up(to_size(n), kLanes) + kLanes;  // whole vectors may be read from anywhere in it
    float* out = take_of<float>(checked_product(to_size(heads), pitch));
    if (writing())
      for (std::int64_t h = 0; h < heads; ++h)
        for (std::int64_t i = 0; i < n; ++i) out[to_size(h) * pitch + to_size(i)] = stored(value_of(h, i));
    return out;
  }

  template <class BucketOf>
  const float* biases(const std::string& layer, std::int64_t n, std::size_t& pitch, BucketOf bucket_of) {
    const Tensor& weight = tensor_of(tensors_, layer + ".attention.distance.weight");
    return rows_of(spec_.num_heads, n, pitch,
                   [&](std::int64_t head, std::int64_t at) { return weight.at(head, bucket_of(at)); });
  }

  Norm norm(const std::string& name) { return {row(name + ".weight", spec_.width), row(name + ".bias", spec_.width)}; }

  const float* row(const std::string& name, int n, float padding = 0.0f) {
    const Tensor& tensor = tensor_of(tensors_, name);
    return row_of(plain_indices(n), [&](std::int64_t r) { return tensor.at(r, 0); }, padding);
  }

  Product product(const std::string& name, int columns, int rows) {
    return product(tensor_of(tensors_, name + ".weight"), name, columns, rows, 0.0f);
  }

  Product product(const Tensor& weight, const std::string& name, int columns, int rows, float padding) {
    Product p;
    p.bias = row(name + ".bias", rows, padding);
    pack({{&p.matrix, &weight, plain_indices(columns)}}, plain_indices(rows), tiles_of(padded(rows) / kLanes, 1),
         model_.precision_);
    macs_ += to_size(padded(rows)) * to_size(columns);
    return p;
  }

  Table table(const std::string& name) {
    const Tensor& tensor = tensor_of(tensors_, name);
    Table out;
    out.rows = rows_of(static_cast<int>(tensor.rows), tensor.cols, out.pitch,
                       [&](std::int64_t r, std::int64_t c) { return tensor.at(r, c); });
    return out;
  }

  AttentionModel& model_;
  const AttentionSpec& spec_;
  const Tensors& tensors_;
  std::size_t macs_ = 0;
};

AttentionModel::AttentionModel(AttentionSpec spec, const Tensors& tensors, Precision precision)
    : spec_(std::move(spec)), precision_(precision) {
  Packer(*this, tensors).run();
}

}  // namespace musicgen::generate
