#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>

#include "base/checked.h"
#include "generate/feedforward.h"

namespace musicgen::generate {

namespace {

using Order = std::vector<std::int64_t>;  // index in torch's order, for every number as it lies in memory

std::int64_t product(const Shape& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

// (height, width, channels), for a shape (channels, height, width).
Order places_first(const Shape& shape) {
  Order order;
  order.reserve(to_size(product(shape)));
  const std::int64_t places = shape[1] * shape[2];
  for (std::int64_t place = 0; place < places; ++place)
    for (std::int64_t channel = 0; channel < shape[0]; ++channel) order.push_back(channel * places + place);
  return order;
}

Order as_it_is(std::int64_t n) {
  Order order(to_size(n));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  return order;
}

// Where in `from` each number of `to` lies; empty where they agree.
Order moves(const Order& from, const Order& to) {
  if (from == to) return {};
  Order where(from.size()), out;
  for (std::size_t i = 0; i < from.size(); ++i) where[to_size(from[i])] = static_cast<std::int64_t>(i);
  out.reserve(to.size());
  for (const std::int64_t index : to) out.push_back(where[to_size(index)]);
  return out;
}

Shape output_of(const FeedForwardLayer& layer, const Shape& in) {
  if (layer.kind == LayerKind::dense) return {layer.outputs};
  if (layer.kind == LayerKind::reshape) return layer.shape;
  Shape out = {layer.outputs, 0, 0};
  for (std::size_t d = 0; d < 2; ++d) {
    const std::int64_t size = in[d + 1], kernel = layer.kernel[d], padding = layer.padding[d];
    out[d + 1] = layer.kind == LayerKind::conv2d ? (size + 2 * padding - kernel) / layer.stride[d] + 1
                                                 : (size - 1) * layer.stride[d] - 2 * padding + kernel;
    if (out[d + 1] < 1) throw std::invalid_argument("layers: expected outputs of at least 1 place");
  }
  return out;
}

std::int64_t floor_of(std::int64_t a, std::int64_t b) { return a / b - (a % b < 0 ? 1 : 0); }

// Along one axis, the taps of a convolution that reach the outputs of one kind, in the order of the inputs they meet.
struct Taps {
  std::vector<std::int64_t> kernel;
  std::int64_t first = 0;  // input that the first of them meets, for the first output of this kind
  std::int64_t out = 0, count = 0;
};

Taps taps_of(const FeedForwardLayer& layer, std::size_t axis, std::int64_t kind, std::int64_t outputs) {
  const std::int64_t kernel = layer.kernel[axis], stride = layer.stride[axis], padding = layer.padding[axis];
  Taps taps;
  if (layer.kind == LayerKind::conv2d) {
    for (std::int64_t k = 0; k < kernel; ++k) taps.kernel.push_back(k);
    taps.first = -padding;
    taps.count = outputs;
    return taps;
  }
  taps.out = kind;
  taps.count = kind < outputs ? (outputs - 1 - kind) / stride + 1 : 0;
  // Output o gets input i by tap k where o = i * stride - padding + k.
  for (std::int64_t k = kernel - 1; k >= 0; --k)
    if ((kind + padding - k) % stride == 0) taps.kernel.push_back(k);
  if (!taps.kernel.empty()) taps.first = floor_of(kind + padding - taps.kernel.front(), stride);
  return taps;
}

// The weights of a matrix that is made of a convolution's.
struct Unfolded {
  std::vector<float> values, scale;
  std::vector<std::int8_t> bytes;
  Tensor tensor;
};

}  // namespace

class FeedForwardModel::Packer final : public Packing {
 public:
  Packer(FeedForwardModel& model, const Tensors& tensors)
      : Packing(model.precision_, model.arena_), model_(model), tensors_(tensors) {}

 private:
  void lay_out() override {
    const std::vector<FeedForwardLayer>& layers = model_.spec_.layers;
    model_.stages_.clear();
    model_.macs_ = 0;
    Shape shape = model_.spec_.input;
    Order order = as_it_is(product(shape));  // of what the stage before makes
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const FeedForwardLayer& layer = layers[i];
      const Shape made = output_of(layer, shape);
      if (layer.kind == LayerKind::reshape) {
        if (product(made) != product(shape)) throw std::invalid_argument("layers: expected a reshape of equal size");
        shape = made;
        continue;
      }
      const bool dense = layer.kind == LayerKind::dense;
      if (!dense) reorder(order, places_first(shape));
      Stage& stage = model_.stages_.emplace_back();
      stage.dense = dense;
      stage.outputs = layer.outputs;
      stage.activation = layer.activation;
      const std::string name = "layers." + std::to_string(i) + ".";
      const Tensor& weight = tensor_of(tensors_, name + "weight");
      const Tensor& bias = tensor_of(tensors_, name + "bias");
      if (dense) {
        const Order next = order_wanted(i, made);
        add_dense(stage, weight, bias, order, next);
        order = next;
      } else {
        add_convolution(stage, layer, weight, bias, shape, made);
        order = places_first(made);
      }
      shape = made;
    }
    reorder(order, as_it_is(product(shape)));
    model_.output_ = shape;
    for (const Stage& stage : model_.stages_) {
      const std::size_t made = to_size(stage.input.size());
      model_.most_numbers_ = std::max(model_.most_numbers_, made);
    }
    model_.most_numbers_ = std::max(model_.most_numbers_, to_size(product(shape)));
  }

