#include "generate/attention.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

#include "base/checked.h"
#include "base/parallel.h"

namespace musicgen::generate {

namespace {

constexpr int kRows = 48;  // tokens that go through the layers together where they are known beforehand

int round_up_to_lanes(std::int64_t n) { return static_cast<int>(round_up(to_size(n), kLanes)); }

// Where a layer's heads keep what they remember.
struct Place {
  std::size_t at, pitch, half;  // bytes: of the first head's keys, from head to head, from keys to values
};
Place place_of(const AttentionModel& model, const AttentionCache& cache, std::size_t layer) {
  const AttentionSpec& spec = model.spec();
  const std::size_t half = to_size(cache.capacity) * to_size(spec.head_size()) * model.value_bytes();
  return {layer * to_size(spec.num_heads) * 2 * half, 2 * half, half};
}

AttentionView view_of(const AttentionModel& model, const AttentionCache& cache, std::size_t layer, int count) {
  const Place place = place_of(model, cache, layer);
  const char* bytes = reinterpret_cast<const char*>(cache.bytes.data()) + place.at;
  return {bytes, bytes + place.half, place.pitch, count};
}

AttentionCache cache_of(const AttentionModel& model, int capacity) {
  AttentionCache cache;
  cache.capacity = capacity;
  cache.bytes = Arena(cache_bytes(model, capacity));
  return cache;
}

// The same with room for `capacity` slots, `count` of which are filled.
AttentionCache grown(const AttentionModel& model, const AttentionCache* cache, int count, int capacity) {
  AttentionCache larger = cache_of(model, capacity);
  if (cache == nullptr) return larger;
  const Place from = place_of(model, *cache, 0), to = place_of(model, larger, 0);
  const std::size_t filled = from.half / to_size(cache->capacity) * to_size(round_up_to_lanes(count));
  const std::size_t pieces = 2 * to_size(model.spec().num_layers) * to_size(model.spec().num_heads);
  for (std::size_t i = 0; i < pieces; ++i)
    std::memcpy(larger.bytes.data() + i * to.half, cache->bytes.data() + i * from.half, filled);
  return larger;
}

template <class T, class Stored>
void write_slot(std::byte* bytes, std::size_t half, const float* key, const float* value, int slot, int head_size,
                Stored stored) {
  constexpr int kTogether = 4 / sizeof(T);  // numbers of a key, or slots of a value, in four bytes
  T* keys = reinterpret_cast<T*>(bytes) + to_size(slot / kLanes) * to_size(head_size) * kLanes +
            to_size(slot % kLanes) * kTogether;
  T* values = reinterpret_cast<T*>(bytes + half) + to_size(slot / kTogether) * to_size(head_size) * kTogether +
              to_size(slot % kTogether);
  for (int i = 0; i < head_size; ++i) {
    keys[i / kTogether * kTogether * kLanes + i % kTogether] = stored(key[i]);
    values[i * kTogether] = stored(value[i]);
  }
}

// Keys and values (all heads, one after the other) of one token.
void remember(const AttentionModel& model, AttentionCache& cache, std::size_t layer, int slot, const float* keys,
              const float* values) {
  const int head_size = model.spec().head_size();
  const Place place = place_of(model, cache, layer);
  std::byte* bytes = cache.bytes.data() + place.at;
  for (int h = 0; h < model.spec().num_heads; ++h, bytes += place.pitch) {
    const float* key = keys + h * head_size;
    const float* value = values + h * head_size;
    if (model.halves()) {
      write_slot<std::uint16_t>(bytes, place.half, key, value, slot, head_size, bfloat16_of);
    } else {
      write_slot<float>(bytes, place.half, key, value, slot, head_size, [](float x) { return x; });
    }
  }
}

// Some tokens on their way through the layers: what decoder and encoder have in common. All memory is taken in the
// constructor.
class Rows {
 public:
  Rows(const AttentionModel& model, std::size_t most, Isa isa)
      : model_(model),
        spec_(model.spec()),
        kernels_(kernels_for(isa)),
        attention_(attention_kernels_for(isa)),
        width_(to_size(spec_.width)),
        dense_rows_(most) {
    const std::size_t slots = to_size(round_up_to_lanes(std::max(spec_.context, spec_.memory.context)));
    const std::size_t inner = to_size(spec_.mlp_rows()), widest = std::max(3 * width_, to_size(spec_.mlp_size));
    memory_ = Arena(checked_product(most, 6 * width_ + inner, sizeof(float)) + slots * sizeof(float) +
                    checked_product(most, widest));
    auto* p = reinterpret_cast<float*>(memory_.data());
    const auto take = [&p](std::size_t count) { return std::exchange(p, p + count); };
    scores_ = take(slots);
    x_ = take(most * width_);
    normal_ = take(most * width_);
    qkv_ = take(most * 3 * width_);
    heads_ = take(most * width_);
    inner_ = take(most * inner);
    bytes_ = reinterpret_cast<unsigned char*>(p);
  }

