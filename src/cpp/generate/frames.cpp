#include "generate/frames.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "base/checked.h"
#include "base/parallel.h"

namespace musicgen::generate {

namespace {

bool has(const KeyBits& frame, int key) { return (frame[to_size(key >> 6)] >> (key & 63)) & 1; }

// Room for the keys of a frame, ascending.
struct Notes {
  std::array<std::uint8_t, kMostKeys> keys{};
  int count = 0;

  void read(const KeyBits& frame, int most) {
    count = 0;
    for (int k = 0; k < most; ++k)
      if (has(frame, k)) keys[to_size(count++)] = static_cast<std::uint8_t>(k);
  }
};

// One thread's share of a request: the sequences [first, first + count). All memory is taken in the constructor.
class Worker {
 public:
  Worker(const FramesModel& model, std::vector<FramesState>& states, const FramesRequest& request, std::int64_t first,
         std::int64_t count, Isa isa)
      : model_(model),
        spec_(model.spec()),
        request_(request),
        kernels_(kernels_for(isa)),
        frames_kernels_(frames_kernels_for(isa)),
        states_(states),
        first_(first),
        sampler_(request.options, spec_.keys + 1),
        n_layers_(to_size(spec_.num_layers)),
        units_(to_size(model.units())),
        width_(model.width()),
        lanes_(padded(spec_.keys + 1)),
        n_rows_(spec_.notes ? (spec_.has_match() ? 3 : 2) : 0),
        int8_(model.precision() == Precision::int8),
        channels_(to_size(spec_.channels())) {
    const std::size_t n = to_size(count), gate_rows = to_size(model.gate_rows()), keys = to_size(padded(spec_.keys)),
                      lanes = to_size(lanes_);
    const std::size_t per_sequence = 3 * n_layers_ * units_ + gate_rows + keys + to_size(width_);
    const std::size_t shared = kGroupScratch + keys * to_size(width_) + 3 * lanes;
    memory_ = Arena((checked_product(n, per_sequence) + shared) * sizeof(float) +
                    checked_product(n, 2 * n_layers_ * units_) + 4096);
    auto* p = reinterpret_cast<float*>(memory_.data());
    const auto take = [&p](std::size_t floats) {
      float* at = p;
      p += floats;
      return at;
    };
    scratch_ = take(kGroupScratch);
    sums_ = take(keys * to_size(width_));
    z_ = take(lanes);
    softplus_ = take(lanes);
    choices_ = take(lanes);
    sequences_.resize(n);
    for (Sequence& s : sequences_) {
      s.layers.resize(n_layers_);
      for (LayerMemory& m : s.layers) {
        m.h[0] = take(units_);
        m.h[1] = take(units_);
        m.c = take(units_);
      }
      s.start = take(gate_rows);
      s.key = take(keys);
      s.condition = take(to_size(width_));
    }
    auto* q = reinterpret_cast<unsigned char*>(p);
    for (Sequence& s : sequences_)
      for (LayerMemory& m : s.layers) {
        m.q[0] = q;
        m.q[1] = q + units_;
        q += 2 * units_;
      }
    layer_rows_.resize(n);
    dense_rows_.resize(n);
    rows_.resize(keys * 3);
    std::fill(z_, z_ + lanes, 0.0f);
    load_states();
  }