  // The order in which the stage after dense layer `i` reads what that makes.
  Order order_wanted(std::size_t i, Shape made) const {
    const auto& layers = model_.spec_.layers;
    std::size_t next = i + 1;
    for (; next < layers.size() && layers[next].kind == LayerKind::reshape; ++next) made = layers[next].shape;
    const bool places = next < layers.size() && layers[next].kind != LayerKind::dense;
    return places ? places_first(made) : as_it_is(product(made));
  }

  void reorder(Order& order, const Order& wanted) {
    Order where = moves(order, wanted);
    if (!where.empty()) model_.most_numbers_ = std::max(model_.most_numbers_, where.size());
    if (model_.stages_.empty()) {
      model_.input_order_ = std::move(where);
    } else {
      model_.stages_.back().order = std::move(where);
    }
    order = wanted;
  }

  void add_dense(Stage& stage, const Tensor& weight, const Tensor& bias, const Order& in, const Order& out) {
    const auto inputs = static_cast<std::int64_t>(in.size());
    check(weight, stage.outputs * inputs, bias, stage.outputs);
    stage.input.width = inputs;
    Indices columns = in, rows = out;
    columns.resize(round_up(columns.size(), kLanes), -1);
    rows.resize(round_up(rows.size(), kLanes), -1);
    Windows& product = stage.products.emplace_back();
    product.run = inputs;
    add_matrix(product, weight, bias, columns, rows, stage.outputs);
  }

  void add_convolution(Stage& stage, const FeedForwardLayer& layer, const Tensor& weight, const Tensor& bias,
                       const Shape& in, const Shape& made) {
    const bool transposed = layer.kind == LayerKind::conv_transpose2d;
    check(weight, layer.outputs * in[0] * layer.kernel[0] * layer.kernel[1], bias, layer.outputs);
    Frame& frame = stage.input;
    frame.channels = in[0];
    frame.height = in[1];
    frame.width = in[2];
    std::int64_t kinds[2] = {1, 1};
    for (std::size_t d = 0; d < 2; ++d)
      if (transposed) kinds[d] = std::min(layer.stride[d], made[d + 1]);
    if (transposed && weight.bytes != nullptr) stage.input_scale = input_scale(weight, in[0]);
    for (std::int64_t ky = 0; ky < kinds[0]; ++ky)
      for (std::int64_t kx = 0; kx < kinds[1]; ++kx) {
        const Taps y = taps_of(layer, 0, ky, made[1]), x = taps_of(layer, 1, kx, made[2]);
        Windows& windows = stage.products.emplace_back();
        windows.lines = static_cast<std::int64_t>(y.kernel.size());
        windows.step_y = transposed ? 1 : layer.stride[0];
        windows.step_x = transposed ? 1 : layer.stride[1];
        windows.out_y = y.out;
        windows.out_x = x.out;
        windows.out_step_y = transposed ? layer.stride[0] : 1;
        windows.out_step_x = transposed ? layer.stride[1] : 1;
        windows.out_width = made[2];
        windows.together = together(layer.outputs, x.count);
        const std::int64_t taps = static_cast<std::int64_t>(x.kernel.size());
        const std::int64_t across = taps == 0 ? 0 : taps + (windows.together - 1) * windows.step_x;
        windows.run = across * in[0];
        windows.count_y = y.count;
        windows.count_x = (x.count + windows.together - 1) / windows.together;
        windows.first_y = y.first;
        windows.first_x = x.first;
        windows.step_x *= windows.together;
        add_windows(windows, layer, weight, bias, in, y, x, across);
        // Zeros around the frame, as far as any window reaches.
        frame.top = std::max(frame.top, -windows.first_y);
        frame.left = std::max(frame.left, -windows.first_x);
        frame.bottom = std::max(
            frame.bottom, windows.first_y + (windows.count_y - 1) * windows.step_y + windows.lines - frame.height);
        frame.right =
            std::max(frame.right, windows.first_x + (windows.count_x - 1) * windows.step_x + across - frame.width);
      }
    for (Windows& windows : stage.products) {  // the margin is known now
      windows.first_y += frame.top;
      windows.first_x += frame.left;
    }
  }

