#include "generate/feedforward.h"

#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "base/pool.h"

namespace musicgen::generate {

namespace {

constexpr std::size_t kWindows = 48;        // that meet a matrix together
constexpr std::size_t kSequences = 48;      // likewise, of dense layers
constexpr std::size_t kNumbers = 1 << 18;   // of all sequences that are under way: they stay in cache
constexpr std::size_t kWork = 100'000'000;  // multiplications between two looks at the clock

// Sequences that go through the network together. All memory is the thread's own.
class Runner {
 public:
  Runner(const FeedForwardModel& model, std::size_t n, const Kernels& kernels, const FeedForwardKernels& own)
      : model_(model), kernels_(kernels), own_(own), n_(n), int8_(model.precision() == Precision::int8) {
    numbers_ = round_up(model.most_numbers() + kLanes, kLanes) + model.most_columns();  // windows read beyond the end
    const std::size_t columns = model.most_columns(), rows = model.most_rows(), group = std::max(kWindows, n);
    const std::size_t floats = 2 * n * numbers_ + numbers_ + group * rows + kWindows * columns;
    memory_ = thread_memory(floats * sizeof(float) + n * numbers_ + kWindows * columns);
    auto* p = reinterpret_cast<float*>(memory_);
    now_ = p;
    next_ = now_ + n * numbers_;
    moved_ = next_ + n * numbers_;
    sums_ = moved_ + numbers_;
    patches_ = sums_ + group * rows;
    bytes_ = reinterpret_cast<unsigned char*>(patches_ + kWindows * columns);
    patch_bytes_ = bytes_ + n * numbers_;
  }

  void run(const float* x, float* y, float last_scale) {
    const auto& stages = model_.stages();
    const std::size_t inputs = size_of(model_.input()), outputs = size_of(model_.output());
    for (std::size_t b = 0; b < n_; ++b) put(x + b * inputs, inputs, model_.input_order(), stages[0].input, now_of(b));
    for (std::size_t s = 0; s < stages.size(); ++s) {
      const auto& stage = stages[s];
      const bool last = s + 1 == stages.size();
      const float scale = last ? last_scale : 1.0f;
      if (stage.dense) {
        dense(stage, scale, last ? nullptr : &stages[s + 1].input);
      } else {
        for (std::size_t b = 0; b < n_; ++b) convolve(stage, b, scale, last ? nullptr : &stages[s + 1].input);
      }
      std::swap(now_, next_);
    }
    for (std::size_t b = 0; b < n_; ++b) std::copy(now_of(b), now_of(b) + outputs, y + b * outputs);
  }

 private:
  static std::size_t size_of(const Shape& shape) {
    std::size_t size = 1;
    for (const std::int64_t n : shape) size *= to_size(n);
    return size;
  }

  float* now_of(std::size_t b) { return now_ + b * numbers_; }
  float* next_of(std::size_t b) { return next_ + b * numbers_; }

  // Numbers without a margin into a frame, in another order where there is one.
  void put(const float* from, std::size_t n, const std::vector<std::int64_t>& order, const Frame& frame, float* to) {
    if (!order.empty()) {
      float* moved = frame.has_margin() ? moved_ : to;
      for (std::size_t i = 0; i < n; ++i) moved[i] = from[to_size(order[i])];
      from = moved;
    }
    if (!frame.has_margin()) {
      if (from != to) std::copy(from, from + n, to);
      return;
    }
    std::fill(to, to + frame.size(), 0.0f);
    const std::size_t line = to_size(frame.width * frame.channels);
    for (std::int64_t y = 0; y < frame.height; ++y)
      std::copy(from + to_size(y) * line, from + to_size(y + 1) * line, to + frame.at(y, 0));
  }

  // The input of a sequence as its products take it.
  Input input_of(const FeedForwardModel::Stage& stage, std::size_t b) {
    float* values = now_of(b);
    const std::size_t n = to_size(stage.input.size());
    std::fill(values + n, values + n + kLanes, 0.0f);  // met by weights of zero, which no number must undo
    if (!int8_) return {reinterpret_cast<const unsigned char*>(values), 1.0f};
    if (stage.input_scale != nullptr) {
      const std::size_t channels = to_size(stage.input.channels);
      for (std::size_t i = 0; i < n; i += channels)
        for (std::size_t c = 0; c < channels; ++c) values[i + c] *= stage.input_scale[c];
    }
    const int whole = static_cast<int>(round_up(n, kLanes));
    const float largest = own_.largest_magnitude(values, whole);
    kernels_.to_bytes(values, bytes_ + b * numbers_, whole, largest > 0.0f ? 127.0f / largest : 0.0f);
    return {bytes_ + b * numbers_, largest * kByteScale};
  }

  void dense(const FeedForwardModel::Stage& stage, float scale, const Frame* next) {
    const Windows& product = stage.products.front();
    const std::size_t rows = to_size(product.matrix.vecs) * kLanes;
    const bool direct = next == nullptr ? rows <= numbers_ : !next->has_margin();
    DenseRow all[kSequences];
    for (std::size_t b = 0; b < n_; ++b) {
      all[b] = {product.bias, input_of(stage, b), direct && stage.order.empty() ? next_of(b) : sums_ + b * rows};
    }
    kernels_.dense(product.matrix, all, static_cast<int>(n_));
    for (std::size_t b = 0; b < n_; ++b) {
      own_.activate(all[b].out, static_cast<int>(rows), stage.activation, scale);
      if (all[b].out != next_of(b))
        put(all[b].out, to_size(stage.outputs), stage.order, next == nullptr ? Frame{} : *next, next_of(b));
    }
  }

