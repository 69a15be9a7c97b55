#include "generate/wavenet.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <thread>

#include "base/checked.h"
#include "base/parallel.h"
#include "generate/logistics.h"
#include "generate/wavenet_kernels.h"
#include "generate/wavenet_pair.h"

namespace musicgen::generate {

namespace {

constexpr int kConditionBlock = 16;  // frames whose share of the gates' sums is computed, and kept, at once

// One thread's share of a request: the sequences [first, first + count). All memory is taken in the constructor.
class Worker final : public WaveNetPair::Sequence {
 public:
  Worker(const WaveNetModel& model, std::vector<WaveNetState>& states, const WaveNetRequest& request,
         std::int64_t first, std::int64_t count, Isa isa)
      : model_(model),
        spec_(model.spec()),
        request_(request),
        states_(states),
        first_(first),
        kernels_(kernels_for(isa)),
        wave_(wavenet_kernels_for(isa)),
        sampler_(request.options, spec_.classes > 0 ? spec_.classes : spec_.mixtures),
        layers_(count == 1 ? wave_.layers_for(model.precision(), model.channels() / kLanes) : nullptr),
        int8_(model.precision() == Precision::int8),
        byte_bias_(static_cast<unsigned char>(kernels_.byte_bias)),
        channels_(to_size(model.channels())),
        gates_(2 * channels_),
        n_layers_(model.layers().size()),
        skip_rows_(to_size(padded(spec_.skip_channels))),
        hidden_rows_(to_size(padded(spec_.hidden_channels))),
        logit_rows_(to_size(padded(spec_.rows()))),
        row_bytes_(channels_ * (int8_ ? 1 : sizeof(float))) {
    const std::size_t n = to_size(count);
    sequences_.resize(n);
    lay_out();
    memory_ = Arena(used_);
    used_ = 0;
    lay_out();
    dense_rows_.resize(std::max(n, to_size(kConditionBlock)));
    drawing_.reserve(n);
    load_states();
    start_time_ = sequences_.front().time;
  }

  // The helper's work on the only sequence, while another thread runs.
  void help() { pair_->help(); }
  void pair(Isa isa) {
    if (layers_ != nullptr) pair_ = std::make_unique<WaveNetPair>(model_, isa, *this, request_.n_samples);
  }
  bool paired() const { return pair_ != nullptr; }

  // False if it was stopped.
  bool run(Watch& watch) {
    struct End {  // the helper must not wait for a leader that threw
      WaveNetPair* pair;
      ~End() {
        if (pair != nullptr) pair->end();
      }
    } const end{pair_.get()};
    if (!run_samples(watch)) return false;
    store_states();
    return true;
  }

 private:
  struct Sequence {
    unsigned char* rings = nullptr;
    float* scales = nullptr;
    std::int64_t time = 0;
    std::int32_t last = -1;
    const float* starts = nullptr;  // of the gates' sums, where there is a condition: of all layers at this frame
    float* block = nullptr;         // the same of kConditionBlock frames
    float* h = nullptr;
    float* sums = nullptr;
    float* z = nullptr;  // of all layers end to end
    float* skip = nullptr;
    float* hidden = nullptr;
    float* logits = nullptr;
    unsigned char* z_bytes = nullptr;
    unsigned char* skip_bytes = nullptr;
    unsigned char* hidden_bytes = nullptr;
  };

  template <class T>
  T* take(std::size_t count) {
    const std::size_t at = used_;
    used_ += round_up(checked_product(count, sizeof(T)), 64);
    return memory_.size() > 0 ? reinterpret_cast<T*>(memory_.data() + at) : nullptr;
  }