  // False if it was stopped.
  bool run(Watch& watch) {
    for (std::int64_t t = 0; t < request_.n_frames; ++t) {
      for (std::size_t b = 0; b < sequences_.size(); ++b) look_back(b);
      for (std::size_t k = 0; k < n_layers_; ++k) step_layer(k);
      heads();
      for (std::size_t b = 0; b < sequences_.size(); ++b) {
        describe_keys(b);
        choose(b, t);
        advance(b);
        if (watch.after(model_.macs_per_frame())) return false;
      }
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
    std::vector<LayerMemory> layers;
    float *start = nullptr, *key = nullptr, *condition = nullptr;
    KeyBits last{}, match{}, frame{};
  };

  static constexpr std::size_t kGroupScratch = 48 * kScratchFloats;

  FramesState& state_of(std::size_t b) { return states_[to_size(first_) + b]; }
  std::size_t index(std::size_t b, std::int64_t t) const {
    return (to_size(first_) + b) * to_size(request_.n_frames) + to_size(t);
  }
  std::size_t slot(std::int64_t frame) const { return to_size(frame) & to_size(model_.history() - 1); }

  Input input_of(const LayerMemory& m) const {
    if (int8_) return {m.q[m.now], m.scale[m.now]};
    return {reinterpret_cast<const unsigned char*>(m.h[m.now]), 1.0f};
  }

  void load_states() {
    for (std::size_t b = 0; b < sequences_.size(); ++b) {
      const FramesState& state = state_of(b);
      for (std::size_t k = 0; k < n_layers_; ++k) {
        LayerMemory& m = sequences_[b].layers[k];
        std::memcpy(m.h[0], state.h.data() + k * units_, units_ * sizeof(float));
        if (!state.c.empty()) std::memcpy(m.c, state.c.data() + k * units_, units_ * sizeof(float));
        if (!int8_) continue;
        // The bytes that the last step of the previous call stored, from the floats that it left.
        float largest = 1.0f;
        if (spec_.cell == Cell::rnn_relu) largest = std::max(0.0f, *std::max_element(m.h[0], m.h[0] + units_));
        kernels_.to_bytes(m.h[0], m.q[0], static_cast<int>(units_), largest > 0.0f ? 127.0f / largest : 0.0f);
        m.scale[0] = largest * kByteScale;
      }
    }
  }

  void store_states() {
    for (std::size_t b = 0; b < sequences_.size(); ++b) {
      FramesState& state = state_of(b);
      for (std::size_t k = 0; k < n_layers_; ++k) {
        const LayerMemory& m = sequences_[b].layers[k];
        std::memcpy(state.h.data() + k * units_, m.h[m.now], units_ * sizeof(float));
        if (!state.c.empty()) std::memcpy(state.c.data() + k * units_, m.c, units_ * sizeof(float));
      }
    }
  }

  KeyBits frame_at(const FramesState& state, std::int64_t frame) const {
    if (frame < 0) return {};
    const std::uint64_t* bits = &state.bits[2 * slot(frame)];
    return {bits[0], bits[1]};
  }

  // The channels of the coming frame, and what they and the clocks add to the first layer's sums.
  void look_back(std::size_t b) {
    Sequence& s = sequences_[b];
    FramesState& state = state_of(b);
    const std::int64_t t = state.frame;
    std::int64_t where = -1;
    int length = 0;
    if (spec_.has_match()) find_match(state, where, length);
    s.last = frame_at(state, t - 1);
    s.match = frame_at(state, where);

    const float* bias = model_.layers()[0].bias;
    const int gate_rows = model_.gate_rows();
    std::copy(bias, bias + gate_rows, s.start);
    const int n_channels = static_cast<int>(spec_.trunk_channels.size());
    for (int i = 0; i < n_channels; ++i) {
      notes_.read(channel(b, spec_.trunk_channels[to_size(i)]), spec_.keys);
      for (int j = 0; j < notes_.count; ++j)
        frames_kernels_.add(s.start, model_.input(notes_.keys[to_size(j)] * n_channels + i), gate_rows);
    }
    int column = spec_.keys * n_channels;
    if (spec_.has_match()) {
      const auto& buckets = spec_.match_buckets;
      const auto bucket = std::upper_bound(buckets.begin(), buckets.end(), length) - buckets.begin();
      frames_kernels_.add(s.start, model_.input(column + static_cast<int>(bucket)), gate_rows);
      column += static_cast<int>(buckets.size()) + 1;
    }
    for (const int period : spec_.clocks) {
      frames_kernels_.add(s.start, model_.input(column + static_cast<int>(t % period)), gate_rows);
      column += period;
    }
  }

  KeyBits channel(std::size_t b, int number) {
    if (number == static_cast<int>(spec_.lags.size())) return sequences_[b].match;
    const FramesState& state = state_of(b);
    return frame_at(state, state.frame - spec_.lags[to_size(number)]);
  }

  // match[j]: length of the longest common suffix of frames[.. t-1] and frames[.. j-1]; the longest wins, then the
  // latest. One pass from the previous frame's lengths: walking down, match[j - 1] is still the old one.
  void find_match(FramesState& state, std::int64_t& where, int& length) {
    const std::int64_t t = state.frame, low = std::max<std::int64_t>(1, t - spec_.match_window);
    const KeyBits last = frame_at(state, t - 1);
    for (std::int64_t j = t - 1; j >= low; --j) {
      const std::uint64_t* before = &state.bits[2 * slot(j - 1)];
      std::int32_t common = 0;
      if (before[0] == last[0] && before[1] == last[1]) common = 1 + (j > 1 ? state.match[slot(j - 1)] : 0);
      state.match[slot(j)] = common;
      if (common > length) {
        length = common;
        where = j;
      }
    }
  }

  void step_layer(std::size_t k) {
    const Layer& layer = model_.layers()[k];
    for (std::size_t b = 0; b < sequences_.size(); ++b) {
      Sequence& s = sequences_[b];
      LayerMemory& m = s.layers[k];
      LayerRow& row = layer_rows_[b];
      const int next = 1 - m.now;
      row.start = k == 0 ? s.start : layer.bias;
      if (k > 0) row.x = input_of(s.layers[k - 1]);
      row.h = input_of(m);
      row.h_float = m.h[m.now];
      row.c = m.c;
      row.h_out = m.h[next];
      row.bytes_out = int8_ ? m.q[next] : nullptr;
      row.scale_out = &m.scale[next];
    }
    kernels_.layer(layer, layer_rows_.data(), static_cast<int>(sequences_.size()), scratch_);
    for (Sequence& s : sequences_) s.layers[k].now = 1 - s.layers[k].now;
  }

  void heads() {
    const int n = static_cast<int>(sequences_.size());
    for (std::size_t b = 0; b < sequences_.size(); ++b)
      dense_rows_[b] = {model_.key_bias(), input_of(sequences_[b].layers.back()), sequences_[b].key};
    kernels_.dense(model_.key(), dense_rows_.data(), n);
    for (std::size_t b = 0; b < sequences_.size(); ++b)
      dense_rows_[b] = {model_.no_bias(), input_of(sequences_[b].layers.back()), sequences_[b].condition};
    kernels_.dense(model_.condition(), dense_rows_.data(), n);
  }

  float* sums_of(int key) { return sums_ + to_size(key) * to_size(width_); }

  // What every key sees of the past.
  void describe_keys(std::size_t b) {
    const Sequence& s = sequences_[b];
    int last = 0, match = 0;
    for (int k = 0; k < spec_.keys; ++k) {
      float* sums = sums_of(k);
      const float* position = model_.position(k);
      std::copy(position, position + width_, sums);
      frames_kernels_.add(sums, s.condition, width_);
      add_rank(sums, 0, last);
      if (spec_.has_match()) add_rank(sums, 1, match);
      below_last_[to_size(k)] = static_cast<std::uint8_t>(last);
      below_match_[to_size(k)] = static_cast<std::uint8_t>(match);
      last = std::min(kMostBelow, last + has(s.last, k));
      match = std::min(kMostBelow, match + has(s.match, k));
    }
    for (int c = 0; c < static_cast<int>(channels_); ++c) {
      notes_.read(channel(b, c), spec_.keys);
      for (int j = 0; j < notes_.count; ++j) {
        const int note = notes_.keys[to_size(j)];
        const int low = std::max(0, note - spec_.reach), high = std::min(spec_.keys - 1, note + spec_.reach);
        const float* block = model_.local(c) + to_size(low - note + spec_.reach) * to_size(width_);
        frames_kernels_.add(sums_of(low), block, (high - low + 1) * width_);
      }
    }
  }

  void add_rank(float* sums, int kind, int count) {
    frames_kernels_.add(sums, model_.ranks() + to_size(kind * (kMostBelow + 1) + count) * to_size(width_), width_);
  }

  // Asks the keys from `first` on, when `count` notes lie below them.
  void ask(const Sequence& s, int first, int last, int count) {
    if (spec_.notes) {
      const int past = spec_.has_match() ? 2 : 1, kind = kMostBelow + 1, written = std::min(count, kMostBelow);
      const auto apart = [written](int other) {
        return std::clamp(written - other, -kMostApart, kMostApart) + kMostApart;
      };
      for (int k = first; k < last; ++k) {
        int* rows = rows_.data() + k * n_rows_;
        rows[0] = past * kind + written;
        rows[1] = (past + 1) * kind + apart(below_last_[to_size(k)]);
        if (past == 2) rows[2] = (past + 2) * kind + apart(below_match_[to_size(k)]);
      }
    }
    const KeyQuestions questions = {sums_, s.key, model_.output(), model_.ranks(), rows_.data(), n_rows_, width_, z_};
    frames_kernels_.ask(questions, first, last);
  }

  void write(Sequence& s, int key) {
    s.frame[to_size(key >> 6)] |= std::uint64_t{1} << (key & 63);
    const int high = std::min(spec_.keys - 1, key + spec_.reach);
    if (spec_.notes && high > key) frames_kernels_.add(sums_of(key + 1), model_.written(), (high - key) * width_);
  }

  void choose(std::size_t b, std::int64_t t) {
    Sequence& s = sequences_[b];
    const std::size_t at = index(b, t), keys = to_size(spec_.keys);
    const std::int8_t* forced = request_.forced != nullptr ? request_.forced + at * keys : nullptr;
    const double* coins = request_.coins + at * keys;
    const bool free = forced == nullptr || std::find(forced, forced + keys, -1) != forced + keys;
    s.frame = {};
    if (!free)
      follow(s, forced);
    else if (spec_.notes)
      write_notes(s, forced, coins);
    else
      draw_keys(s, forced, coins);
    std::uint8_t* out = request_.frames + at * keys;
    for (int k = 0; k < spec_.keys; ++k) out[k] = has(s.frame, k);
    if (request_.logits != nullptr) std::copy(z_, z_ + keys, request_.logits + at * keys);
    if (request_.log_probs != nullptr) {
      frames_kernels_.softplus(z_, softplus_, lanes_);
      double sum = 0.0;
      for (std::size_t k = 0; k < keys; ++k)
        sum += (out[k] ? static_cast<double>(z_[k]) : 0.0) - static_cast<double>(softplus_[k]);
      request_.log_probs[at] = sum;
    }
  }

  // A frame of which nothing is free: every key is asked once, if at all.
  void follow(Sequence& s, const std::int8_t* forced) {
    const bool asked = request_.logits != nullptr || request_.log_probs != nullptr;
    int first = 0, count = 0;
    for (int k = 0; k < spec_.keys; ++k) {
      if (forced[k] == 0) continue;
      if (asked) ask(s, first, k + 1, count);
      write(s, k);
      first = k + 1;
      ++count;
    }
    if (asked) ask(s, first, spec_.keys, count);
  }

  // Note after note, ascending, then the stop.
  void write_notes(Sequence& s, const std::int8_t* forced, const double* coins) {
    for (int first = 0, count = 0; first < spec_.keys; ++count) {
      ask(s, first, spec_.keys, count);
      frames_kernels_.softplus(z_, softplus_, lanes_);
      std::fill(choices_, choices_ + lanes_, kMinusInfinity);
      float silent = 0.0f;  // ln of the probability that none of the keys so far is the next note
      bool stops = true;
      for (int k = first; k < spec_.keys && stops; ++k) {
        if (forced == nullptr || forced[k] != 0) choices_[k] = silent + (z_[k] - softplus_[k]);
        silent -= softplus_[k];
        stops = forced == nullptr || forced[k] <= 0;  // a key that must sound is passed by no later one
      }
      if (stops) choices_[spec_.keys] = silent;
      const int note = sampler_.draw(kernels_, choices_, spec_.keys + 1, coins[count]);
      if (note < 0 || note == spec_.keys) return;
      write(s, note);
      first = note + 1;
    }
  }

  void draw_keys(Sequence& s, const std::int8_t* forced, const double* coins) {
    ask(s, 0, spec_.keys, 0);
    std::fill(choices_, choices_ + kLanes, kMinusInfinity);
    choices_[0] = 0.0f;
    for (int k = 0; k < spec_.keys; ++k) {
      choices_[1] = z_[k];
      const bool sounds =
          forced != nullptr && forced[k] >= 0 ? forced[k] == 1 : sampler_.draw(kernels_, choices_, 2, coins[k]) == 1;
      if (sounds) write(s, k);
    }
  }

  void advance(std::size_t b) {
    FramesState& state = state_of(b);
    std::copy(sequences_[b].frame.begin(), sequences_[b].frame.end(), &state.bits[2 * slot(state.frame)]);
    ++state.frame;
  }

  const FramesModel& model_;
  const FramesSpec& spec_;
  const FramesRequest& request_;
  const Kernels& kernels_;
  const FramesKernels& frames_kernels_;
  std::vector<FramesState>& states_;
  std::int64_t first_;
  Sampler sampler_;
  std::size_t n_layers_, units_;
  int width_, lanes_, n_rows_;
  bool int8_;
  std::size_t channels_;
  Arena memory_;
  float *scratch_ = nullptr, *sums_ = nullptr, *z_ = nullptr, *softplus_ = nullptr, *choices_ = nullptr;
  std::vector<Sequence> sequences_;
  std::vector<LayerRow> layer_rows_;
  std::vector<DenseRow> dense_rows_;
  std::vector<int> rows_;
  std::array<std::uint8_t, kMostKeys> below_last_{}, below_match_{};
  Notes notes_;
};

}  // namespace

FramesState start_of(const FramesModel& model) {
  const FramesSpec& spec = model.spec();
  FramesState state;
  state.h.assign(to_size(spec.num_layers) * to_size(model.units()), 0.0f);
  if (spec.cell == Cell::lstm) state.c = state.h;
  state.bits.assign(2 * to_size(model.history()), 0);
  if (spec.has_match()) state.match.assign(to_size(model.history()), 0);
  return state;
}

bool frames_sample(const FramesModel& model, std::vector<FramesState>& states, const FramesRequest& request,
                   int threads, Isa isa, Interrupt& interrupt) {
  const auto batch = static_cast<std::int64_t>(states.size());
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