  const Kernels& kernels() const { return kernels_; }
  float* x(std::size_t row) { return x_ + row * width_; }
  const float* query(std::size_t row) const { return qkv_ + row * 3 * width_; }
  const float* key(std::size_t row) const { return query(row) + width_; }
  const float* value(std::size_t row) const { return query(row) + 2 * width_; }

  void begin(std::size_t row, const float* embedding) { std::memcpy(x(row), embedding, width_ * sizeof(float)); }

  // Queries, keys and values of n rows.
  void ask(const AttentionModel::Layer& layer, std::size_t n) {
    normalise(layer.before_attention, layer.attended.bias, n);
    product(layer.qkv, normal_, width_, qkv_, 3 * width_, n);
  }
  // Queries of the memory.
  void ask_memory(const AttentionModel::Layer& layer, std::size_t n) {
    normalise(layer.before_cross, layer.crossed.bias, n);
    product(layer.query, normal_, width_, qkv_, 3 * width_, n);
  }
  void attend(std::size_t row, const AttentionView& view, const float* first, std::size_t first_pitch,
              const float* second = nullptr, std::size_t second_pitch = 0) {
    const AttentionQuery query = {view,    qkv_ + row * 3 * width_, {first, second}, {first_pitch, second_pitch},
                                  scores_, heads_ + row * width_};
    attention_.attend(query, spec_.num_heads, spec_.head_size(), model_.halves());
  }
  // What the heads found goes onto x.
  void answer(const AttentionModel::Product& out, std::size_t n) { product(out, heads_, width_, x_, width_, n, true); }

  void think(const AttentionModel::Layer& layer, std::size_t n) {
    const std::size_t rows = to_size(spec_.mlp_rows()), size = to_size(spec_.mlp_size);
    normalise(layer.before_mlp, layer.down.bias, n);
    product(layer.up, normal_, width_, inner_, rows, n);
    for (std::size_t i = 0; i < n; ++i)
      attention_.activate(spec_.activation, inner_ + i * rows, inner_ + i * rows, spec_.mlp_size);
    product(layer.down, inner_, rows, x_, width_, n, true, size);
  }

  // The normalised x of some rows through a last product, to `out` row by row.
  void finish(const AttentionModel::Norm& norm, const AttentionModel::Product& last, const std::size_t* rows,
              std::size_t n, float* out, std::size_t pitch) {
    for (std::size_t i = 0; i < n; ++i)
      attention_.normalise(x(rows[i]), norm.gain, norm.shift, nullptr, normal_ + i * width_, spec_.width);
    product(last, normal_, width_, out, pitch, n);
  }
  // Every row through its norm, in place.
  void finish(const AttentionModel::Norm& norm, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) attention_.normalise(x(i), norm.gain, norm.shift, nullptr, x(i), spec_.width);
  }
  // Keys and values for a decoder's layer, of finished rows.
  void offer(const AttentionModel::Layer& layer, std::size_t n) {
    product(layer.keys_values, x_, width_, qkv_ + width_, 3 * width_, n);
  }

 private:
  void normalise(const AttentionModel::Norm& norm, const float* later, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i)
      attention_.normalise(x(i), norm.gain, norm.shift, later, normal_ + i * width_, spec_.width);
  }

  // out = bias + matrix * in, or `onto` what is there. `columns`: numbers of a row of `in`, where it has more.
  void product(const AttentionModel::Product& p, const float* in, std::size_t in_pitch, float* out,
               std::size_t out_pitch, std::size_t n, bool onto = false, std::size_t columns = 0) {
    const int count = static_cast<int>(columns > 0 ? columns : in_pitch);
    for (std::size_t i = 0; i < n; ++i) {
      const float* from = in + i * in_pitch;
      Input x = {reinterpret_cast<const unsigned char*>(from), 1.0f};
      if (model_.precision() == Precision::int8) {
        unsigned char* bytes = bytes_ + i * to_size(count);
        x = {bytes, kernels_.quantise(from, bytes, count)};
      }
      dense_rows_[i] = {onto ? out + i * out_pitch : p.bias, x, out + i * out_pitch};
    }
    kernels_.dense(p.matrix, dense_rows_.data(), static_cast<int>(n));
  }

