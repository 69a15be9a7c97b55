#include "generate/note_tuples.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "base/checked.h"
#include "generate/feedforward_kernels.h"

namespace musicgen::generate {

namespace {

constexpr int kGates = 4;
constexpr std::size_t kWorkBetweenLooks = 5'000'000;

}  // namespace

class TupleModel::Packer final : public Packing {
 public:
  Packer(TupleModel& model, const Tensors& tensors)
      : Packing(model.precision_, model.arena_), model_(model), tensors_(tensors) {}

 private:
  const Tensor& sized(const std::string& name, std::int64_t rows, std::int64_t cols) const {
    const Tensor& tensor = tensor_of(tensors_, name);
    if (tensor.rows != rows || tensor.cols != cols)
      throw std::invalid_argument("tensor " + name + ": expected " + std::to_string(rows) + " x " +
                                  std::to_string(cols) + " numbers, got " + std::to_string(tensor.rows) + " x " +
                                  std::to_string(tensor.cols));
    return tensor;
  }

  void lay_out() override {
    const TupleSpec& spec = model_.spec_;
    const int units = padded(spec.hidden_size);
    const Indices rows = gate_indices(kGates, spec.hidden_size);
    const std::vector<int> tiles = tiles_of(kGates * units / kLanes, kGates);
    model_.layers_.assign(to_size(spec.num_layers), Layer{});
    model_.macs_ = 0;
    for (int k = 0; k < spec.num_layers; ++k) {
      Layer& layer = model_.layers_[to_size(k)];
      const std::string end = "_l" + std::to_string(k);
      const int inputs = k == 0 ? spec.noise + spec.outputs : spec.hidden_size;
      const std::int64_t gates = std::int64_t{kGates} * spec.hidden_size;
      layer.cell = Cell::lstm;
      layer.units = units;
      layer.has_input = true;
      const Tensor& bias_ih = sized("rnn.bias_ih" + end, gates, 1);
      const Tensor& bias_hh = sized("rnn.bias_hh" + end, gates, 1);
      layer.bias = row_of(rows, [&](std::int64_t r) { return bias_ih.at(r, 0) + bias_hh.at(r, 0); });
      // One behind the other: matrices that are packed together have equally many columns.
      pack({{&layer.ih, &sized("rnn.weight_ih" + end, gates, inputs), plain_indices(inputs)}}, rows, tiles,
           model_.precision_);
      pack({{&layer.hh, &sized("rnn.weight_hh" + end, gates, spec.hidden_size), plain_indices(spec.hidden_size)}}, rows,
           tiles, model_.precision_);
      model_.macs_ += to_size(kGates * units) * to_size(padded(inputs) + units);
    }
    const Indices out = plain_indices(spec.outputs);
    const Tensor& bias = sized("output.bias", spec.outputs, 1);
    model_.output_bias_ = row_of(out, [&](std::int64_t r) { return bias.at(r, 0); });
    pack({{&model_.output_, &sized("output.weight", spec.outputs, spec.hidden_size), plain_indices(spec.hidden_size)}},
         out, tiles_of(static_cast<int>(out.size()) / kLanes, 1), model_.precision_);
    model_.macs_ += out.size() * to_size(units);
  }

  TupleModel& model_;
  const Tensors& tensors_;
};

TupleModel::TupleModel(const TupleSpec& spec, const Tensors& tensors, Precision precision)
    : spec_(spec), precision_(precision) {
  Packer(*this, tensors).run();
}

void tuples_run(const TupleModel& model, const float* noise, std::size_t n, float* state, float* out, Isa isa,
                const std::function<void()>& idle) {
  const TupleSpec& spec = model.spec();
  const Kernels& kernels = kernels_for(isa);
  const FeedForwardKernels& own = feedforward_kernels_for(isa);
  const bool int8 = model.precision() == Precision::int8;
  const std::size_t hidden = to_size(spec.hidden_size), units = to_size(padded(spec.hidden_size));
  const std::size_t inputs = to_size(padded(spec.noise + spec.outputs)), outputs = to_size(padded(spec.outputs));
  const std::size_t layers = to_size(spec.num_layers);
  const std::size_t floats = inputs + 3 * layers * units + outputs + kScratchFloats;
  std::byte* memory = thread_memory(floats * sizeof(float) + inputs + 2 * layers * units);
  auto* heard = reinterpret_cast<float*>(memory);
  float* remembered = heard + inputs;  // of each layer: h, the next h, c
  float* said = remembered + 3 * layers * units;
  float* scratch = said + outputs;
  auto* heard_bytes = reinterpret_cast<unsigned char*>(scratch + kScratchFloats);
  unsigned char* h_bytes = heard_bytes + inputs;
  std::fill(heard, heard + floats, 0.0f);
  for (std::size_t k = 0; k < layers; ++k) {
    float* h = remembered + 3 * k * units;
    std::copy(state + 2 * k * hidden, state + (2 * k + 1) * hidden, h);
    std::copy(state + (2 * k + 1) * hidden, state + (2 * k + 2) * hidden, h + 2 * units);
    if (int8) kernels.to_bytes(h, h_bytes + 2 * k * units, static_cast<int>(units), 127.0f);
  }
  float* last = state + 2 * layers * hidden;
  const auto as_input = [&](const float* values, const unsigned char* bytes, float scale) {
    return int8 ? Input{bytes, scale} : Input{reinterpret_cast<const unsigned char*>(values), 1.0f};
  };
  std::size_t now = 0, work = 0;
  float unused = 0.0f;
  for (std::size_t t = 0; t < n; ++t) {
    std::copy(noise + t * to_size(spec.noise), noise + (t + 1) * to_size(spec.noise), heard);
    std::copy(last, last + spec.outputs, heard + spec.noise);
    float scale = 1.0f;
    if (int8) {
      const float largest = own.largest_magnitude(heard, static_cast<int>(inputs));
      kernels.to_bytes(heard, heard_bytes, static_cast<int>(inputs), largest > 0.0f ? 127.0f / largest : 0.0f);
      scale = largest * kByteScale;
    }
    Input x = as_input(heard, heard_bytes, scale);
    for (std::size_t k = 0; k < layers; ++k) {
      float* h = remembered + 3 * k * units;
      unsigned char* bytes = h_bytes + 2 * k * units;
      const std::size_t before = now * units, after = (1 - now) * units;
      const LayerRow row = {model.layers()[k].bias,
                            x,
                            as_input(h + before, bytes + before, kByteScale),
                            h + before,
                            h + 2 * units,
                            h + after,
                            int8 ? bytes + after : nullptr,
                            &unused};
      kernels.layer(model.layers()[k], &row, 1, scratch);
      x = as_input(h + after, bytes + after, kByteScale);
    }
    now = 1 - now;
    const DenseRow row = {model.output_bias(), x, said};
    kernels.dense(model.output(), &row, 1);
    own.activate(said, static_cast<int>(outputs), Activation::sigmoid, 1.0f);
    std::copy(said, said + spec.outputs, last);
    std::copy(said, said + spec.outputs, out + t * to_size(spec.outputs));
    work += model.macs_per_step();
    if (work >= kWorkBetweenLooks) {
      work = 0;
      idle();
    }
  }
  for (std::size_t k = 0; k < layers; ++k) {
    const float* h = remembered + 3 * k * units;
    std::copy(h + now * units, h + now * units + hidden, state + 2 * k * hidden);
    std::copy(h + 2 * units, h + 2 * units + hidden, state + (2 * k + 1) * hidden);
  }
}

}  // namespace musicgen::generate