  void lay_out() {
    const std::size_t width = to_size(padded(spec_.condition_width)), conv = to_size(model_.condition_conv().cols);
    if (spec_.condition_channels > 0) {
      frame_inputs_ = take<float>(kConditionBlock * conv);
      frame_values_ = take<float>(kConditionBlock * width);
    }
    mixture_ = take<float>(logit_rows_);
    for (Sequence& s : sequences_) {
      s.rings = take<unsigned char>(checked_product(model_.ring_rows(), row_bytes_));
      s.scales = take<float>(int8_ ? model_.ring_rows() : 0);
      if (spec_.condition_channels > 0) s.block = take<float>(kConditionBlock * n_layers_ * gates_);
      s.h = take<float>(channels_);
      s.sums = take<float>(gates_);
      s.z = take<float>(n_layers_ * channels_);
      s.skip = take<float>(skip_rows_);
      s.hidden = take<float>(hidden_rows_);
      s.logits = take<float>(logit_rows_);
      s.z_bytes = take<unsigned char>(n_layers_ * channels_);
      s.skip_bytes = take<unsigned char>(skip_rows_);
      s.hidden_bytes = take<unsigned char>(hidden_rows_);
    }
  }

  bool run_samples(Watch& watch) {
    const std::size_t share = model_.macs_per_sample() / n_layers_ + 1;
    for (std::int64_t t = 0; t < request_.n_samples; ++t) {
      if (spec_.condition_channels > 0 && frame_at(t) != frame_) {
        move_to(frame_at(t));
        if (watch.after(to_size(kConditionBlock) * n_layers_ * gates_)) return false;
      }
      for (Sequence& s : sequences_) embed(s);
      bool have_skip = false;
      if (pair_ && pair_->together(t)) {
        have_skip = pair_->run(t, sequences_.front().skip);
      } else if (layers_ != nullptr) {
        layers_->all(step_at(t, true));
      } else {
        for (std::size_t l = 0; l < n_layers_; ++l) {
          step_layer(l);
          if (watch.after(sequences_.size() * share)) return false;
        }
      }
      if (layers_ != nullptr && watch.after(model_.macs_per_sample())) return false;
      draw(t, have_skip);
      for (std::size_t b = 0; b < sequences_.size(); ++b) {
        sequences_[b].last = request_.samples[index(b, t)];
        ++sequences_[b].time;
      }
    }
    return true;
  }

  std::int64_t frame_at(std::int64_t t) const { return (request_.offset + t) / spec_.hop_length; }

  WaveNetStep step_at(std::int64_t t, bool leader) override {
    const Sequence& s = sequences_.front();
    if (leader) return step_of(s, s.time, s.starts);
    const float* starts = nullptr;
    if (spec_.condition_channels > 0) {
      const std::int64_t frame = frame_at(t);
      const std::int64_t block = block_.load(std::memory_order_acquire);
      if (frame < block || frame >= block + kConditionBlock) pair_->wait_for_leader(t);
      starts = s.block + to_size(frame - block_.load(std::memory_order_acquire)) * n_layers_ * gates_;
    }
    return step_of(s, start_time_ + t, starts);
  }

  bool wants_logits(std::int64_t t) const override { return wants_logits(0, t); }
  bool wants_logits(std::size_t b, std::int64_t t) const {
    return request_.forced == nullptr || request_.forced[index(b, t)] < 0 || request_.log_probs != nullptr ||
           request_.logits != nullptr;
  }

  std::size_t index(std::size_t b, std::int64_t t) const {
    return (to_size(first_) + b) * to_size(request_.n_samples) + to_size(t);
  }

  // Bytes lie in a state with their sign, in the rings as the instruction set wants them.
  void load_states() {
    for (std::size_t b = 0; b < sequences_.size(); ++b) {
      const WaveNetState& state = states_[to_size(first_) + b];
      Sequence& s = sequences_[b];
      s.time = state.time;
      s.last = state.last;
      std::memcpy(s.rings, state.rings.data(), state.rings.size());
      if (int8_) {
        flip(s.rings, state.rings.size());
        std::memcpy(s.scales, state.scales.data(), state.scales.size() * sizeof(float));
      }
    }
  }

  void store_states() {
    for (std::size_t b = 0; b < sequences_.size(); ++b) {
      WaveNetState& state = states_[to_size(first_) + b];
      const Sequence& s = sequences_[b];
      state.time = s.time;
      state.last = s.last;
      std::memcpy(state.rings.data(), s.rings, state.rings.size());
      if (int8_) {
        flip(state.rings.data(), state.rings.size());
        std::memcpy(state.scales.data(), s.scales, state.scales.size() * sizeof(float));
      }
    }
  }