  const AttentionModel& model_;
  const AttentionSpec& spec_;
  const Kernels& kernels_;
  const AttentionKernels& attention_;
  std::size_t width_;
  Arena memory_;
  float* scores_ = nullptr;
  float* x_ = nullptr;
  float* normal_ = nullptr;
  float* qkv_ = nullptr;
  float* heads_ = nullptr;
  float* inner_ = nullptr;
  unsigned char* bytes_ = nullptr;
  std::vector<DenseRow> dense_rows_;
};

// One thread's share of a request: the sequences [first, first + count). All memory is taken in the constructor.
class Worker {
 public:
  Worker(const AttentionModel& model, std::vector<AttentionState>& states, const AttentionRequest& request,
         std::int64_t first, std::int64_t count, Isa isa)
      : model_(model),
        spec_(model.spec()),
        request_(request),
        states_(states),
        first_(first),
        most_rows_(std::max(to_size(count), std::size_t{kRows})),
        rows_(model, most_rows_, isa),
        sampler_(request.options, spec_.vocab_size),
        logit_pitch_(to_size(padded(spec_.vocab_size))),
        logits_(checked_product(most_rows_, logit_pitch_)) {
    sequences_.resize(to_size(count));
    for (std::size_t b = 0; b < sequences_.size(); ++b) {
      const AttentionState& state = states[to_size(first) + b];
      Sequence& s = sequences_[b];
      const std::int64_t context = spec_.context, filled = std::min(state.frame, context);
      const std::int64_t needed = std::min(state.frame + request.n_frames, context);
      s.state = state;
      s.cache = std::make_shared<AttentionCache>(
          grown(model, state.cache.get(), static_cast<int>(filled), round_up_to_lanes(needed)));
      if (state.memory != nullptr)
        s.places.resize(to_size(spec_.num_heads) * to_size(round_up_to_lanes(state.memory->count)));
    }
    active_.reserve(sequences_.size());
    tokens_.resize(most_rows_);
    drawing_.reserve(most_rows_);
  }

  // False if it was stopped.
  bool run(Watch& watch) {
    active_.clear();
    for (std::size_t b = 0; b < sequences_.size(); ++b) active_.push_back(b);
    for (std::int64_t t = 0; t < request_.n_frames && !active_.empty();) {
      const std::int64_t known = known_from(t);
      begin(t, known);
      for (std::size_t k = 0; k < model_.layers().size(); ++k) {
        step_layer(k);
        if (watch.after(work_)) return false;
      }
      draw(t, known);
      end(t, known);
      t += known;
    }
    for (std::size_t b = 0; b < sequences_.size(); ++b) {
      sequences_[b].state.cache = std::move(sequences_[b].cache);
      states_[to_size(first_) + b] = std::move(sequences_[b].state);
    }
    return true;
  }

 private:
  struct Sequence {
    AttentionState state;
    std::shared_ptr<AttentionCache> cache;
    std::vector<float> places;  // heads' biases for the memory's tokens, as seen from `places_from`
    std::int64_t places_from = -1;
  };
  struct Token {  // the one that a row goes in with, and where it stands
    Sequence* sequence;
    std::int64_t frame, place;
  };

  std::size_t index(std::size_t b, std::int64_t t) const {
    return (to_size(first_) + b) * to_size(request_.n_frames) + to_size(t);
  }
  std::int32_t forced(std::size_t b, std::int64_t t) const {
    return request_.forced != nullptr ? request_.forced[index(b, t)] : -1;
  }

  // How many tokens from t on can go through the layers together: the last of them is drawn, or known as well.
  std::int64_t known_from(std::int64_t t) const {
    const std::int64_t most = std::min(request_.n_frames - t, std::max<std::int64_t>(1, kRows / size_of(active_)));
    std::int64_t n = 1;
    const auto known = [&](std::size_t b) {
      const std::int32_t token = forced(b, t + n - 1);
      return token >= 0 && token != request_.stop_token;
    };
    while (n < most && std::all_of(active_.begin(), active_.end(), known)) ++n;
    return n;
  }
  static std::int64_t size_of(const std::vector<std::size_t>& v) { return static_cast<std::int64_t>(v.size()); }