  void convolve(const FeedForwardModel::Stage& stage, std::size_t b, float scale, const Frame* next) {
    const Input input = input_of(stage, b);
    // Where outputs go: into the next frame with its margin, or place after place, perhaps to be put into another
    // order.
    Frame plain;
    plain.width = stage.products.front().out_width;
    for (const Windows& w : stage.products)
      plain.height = std::max(plain.height, w.out_y + (w.count_y - 1) * w.out_step_y + 1);
    plain.channels = stage.outputs;
    const bool moved = !stage.order.empty();
    const Frame& frame = !moved && next != nullptr && next->has_margin() ? *next : plain;
    float* out = moved ? moved_ : next_of(b);
    if (frame.has_margin()) std::fill(out, out + frame.size(), 0.0f);
    for (const Windows& windows : stage.products) {
      const std::int64_t count = windows.count_y * windows.count_x;
      for (std::int64_t first = 0; first < count; first += static_cast<std::int64_t>(kWindows))
        some(stage, windows, input, first, std::min<std::int64_t>(count - first, kWindows), scale, frame, out);
    }
    if (moved) put(moved_, to_size(plain.size()), stage.order, next == nullptr ? Frame{} : *next, next_of(b));
  }

  // `count` windows from `first` on.
  void some(const FeedForwardModel::Stage& stage, const Windows& w, const Input& input, std::int64_t first,
            std::int64_t count, float scale, const Frame& frame, float* out) {
    const std::size_t rows = to_size(w.matrix.vecs) * kLanes, columns = to_size(w.matrix.cols);
    const std::size_t width = int8_ ? 1 : sizeof(float), run = to_size(w.run) * width;
    const std::size_t line = to_size(stage.input.line()) * width;
    unsigned char* patches = int8_ ? patch_bytes_ : reinterpret_cast<unsigned char*>(patches_);
    DenseRow all[kWindows];
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t y = (first + i) / w.count_x, x = (first + i) % w.count_x;
      const unsigned char* from = input.data + to_size(w.first_y + y * w.step_y) * line +
                                  to_size((w.first_x + x * w.step_x) * stage.input.channels) * width;
      if (w.lines > 1) {
        unsigned char* patch = patches + to_size(i) * columns * width;
        for (std::int64_t l = 0; l < w.lines; ++l) std::memcpy(patch + to_size(l) * run, from + to_size(l) * line, run);
        std::memset(patch + to_size(w.lines) * run, 0, columns * width - to_size(w.lines) * run);
        from = patch;
      }
      all[i] = {w.bias, {from, input.scale}, sums_ + to_size(i) * rows};
    }
    kernels_.dense(w.matrix, all, static_cast<int>(count));
    own_.activate(sums_, static_cast<int>(to_size(count) * rows), stage.activation, scale);
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t y = w.out_y + (first + i) / w.count_x * w.out_step_y;
      std::int64_t x = w.out_x + (first + i) % w.count_x * w.together * w.out_step_x;
      const float* made = all[i].out;
      for (std::int64_t g = 0; g < w.together && x < w.out_width; ++g, x += w.out_step_x, made += stage.outputs)
        std::copy(made, made + stage.outputs, out + frame.at(y, x));
    }
  }

  const FeedForwardModel& model_;
  const Kernels& kernels_;
  const FeedForwardKernels& own_;
  std::size_t n_;
  bool int8_;
  std::size_t numbers_ = 0;  // of a sequence's input or output, with room for what is read beyond
  std::byte* memory_ = nullptr;
  float *now_ = nullptr, *next_ = nullptr, *moved_ = nullptr, *sums_ = nullptr, *patches_ = nullptr;
  unsigned char *bytes_ = nullptr, *patch_bytes_ = nullptr;
};

}  // namespace

void feedforward_run(const FeedForwardModel& model, const float* x, float* y, std::size_t batch, float last_scale,
                     int threads, Isa isa, const std::function<void()>& idle) {
  const Kernels& kernels = kernels_for(isa);
  const FeedForwardKernels& own = feedforward_kernels_for(isa);
  std::size_t inputs = 1, outputs = 1;
  for (const std::int64_t n : model.input()) inputs *= to_size(n);
  for (const std::int64_t n : model.output()) outputs *= to_size(n);
  const std::size_t fair = (batch + to_size(threads) - 1) / to_size(threads);
  const std::size_t group =
      std::max<std::size_t>(1, std::min({fair, kSequences, kNumbers / model.most_numbers(), kWork / model.macs()}));
  spread((batch + group - 1) / group, threads,
         [&](std::size_t i) {
           const std::size_t first = i * group, n = std::min(group, batch - first);
           Runner(model, n, kernels, own).run(x + first * inputs, y + first * outputs, last_scale);
         },
         idle);
}

}  // namespace musicgen::generate