  void flip(unsigned char* bytes, std::size_t n) const {
    if (byte_bias_ != 0)
      for (std::size_t i = 0; i < n; ++i) bytes[i] = static_cast<unsigned char>(bytes[i] ^ byte_bias_);
  }

  // The share of the condition in the gates' sums, for every layer, when time reaches a new frame.
  void move_to(std::int64_t frame) {
    if (frame_ < 0 || frame >= block_ + kConditionBlock) {
      for (std::size_t b = 0; b < sequences_.size(); ++b) project(b, frame);
      block_.store(frame, std::memory_order_release);
    }
    frame_ = frame;
    for (Sequence& s : sequences_) s.starts = s.block + to_size(frame - block_) * n_layers_ * gates_;
  }

  // Frames [block, block + kConditionBlock).
  void project(std::size_t b, std::int64_t block) {
    const int n = static_cast<int>(std::min<std::int64_t>(kConditionBlock, request_.frames - block));
    const std::size_t channels = to_size(spec_.condition_channels), width = to_size(padded(spec_.condition_width));
    const std::size_t conv = to_size(model_.condition_conv().cols);
    const float* frames = request_.condition + (to_size(first_) + b) * to_size(request_.frames) * channels;
    for (int f = 0; f < n; ++f) {
      float* input = frame_inputs_ + to_size(f) * conv;
      const std::int64_t first = block + f - spec_.condition_kernel_size / 2;
      for (int k = 0; k < spec_.condition_kernel_size; ++k) {
        const std::int64_t from = first + k;
        float* out = input + to_size(k) * channels;
        if (from >= 0 && from < request_.frames) {
          std::copy(frames + to_size(from) * channels, frames + to_size(from + 1) * channels, out);
        } else {
          std::fill(out, out + channels, 0.0f);
        }
      }
      dense_rows_[to_size(f)] = {model_.conv_bias(), floats(input), frame_values_ + to_size(f) * width};
    }
    kernels_.dense(model_.condition_conv(), dense_rows_.data(), n);
    kernels_.tanh(frame_values_, nullptr, n * static_cast<int>(width));
    for (std::size_t l = 0; l < n_layers_; ++l) {
      const WaveNetLayer& layer = model_.layers()[l];
      for (int f = 0; f < n; ++f)
        dense_rows_[to_size(f)] = {layer.gate_bias, floats(frame_values_ + to_size(f) * width),
                                   sequences_[b].block + (to_size(f) * n_layers_ + l) * gates_};
      kernels_.dense(layer.condition, dense_rows_.data(), n);
    }
  }

  void embed(Sequence& s) const {
    const float* table = model_.input_table();
    if (spec_.classes > 0) {
      const float* row = table + to_size(s.last < 0 ? spec_.classes / 2 : s.last) * channels_;
      std::copy(row, row + channels_, s.h);
    } else {
      const float x = s.last < 0 ? 0.0f : static_cast<float>(logistics::value_of(s.last));
      for (std::size_t i = 0; i < channels_; ++i) s.h[i] = table[i] * x + model_.input_bias()[i];
    }
  }

  static Input floats(const float* x) { return {reinterpret_cast<const unsigned char*>(x), 1.0f}; }

  Input ring(const Sequence& s, const WaveNetLayer& layer, std::int64_t time) const {
    const std::size_t row = layer.first_row + (static_cast<std::size_t>(time) & layer.mask);
    return {s.rings + row * row_bytes_, int8_ ? s.scales[row] : 1.0f};
  }

  WaveNetStep step_of(const Sequence& s, std::int64_t time, const float* starts) const {
    void* z = int8_ ? static_cast<void*>(s.z_bytes) : s.z;
    return {model_.layers().data(),
            static_cast<int>(n_layers_),
            spec_.kernel_size,
            s.rings,
            s.scales,
            row_bytes_,
            time,
            starts,
            s.h,
            s.sums,
            0,
            z};
  }