  void begin(std::int64_t t, std::int64_t n) {
    std::size_t row = 0;
    work_ = 0;
    for (const std::size_t b : active_) {
      Sequence& s = sequences_[b];
      std::int64_t place = s.state.place;
      for (std::int64_t j = 0; j < n; ++j, ++row) {
        const std::int32_t token = j == 0 ? s.state.last : forced(b, t + j - 1);
        if (j > 0) place += advance(token);
        tokens_[row] = {&s, s.state.frame + j, place};
        rows_.begin(row, model_.embedding().row(token < 0 ? spec_.vocab_size : token));
        work_ += 2 * to_size(spec_.width) * to_size(std::min<std::int64_t>(s.state.frame + j + 1, spec_.context));
      }
    }
    n_rows_ = row;
    work_ += n_rows_ * model_.macs_per_token() / model_.layers().size();
  }

  std::int64_t advance(std::int32_t token) const { return spec_.advances.empty() ? 0 : spec_.advances[to_size(token)]; }

  void step_layer(std::size_t k) {
    const AttentionModel::Layer& layer = model_.layers()[k];
    const std::int64_t context = spec_.context;
    rows_.ask(layer, n_rows_);
    for (std::size_t row = 0; row < n_rows_; ++row) {
      const Token& token = tokens_[row];
      AttentionCache& cache = *token.sequence->cache;
      const std::int64_t slot = token.frame % context;
      remember(model_, cache, k, static_cast<int>(slot), rows_.key(row), rows_.value(row));
      const int count = static_cast<int>(std::min(token.frame + 1, context));
      // The bias of slot s lies at s - slot, modulo the context.
      rows_.attend(row, view_of(model_, cache, k, count), layer.bias + (context - slot) % context, layer.bias_pitch);
    }
    rows_.answer(layer.attended, n_rows_);
    if (spec_.memory.context > 0) consult_memory(layer, k);
    rows_.think(layer, n_rows_);
  }

  void consult_memory(const AttentionModel::Layer& layer, std::size_t k) {
    rows_.ask_memory(layer, n_rows_);
    for (std::size_t row = 0; row < n_rows_; ++row) {
      Sequence& s = *tokens_[row].sequence;
      const AttentionMemory* memory = s.state.memory.get();
      if (memory == nullptr) {
        rows_.attend(row, {nullptr, nullptr, 0, 0}, nullptr, 0);
        continue;
      }
      look_from(s, tokens_[row].place);
      rows_.attend(row, view_of(model_, memory->cache, k, memory->count), s.places.data(),
                   to_size(round_up_to_lanes(memory->count)));
    }
    rows_.answer(layer.crossed, n_rows_);
  }

  // The memory's biases by their places, as seen from this one.
  void look_from(Sequence& s, std::int64_t place) {
    if (s.places_from == place) return;
    s.places_from = place;
    const AttentionMemory& memory = *s.state.memory;
    const std::int64_t reach = spec_.memory.reach;
    const std::size_t pitch = to_size(round_up_to_lanes(memory.count));
    for (int i = 0; i < memory.count; ++i) {
      const std::int64_t at = std::clamp(memory.places[to_size(i)] - place, -reach, reach) + reach;
      for (int h = 0; h < spec_.num_heads; ++h)
        s.places[to_size(h) * pitch + to_size(i)] = model_.place_bias().row(h)[at];
    }
  }

  void draw(std::int64_t t, std::int64_t n) {
    const bool all = request_.log_probs != nullptr || request_.logits != nullptr;
    drawing_.clear();
    for (std::size_t i = 0; i < active_.size(); ++i)
      for (std::int64_t j = 0; j < n; ++j)
        if (all || forced(active_[i], t + j) < 0) drawing_.push_back(i * to_size(n) + to_size(j));
    if (!drawing_.empty())
      rows_.finish(model_.norm(), model_.output(), drawing_.data(), drawing_.size(), logits_.data(), logit_pitch_);
    for (std::size_t i = 0; i < drawing_.size(); ++i)
      choose(active_[drawing_[i] / to_size(n)], t + static_cast<std::int64_t>(drawing_[i] % to_size(n)),
             logits_.data() + i * logit_pitch_);
  }

