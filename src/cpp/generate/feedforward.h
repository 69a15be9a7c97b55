// Feed-forward networks: dense layers and convolutions one after the other.
// musicgen_ext.architectures.FeedForwardConfig says what each part means.
//
// Everything is a product of a packed matrix with a vector. A convolution is one with the windows of its input, which
// lies in memory place by place, all channels of a place together, inside a margin of zeros. A transposed convolution
// of stride (a, b) is a * b convolutions, one for every place that an output can have between two inputs, each with
// those weights that reach it. Where a place has few channels, a window makes several places next to one another.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/arena.h"
#include "generate/feedforward_kernels.h"
#include "generate/kernels.h"
#include "generate/packing.h"

namespace musicgen::generate {

enum class LayerKind { dense, reshape, conv2d, conv_transpose2d };

using Shape = std::vector<std::int64_t>;  // torch's: units, or channels, height, width

struct FeedForwardLayer {
  LayerKind kind = LayerKind::dense;
  std::int64_t outputs = 0;  // units or channels
  std::int64_t kernel[2] = {1, 1}, stride[2] = {1, 1}, padding[2] = {0, 0};
  Activation activation = Activation::none;
  Shape shape;  // reshape
};

struct FeedForwardSpec {
  Shape input;
  std::vector<FeedForwardLayer> layers;
};

// How a layer's input lies in memory: (height, width, channels) inside a margin; a plain vector is all width.
struct Frame {
  std::int64_t height = 1, width = 1, channels = 1;
  std::int64_t top = 0, left = 0, bottom = 0, right = 0;
  std::int64_t line() const { return (left + width + right) * channels; }
  std::int64_t size() const { return (top + height + bottom) * line(); }
  std::int64_t at(std::int64_t y, std::int64_t x) const { return (top + y) * line() + (left + x) * channels; }
  bool has_margin() const { return top + left + bottom + right > 0; }
};

// The products of one matrix with the windows of a frame.
struct Windows {
  Matrix matrix;
  const float* bias = nullptr;
  std::int64_t lines = 1, run = 0;                                // of a window: lines, and numbers in each
  std::int64_t first_y = 0, first_x = 0, step_y = 1, step_x = 1;  // windows in the frame, margin included
  std::int64_t count_y = 1, count_x = 1;
  std::int64_t out_y = 0, out_x = 0, out_step_y = 1, out_step_x = 1;  // their outputs
  std::int64_t together = 1;                                          // outputs of a window, out_step_x apart
  std::int64_t out_width = 1;                                         // of the whole output
};

// Immutable once built; any number of threads may run one model.
class FeedForwardModel {
 public:
  // The tensors are copied (packed). std::invalid_argument where one is missing, or too small for its layer.
  FeedForwardModel(FeedForwardSpec spec, const Tensors& tensors, Precision precision);

  struct Stage {
    bool dense = true;
    Frame input;
    std::vector<Windows> products;  // one, if dense
    std::int64_t outputs = 0;       // units or channels
    Activation activation = Activation::none;
    const float* input_scale = nullptr;  // int8 transposed convolutions: of every channel of the input
    std::vector<std::int64_t> order;     // where not as they are made: from the next input to these outputs
  };

  Precision precision() const { return precision_; }
  std::size_t packed_bytes() const { return arena_.size(); }
  std::size_t macs() const { return macs_; }
  const Shape& input() const { return spec_.input; }
  const Shape& output() const { return output_; }
  const std::vector<Stage>& stages() const { return stages_; }
  const std::vector<std::int64_t>& input_order() const { return input_order_; }  // empty: as it is
  std::size_t most_numbers() const { return most_numbers_; }                     // of any stage's frame or outputs
  std::size_t most_columns() const { return most_columns_; }
  std::size_t most_rows() const { return most_rows_; }

 private:
  class Packer;

  FeedForwardSpec spec_;
  Precision precision_;
  Arena arena_;
  Shape output_;
  std::vector<Stage> stages_;
  std::vector<std::int64_t> input_order_;
  std::size_t most_numbers_ = 0, most_columns_ = kLanes, most_rows_ = kLanes, macs_ = 0;
};

// Runs x, (batch, *input), into y, (batch, *output), on up to `threads` threads. Sums of the last layer are multiplied
// by `last_scale` before its activation. `idle` is called every few milliseconds in this thread; it may throw.
void feedforward_run(const FeedForwardModel& model, const float* x, float* y, std::size_t batch, float last_scale,
                     int threads, Isa isa, const std::function<void()>& idle);

}  // namespace musicgen::generate