  // As many outputs next to one another as fill a vector, and no more than there are.
  static std::int64_t together(std::int64_t channels, std::int64_t places) {
    return std::max<std::int64_t>(1, std::min<std::int64_t>(kLanes / channels, places));
  }

  // int8: the scales of a transposed convolution belong to its inputs, which are multiplied by them.
  const float* input_scale(const Tensor& weight, std::int64_t channels) {
    return row_of(plain_indices(static_cast<int>(channels)), [&](std::int64_t c) { return weight.scale[c]; });
  }

  void add_windows(Windows& windows, const FeedForwardLayer& layer, const Tensor& weight, const Tensor& bias,
                   const Shape& in, const Taps& y, const Taps& x, std::int64_t across) {
    const bool transposed = layer.kind == LayerKind::conv_transpose2d;
    const std::int64_t rows = windows.together * layer.outputs, channels = in[0];
    const std::int64_t lines = std::max<std::int64_t>(windows.lines, 1), run = std::max<std::int64_t>(windows.run, 1);
    const std::int64_t cols = lines * run;
    Unfolded unfolded;
    unfolded.tensor.rows = rows;
    unfolded.tensor.cols = cols;
    if (writing()) {
      const auto size = checked_product(to_size(rows), to_size(cols));
      unfolded.values.assign(weight.bytes ? 0 : size, 0.0f);
      unfolded.bytes.assign(weight.bytes ? size : 0, 0);
      const std::int64_t apart = transposed ? 1 : layer.stride[1];
      for (std::int64_t g = 0; g < windows.together; ++g)
        for (std::int64_t o = 0; o < layer.outputs; ++o)
          for (std::size_t ty = 0; ty < y.kernel.size(); ++ty)
            for (std::size_t tx = 0; tx < x.kernel.size(); ++tx)
              for (std::int64_t c = 0; c < channels; ++c) {
                const std::int64_t first = transposed ? c * layer.outputs + o : o * channels + c;
                const std::size_t from =
                    to_size((first * layer.kernel[0] + y.kernel[ty]) * layer.kernel[1] + x.kernel[tx]);
                const std::size_t to =
                    to_size((g * layer.outputs + o) * cols + static_cast<std::int64_t>(ty) * across * channels +
                            (g * apart + static_cast<std::int64_t>(tx)) * channels + c);
                if (weight.bytes) {
                  unfolded.bytes[to] = weight.bytes[from];
                } else {
                  unfolded.values[to] = weight.values[from];
                }
              }
      if (weight.bytes)
        for (std::int64_t g = 0; g < windows.together; ++g)
          for (std::int64_t o = 0; o < layer.outputs; ++o)
            unfolded.scale.push_back(transposed ? 1.0f : weight.scale[o]);
    }
    unfolded.tensor.values = unfolded.values.data();
    unfolded.tensor.bytes = weight.bytes ? unfolded.bytes.data() : nullptr;
    unfolded.tensor.scale = unfolded.scale.data();
    add_matrix(windows, unfolded.tensor, bias, plain_indices(static_cast<int>(cols)),
               plain_indices(static_cast<int>(rows)), layer.outputs);
  }

  void add_matrix(Windows& product, const Tensor& weight, const Tensor& bias, const Indices& columns,
                  const Indices& rows, std::int64_t outputs) {
    product.bias = row_of(rows, [&](std::int64_t r) { return bias.at(r % outputs, 0); });
    pack({{&product.matrix, &weight, columns}}, rows, tiles_of(static_cast<int>(rows.size()) / kLanes, 1),
         model_.precision_);
    model_.most_columns_ = std::max(model_.most_columns_, columns.size());
    model_.most_rows_ = std::max(model_.most_rows_, rows.size());
    model_.macs_ += columns.size() * rows.size() * to_size(product.count_y * product.count_x);
  }

  static void check(const Tensor& weight, std::int64_t weights, const Tensor& bias, std::int64_t outputs) {
    if (weight.rows * weight.cols != weights || bias.rows * bias.cols != outputs || bias.bytes != nullptr)
      throw std::invalid_argument("tensors: expected " + std::to_string(weights) + " weights and " +
                                  std::to_string(outputs) + " biases for a layer, got " +
                                  std::to_string(weight.rows * weight.cols) + " and " +
                                  std::to_string(bias.rows * bias.cols));
  }

  FeedForwardModel& model_;
  const Tensors& tensors_;
};

FeedForwardModel::FeedForwardModel(FeedForwardSpec spec, const Tensors& tensors, Precision precision)
    : spec_(std::move(spec)), precision_(precision) {
  Packer(*this, tensors).run();
}

}  // namespace musicgen::generate