  void choose(std::size_t b, std::int64_t t, float* logits) {
    const int n = spec_.vocab_size;
    const std::size_t at = index(b, t);
    std::fill(logits + n, logits + logit_pitch_, kMinusInfinity);
    if (request_.logits) std::copy(logits, logits + n, request_.logits + at * to_size(n));
    const double log_sum = request_.log_probs ? sampler_.log_normaliser(rows_.kernels(), logits, n) : 0.0;
    std::int32_t token = forced(b, t);
    if (request_.log_probs && token >= 0) request_.log_probs[at] = static_cast<double>(logits[token]) - log_sum;
    if (token >= 0) return;
    if (request_.allowed) {
      const std::uint8_t* allowed = request_.allowed + (request_.allowed_frames == 1 ? 0 : to_size(t)) * to_size(n);
      for (int i = 0; i < n; ++i)
        if (!allowed[i]) logits[i] = kMinusInfinity;
    }
    token = sampler_.draw(rows_.kernels(), logits, n, request_.coins[at]);
    if (token < 0) throw std::invalid_argument("allowed: no token is left at frame " + std::to_string(t));
    request_.tokens[at] = token;
    if (request_.log_probs) request_.log_probs[at] = static_cast<double>(logits[token]) - log_sum;
  }

  void end(std::int64_t t, std::int64_t n) {
    std::size_t kept = 0;
    for (const std::size_t b : active_) {
      AttentionState& state = sequences_[b].state;
      for (std::int64_t j = 0; j < n; ++j) {
        const std::int32_t known = forced(b, t + j);
        if (known >= 0) request_.tokens[index(b, t + j)] = known;
        state.last = request_.tokens[index(b, t + j)];
        state.place += advance(state.last);
      }
      state.frame += n;
      request_.lengths[to_size(first_) + b] = t + n;
      if (state.last != request_.stop_token) active_[kept++] = b;
    }
    active_.resize(kept);
  }

  const AttentionModel& model_;
  const AttentionSpec& spec_;
  const AttentionRequest& request_;
  std::vector<AttentionState>& states_;
  std::int64_t first_;
  std::size_t most_rows_;
  Rows rows_;
  Sampler sampler_;
  std::size_t logit_pitch_;
  std::vector<float> logits_;
  std::vector<Sequence> sequences_;
  std::vector<std::size_t> active_, drawing_;
  std::vector<Token> tokens_;
  std::size_t n_rows_ = 0, work_ = 0;
};

}  // namespace

std::size_t cache_bytes(const AttentionModel& model, int capacity) {
  const AttentionSpec& spec = model.spec();
  return checked_product(2 * to_size(spec.num_layers), to_size(spec.width), to_size(capacity), model.value_bytes());
}

std::shared_ptr<const AttentionMemory> attention_memory(const AttentionModel& model, const std::int32_t* tokens,
                                                        int count, Isa isa, Interrupt& interrupt) {
  const AttentionSpec& spec = model.spec();
  const std::size_t n = to_size(count);
  auto memory = std::make_shared<AttentionMemory>();
  memory->count = count;
  memory->cache = cache_of(model, round_up_to_lanes(count));
  std::int64_t place = 0;
  for (std::size_t i = 0; i < n; ++i) {
    memory->places.push_back(place);
    if (!spec.memory.advances.empty()) place += spec.memory.advances[to_size(tokens[i])];
  }

  std::atomic<bool> stopped{false};
  Watch watch(&interrupt, stopped);
  Rows rows(model, n, isa);
  AttentionCache seen = cache_of(model, round_up_to_lanes(count));  // by the encoder's own layers, one after the other
  for (std::size_t i = 0; i < n; ++i) rows.begin(i, model.memory_embedding().row(tokens[i]));
  for (const AttentionModel::Layer& layer : model.memory_layers()) {
    rows.ask(layer, n);
    for (std::size_t i = 0; i < n; ++i) remember(model, seen, 0, static_cast<int>(i), rows.key(i), rows.value(i));
    const AttentionView view = view_of(model, seen, 0, count);
    for (std::size_t i = 0; i < n; ++i)
      rows.attend(i, view, layer.bias + to_size(spec.memory.context - 1) - i, layer.bias_pitch);
    rows.answer(layer.attended, n);
    rows.think(layer, n);
    if (watch.after(n * to_size(spec.width) * (4 * to_size(spec.width) + 3 * to_size(spec.mlp_size) + 2 * n)))
      return nullptr;
  }
  rows.finish(model.memory_norm(), n);
  for (std::size_t k = 0; k < model.layers().size(); ++k) {
    rows.offer(model.layers()[k], n);
    for (std::size_t i = 0; i < n; ++i)
      remember(model, memory->cache, k, static_cast<int>(i), rows.key(i), rows.value(i));
  }
  return memory;
}

bool attention_sample(const AttentionModel& model, std::vector<AttentionState>& states, const AttentionRequest& request,
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