  void step_layer(std::size_t l) {
    const WaveNetLayer& layer = model_.layers()[l];
    const int n = static_cast<int>(sequences_.size()), taps = spec_.kernel_size;
    const int channels = model_.channels();
    for (int k = 0; k < taps; ++k) {
      if (k + 1 == taps)  // the oldest input has been read: its place may now be taken
        for (Sequence& s : sequences_) remember(s, layer);
      for (std::size_t b = 0; b < sequences_.size(); ++b) {
        Sequence& s = sequences_[b];
        const float* start = k > 0 ? s.sums : s.starts != nullptr ? s.starts + l * gates_ : layer.gate_bias;
        dense_rows_[b] = {start, ring(s, layer, s.time - static_cast<std::int64_t>(taps - 1 - k) * layer.dilation),
                          s.sums};
      }
      kernels_.dense(layer.taps[k], dense_rows_.data(), n);
    }
    for (std::size_t b = 0; b < sequences_.size(); ++b) {
      Sequence& s = sequences_[b];
      const std::size_t at = l * channels_;
      wave_.gate(s.sums, s.z + at, int8_ ? s.z_bytes + at : nullptr, channels);
      dense_rows_[b] = {layer.residual_bias, int8_ ? Input{s.z_bytes + at, kByteScale} : floats(s.z + at), s.sums};
    }
    if (l + 1 == n_layers_) return;
    kernels_.dense(layer.residual, dense_rows_.data(), n);
    for (Sequence& s : sequences_) wave_.add(s.h, s.sums, channels);
  }

  void remember(Sequence& s, const WaveNetLayer& layer) const {
    const std::size_t row = layer.first_row + (static_cast<std::size_t>(s.time) & layer.mask);
    unsigned char* out = s.rings + row * row_bytes_;
    if (int8_) {
      s.scales[row] = kernels_.quantise(s.h, out, model_.channels());
    } else {
      std::memcpy(out, s.h, row_bytes_);
    }
  }

  // The sample of every sequence, and logits of those that need them ; `have_skip`: the skip product is done.
  void draw(std::int64_t t, bool have_skip) {
    drawing_.clear();
    for (std::size_t b = 0; b < sequences_.size(); ++b) {
      const std::int32_t forced = request_.forced ? request_.forced[index(b, t)] : -1;
      if (forced >= 0) request_.samples[index(b, t)] = forced;
      if (wants_logits(b, t)) drawing_.push_back(b);
    }
    if (!drawing_.empty()) compute_logits(have_skip);
    for (const std::size_t b : drawing_) choose(b, t);
  }

  void compute_logits(bool have_skip) {
    const int n = static_cast<int>(drawing_.size());
    for (int i = 0; i < n; ++i) {
      Sequence& s = sequences_[drawing_[to_size(i)]];
      dense_rows_[to_size(i)] = {model_.skip_bias(), int8_ ? Input{s.z_bytes, kByteScale} : floats(s.z), s.skip};
    }
    if (!have_skip) kernels_.dense(model_.skip(), dense_rows_.data(), n);
    for (int i = 0; i < n; ++i) {
      Sequence& s = sequences_[drawing_[to_size(i)]];
      dense_rows_[to_size(i)] = {model_.hidden_bias(), rectified(s.skip, s.skip_bytes, skip_rows_), s.hidden};
    }
    kernels_.dense(model_.hidden(), dense_rows_.data(), n);
    for (int i = 0; i < n; ++i) {
      Sequence& s = sequences_[drawing_[to_size(i)]];
      dense_rows_[to_size(i)] = {model_.logits_bias(), rectified(s.hidden, s.hidden_bytes, hidden_rows_), s.logits};
    }
    kernels_.dense(model_.logits(), dense_rows_.data(), n);
  }

  Input rectified(float* x, unsigned char* bytes, std::size_t n) const {
    wave_.relu(x, x, static_cast<int>(n));
    return int8_ ? Input{bytes, kernels_.quantise(x, bytes, static_cast<int>(n))} : floats(x);
  }

  void choose(std::size_t b, std::int64_t t) {
    const std::size_t at = index(b, t);
    const float* logits = sequences_[b].logits;
    if (request_.logits) std::copy(logits, logits + spec_.rows(), request_.logits + at * to_size(spec_.rows()));
    std::int32_t& token = request_.samples[at];
    const bool free = request_.forced == nullptr || request_.forced[at] < 0;
    const double* coins = request_.coins + at * to_size(spec_.coins());
    if (spec_.classes > 0) {
      const double log_sum = request_.log_probs ? sampler_.log_normaliser(kernels_, logits, spec_.classes) : 0.0;
      if (free) token = std::max(0, sampler_.draw(kernels_, logits, spec_.classes, coins[0]));
      if (request_.log_probs) request_.log_probs[at] = static_cast<double>(logits[token]) - log_sum;
    } else {
      if (free) {
        std::fill(std::copy(logits, logits + spec_.mixtures, mixture_), mixture_ + padded(spec_.mixtures),
                  kMinusInfinity);
        const int m = std::max(0, sampler_.draw(kernels_, mixture_, spec_.mixtures, coins[0]));
        token = logistics::draw(logits, spec_.mixtures, m, request_.options.temperature, coins[1]);
      }
      if (request_.log_probs) request_.log_probs[at] = logistics::log_prob(logits, spec_.mixtures, token);
    }
  }

  const WaveNetModel& model_;
  const WaveNetSpec& spec_;
  const WaveNetRequest& request_;
  std::vector<WaveNetState>& states_;
  std::int64_t first_;
  const Kernels& kernels_;
  const WaveNetKernels& wave_;
  Sampler sampler_;
  const WaveNetLayerKernels* layers_;  // of one sequence; null: several, or an uncommon number of channels
  bool int8_;
  unsigned char byte_bias_;
  std::size_t channels_, gates_, n_layers_, skip_rows_, hidden_rows_, logit_rows_, row_bytes_;
  Arena memory_;
  std::size_t used_ = 0;
  std::int64_t frame_ = -1;
  std::atomic<std::int64_t> block_{-kConditionBlock};  // the helper of a pair looks, too
  std::int64_t start_time_ = 0;
  std::unique_ptr<WaveNetPair> pair_;
  float* frame_inputs_ = nullptr;
  float* frame_values_ = nullptr;
  float* mixture_ = nullptr;
  std::vector<Sequence> sequences_;
  std::vector<DenseRow> dense_rows_;
  std::vector<std::size_t> drawing_;
};

bool sample_as_pair(const WaveNetModel& model, std::vector<WaveNetState>& states, const WaveNetRequest& request,
                    Isa isa, Interrupt& interrupt) {
  std::atomic<bool> stopped{false};
  Worker worker(model, states, request, 0, 1, isa);
  worker.pair(isa);
  Watch watch(&interrupt, stopped);
  parallel(
      worker.paired() ? 2 : 1, [&](int part) { part == 0 ? static_cast<void>(worker.run(watch)) : worker.help(); },
      [] {});
  return !stopped;
}

}  // namespace

WaveNetState start_of(const WaveNetModel& model) {
  const bool int8 = model.precision() == Precision::int8;
  const std::size_t values = checked_product(model.ring_rows(), to_size(model.channels()));
  WaveNetState state;
  state.rings.assign(checked_product(values, int8 ? 1 : sizeof(float)), 0);
  if (int8) state.scales.assign(model.ring_rows(), 0.0f);
  return state;
}

bool wavenet_sample(const WaveNetModel& model, std::vector<WaveNetState>& states, const WaveNetRequest& request,
                    int threads, Isa isa, Interrupt& interrupt) {
  const auto batch = static_cast<std::int64_t>(states.size());
  if (batch == 0) return true;
  if (batch == 1 && threads > 1 && std::thread::hardware_concurrency() > 1)
    return sample_as_pair(model, states, request, isa, interrupt);
  const std::int64_t parts = std::max<std::int64_t>(1, std::min<std::int64_t>(threads, batch));
  std::atomic<bool> stopped{false};
  const auto share = [&](int part) {
    const std::int64_t first = batch * part / parts, last = batch * (part + 1) / parts;
    Worker worker(model, states, request, first, last - first, isa);
    Watch watch(part == 0 ? &interrupt : nullptr, stopped);
    worker.run(watch);
  };
  parallel(static_cast<int>(parts), share, [&] {
    if (interrupt.requested()) stopped = true;
  });
  return !stopped;
}

}  // namespace musicgen::generate
