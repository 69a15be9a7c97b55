#include "generate/recurrent.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "base/checked.h"
#include "base/parallel.h"
#include "generate/history.h"

namespace musicgen::generate {

namespace {

constexpr std::size_t kLine = 64;

inline void prefetch(const void* p) {
#if defined(__GNUC__)
  __builtin_prefetch(p);
#else
  (void)p;
#endif
}

// One thread's share of a request: the sequences [first, first + count). All memory is taken in the constructor.
class Worker {
 public:
  Worker(const RecurrentModel& model, std::vector<SequenceState>& states, const Request& request, std::int64_t first,
         std::int64_t count, const Kernels& kernels)
      : model_(model),
        spec_(model.spec()),
        request_(request),
        kernels_(kernels),
        states_(states),
        first_(first),
        sampler_(request.options, model.most_tokens()),
        n_slots_(spec_.slots.size()),
        n_layers_(to_size(spec_.num_layers)),
        units_(to_size(model.units())),
        int8_(model.precision() == Precision::int8) {
    const std::size_t n = to_size(count), gate_rows = to_size(model.gate_rows()),
                      most_rows = to_size(model.most_rows());
    const std::size_t per_sequence = 3 * n_layers_ * units_ + 2 * gate_rows + 2 * most_rows;  // floats
    const std::size_t per_sequence_bytes = 2 * n_layers_ * units_ + 2 * most_rows;
    floats_ = Arena(checked_product(n, per_sequence, sizeof(float)) + kGroupScratch * sizeof(float) +
                    checked_product(n, per_sequence_bytes) + 4096);
    auto* p = reinterpret_cast<float*>(floats_.data());
    const auto take = [&p](std::size_t count_of) {
      float* at = p;
      p += count_of;
      return at;
    };
    scratch_ = take(kGroupScratch);
    sequences_.resize(n);
    for (std::size_t b = 0; b < n; ++b) {
      Sequence& s = sequences_[b];
      s.history = History(model, states[to_size(first) + b]);
      s.ids.assign(spec_.features.size(), 0);
      s.layers.resize(n_layers_);
      for (LayerMemory& m : s.layers) {
        m.h[0] = take(units_);
        m.h[1] = take(units_);
        m.c = take(units_);
      }
      s.start = take(gate_rows);
      s.vector = take(gate_rows);
      s.u = take(most_rows);
      s.z = take(most_rows);
    }
    auto* q = reinterpret_cast<unsigned char*>(p);
    for (Sequence& s : sequences_) {
      for (LayerMemory& m : s.layers) {
        m.q[0] = q;
        m.q[1] = q + units_;
        q += 2 * units_;
      }
      s.u_bytes = q;
      q += most_rows;
    }
    layer_rows_.resize(n);
    dense_rows_.resize(n);
    active_.reserve(n);
    drawing_.reserve(n);
    begin_states();
    load_states();
    project_vectors();
  }

  // False if it was stopped.
  bool run(Watch& watch) {
    active_.clear();
    for (std::size_t b = 0; b < sequences_.size(); ++b) active_.push_back(b);
    for (std::int64_t t = 0; t < request_.n_frames && !active_.empty(); ++t) {
      for (const std::size_t b : active_) begin_frame(b, t);
      for (std::size_t k = 0; k < n_layers_; ++k) {
        step_layer(k);
        if (watch.after(active_.size() * model_.macs_per_frame() / n_layers_)) return false;
      }
      for (std::size_t s = 0; s < n_slots_; ++s) draw_slot(s, t);
      end_frame(t);
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
    History history;
    std::vector<int> ids;
    std::vector<LayerMemory> layers;
    const float* start_row = nullptr;
    float* start = nullptr;
    float* vector = nullptr;
    float* u = nullptr;
    float* z = nullptr;
    unsigned char* u_bytes = nullptr;
  };

  static constexpr std::size_t kGroupScratch = 48 * kScratchFloats;

  std::size_t index(std::size_t b, std::int64_t t, std::size_t s) const {
    return ((to_size(first_) + b) * to_size(request_.n_frames) + to_size(t)) * n_slots_ + s;
  }

  Input input_of(const LayerMemory& m) const {
    if (int8_) return {m.q[m.now], m.scale[m.now]};
    return {reinterpret_cast<const unsigned char*>(m.h[m.now]), 1.0f};
  }

  // Before the first frame, the states that the condition vectors make.
  void begin_states() {
    if (!spec_.vector_initial) return;
    std::vector<float> raw(to_size(padded(spec_.vector_size)), 0.0f);
    std::vector<float> made(to_size(model_.initial().vecs) * kLanes);
    for (std::size_t b = 0; b < sequences_.size(); ++b) {
      SequenceState& state = states_[to_size(first_) + b];
      if (state.frame > 0) continue;
      const float* v = vector_of(b);
      std::copy(v, v + spec_.vector_size, raw.begin());
      const DenseRow row = {
          model_.initial_bias(), {reinterpret_cast<const unsigned char*>(raw.data()), 1.0f}, made.data()};
      kernels_.dense(model_.initial(), &row, 1);
      kernels_.tanh(made.data(), nullptr, static_cast<int>(made.size()));
      const auto h_end = made.begin() + static_cast<std::ptrdiff_t>(state.h.size());
      std::copy(made.begin(), h_end, state.h.begin());
      std::copy(h_end, made.end(), state.c.begin());
    }
  }

  const float* vector_of(std::size_t b) const {
    return request_.vector + (to_size(first_) + b) * to_size(spec_.vector_size);
  }

  void load_states() {
    for (std::size_t b = 0; b < sequences_.size(); ++b) {
      const SequenceState& state = states_[to_size(first_) + b];
      for (std::size_t k = 0; k < n_layers_; ++k) {
        LayerMemory& m = sequences_[b].layers[k];
        m.now = 0;
        std::memcpy(m.h[0], state.h.data() + k * units_, units_ * sizeof(float));
        if (!state.c.empty()) std::memcpy(m.c, state.c.data() + k * units_, units_ * sizeof(float));
        if (int8_) requantise(m);
      }
    }
  }

  // The bytes that the last step of the previous call stored, from the floats that it left.
  void requantise(LayerMemory& m) {
    const int n = static_cast<int>(units_);
    float largest = 1.0f;
    if (spec_.cell == Cell::rnn_relu) largest = std::max(0.0f, *std::max_element(m.h[0], m.h[0] + units_));
    kernels_.to_bytes(m.h[0], m.q[0], n, largest > 0.0f ? 127.0f / largest : 0.0f);
    m.scale[0] = largest * kByteScale;
  }

  void store_states() {
    for (std::size_t b = 0; b < sequences_.size(); ++b) {
      SequenceState& state = states_[to_size(first_) + b];
      for (std::size_t k = 0; k < n_layers_; ++k) {
        const LayerMemory& m = sequences_[b].layers[k];
        std::memcpy(state.h.data() + k * units_, m.h[m.now], units_ * sizeof(float));
        if (!state.c.empty()) std::memcpy(state.c.data() + k * units_, m.c, units_ * sizeof(float));
      }
    }
  }

  // A condition vector is the same in every frame: its share of the first layer's sums is computed once.
  void project_vectors() {
    if (spec_.vector_dim == 0) return;
    const std::size_t in = to_size(padded(spec_.vector_size)), out = to_size(padded(spec_.vector_dim));
    std::vector<float> raw(in, 0.0f), projected(out, 0.0f), none(std::max(out, to_size(model_.gate_rows())), 0.0f);
    for (std::size_t b = 0; b < sequences_.size(); ++b) {
      const float* v = vector_of(b);
      std::copy(v, v + spec_.vector_size, raw.begin());
      const DenseRow one = {none.data(), {reinterpret_cast<const unsigned char*>(raw.data()), 1.0f}, projected.data()};
      kernels_.dense(model_.vector_projection(), &one, 1);
      const DenseRow two = {
          none.data(), {reinterpret_cast<const unsigned char*>(projected.data()), 1.0f}, sequences_[b].vector};
      kernels_.dense(model_.vector_input(), &two, 1);
    }
  }

  void begin_frame(std::size_t b, std::int64_t t) {
    Sequence& s = sequences_[b];
    const std::int32_t* given =
        request_.given + ((to_size(first_) + b) * to_size(request_.n_frames) + to_size(t)) * to_size(spec_.num_given);
    s.history.look(given, s.ids.data());
    const auto& tables = model_.trunk();
    const std::size_t rows = to_size(model_.gate_rows());
    s.start_row = tables.empty() ? model_.base() : tables[0].row(s.ids[to_size(spec_.trunk[0])]);
    if (tables.size() <= 1 && spec_.vector_dim == 0) {
      // Which row is only known now; every tile's sums start from it.
      for (std::size_t i = 0; i < rows; i += kLine / sizeof(float)) prefetch(s.start_row + i);
      return;
    }
    std::copy(s.start_row, s.start_row + rows, s.start);
    for (std::size_t i = 1; i < tables.size(); ++i) add(s.start, tables[i].row(s.ids[to_size(spec_.trunk[i])]), rows);
    if (spec_.vector_dim > 0) add(s.start, s.vector, rows);
    s.start_row = s.start;
  }

  static void add(float* sum, const float* row, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) sum[i] += row[i];
  }

  void step_layer(std::size_t k) {
    const Layer& layer = model_.layers()[k];
    for (std::size_t i = 0; i < active_.size(); ++i) {
      Sequence& s = sequences_[active_[i]];
      LayerMemory& m = s.layers[k];
      LayerRow& row = layer_rows_[i];
      const int next = 1 - m.now;
      row.start = k == 0 ? s.start_row : layer.bias;
      if (k > 0) row.x = input_of(s.layers[k - 1]);
      row.h = input_of(m);
      row.h_float = m.h[m.now];
      row.c = m.c;
      row.h_out = m.h[next];
      row.bytes_out = int8_ ? m.q[next] : nullptr;
      row.scale_out = &m.scale[next];
    }
    kernels_.layer(layer, layer_rows_.data(), static_cast<int>(active_.size()), scratch_);
    for (const std::size_t b : active_) {
      LayerMemory& m = sequences_[b].layers[k];
      m.now = 1 - m.now;
    }
  }

  void draw_slot(std::size_t slot_index, std::int64_t t) {
    const Slot& slot = spec_.slots[slot_index];
    const RecurrentModel::Head& head = model_.heads()[slot_index];
    const bool all = request_.log_probs != nullptr || request_.logits != nullptr;
    drawing_.clear();
    for (const std::size_t b : active_) {
      const std::int32_t forced = request_.forced ? request_.forced[index(b, t, slot_index)] : -1;
      if (forced >= 0) request_.tokens[index(b, t, slot_index)] = forced;
      if (forced < 0 || all) drawing_.push_back(b);
    }
    if (!drawing_.empty()) {
      const int n = static_cast<int>(drawing_.size());
      if (slot.hidden_size > 0) {
        const std::size_t width = to_size(padded(slot.hidden_size));
        for (std::size_t i = 0; i < drawing_.size(); ++i) {
          Sequence& s = sequences_[drawing_[i]];
          std::copy(head.hidden_bias, head.hidden_bias + width, s.u);
          for (std::size_t j = 0; j < head.inputs.size(); ++j)
            add(s.u, head.inputs[j].row(s.ids[to_size(slot.inputs[j])]), width);
          dense_rows_[i] = {s.u, input_of(s.layers.back()), s.u};
        }
        kernels_.dense(head.hidden, dense_rows_.data(), n);
        for (std::size_t i = 0; i < drawing_.size(); ++i) {
          Sequence& s = sequences_[drawing_[i]];
          kernels_.tanh(s.u, int8_ ? s.u_bytes : nullptr, static_cast<int>(width));
          const Input u =
              int8_ ? Input{s.u_bytes, kByteScale} : Input{reinterpret_cast<const unsigned char*>(s.u), 1.0f};
          dense_rows_[i] = {head.output_bias, u, s.z};
        }
      } else {
        for (std::size_t i = 0; i < drawing_.size(); ++i) {
          Sequence& s = sequences_[drawing_[i]];
          dense_rows_[i] = {head.output_bias, input_of(s.layers.back()), s.z};
        }
      }
      kernels_.dense(head.output, dense_rows_.data(), n);
      for (const std::size_t b : drawing_) choose(b, slot_index, t);
    }
    for (const std::size_t b : active_) tell_later_heads(b, slot_index, request_.tokens[index(b, t, slot_index)]);
  }

  void choose(std::size_t b, std::size_t slot_index, std::int64_t t) {
    const Slot& slot = spec_.slots[slot_index];
    Sequence& s = sequences_[b];
    const std::size_t at = index(b, t, slot_index);
    float* logits = s.z;
    add_references(spec_, slot, s.ids.data(), logits);
    for (int i = slot.size; i < padded(slot.size); ++i) logits[i] = kMinusInfinity;

    const std::size_t most = to_size(model_.most_tokens());
    if (request_.logits) {
      float* out = request_.logits + at * most;
      std::copy(logits, logits + slot.size, out);
      std::fill(out + slot.size, out + most, kMinusInfinity);
    }
    const std::int32_t forced = request_.forced ? request_.forced[at] : -1;
    const double log_sum = request_.log_probs ? sampler_.log_normaliser(kernels_, logits, slot.size) : 0.0;
    if (forced >= 0) {
      if (request_.log_probs) request_.log_probs[at] = static_cast<double>(logits[forced]) - log_sum;
      return;
    }
    if (request_.allowed) {
      const std::size_t frame = request_.allowed_frames == 1 ? 0 : to_size(t);
      const std::uint8_t* allowed = request_.allowed + (frame * n_slots_ + slot_index) * most;
      for (int i = 0; i < slot.size; ++i)
        if (!allowed[i]) logits[i] = kMinusInfinity;
    }
    const int token = sampler_.draw(kernels_, logits, slot.size, request_.coins[at]);
    if (token < 0)
      throw std::invalid_argument("allowed: no token is left for slot '" + slot.name + "' at frame " +
                                  std::to_string(t));
    request_.tokens[at] = token;
    if (request_.log_probs) request_.log_probs[at] = static_cast<double>(logits[token]) - log_sum;
  }

  static void add_references(const RecurrentSpec& spec, const Slot& slot, const int* ids, float* z) {
    const float* rows = z + slot.size;
    for (const Relative& r : slot.relative) {
      const int ref = ids[r.feature];
      if (ref >= slot.first_pitch && ref < slot.size) {
        const int low = std::max(slot.first_pitch, ref - r.radius), high = std::min(slot.size - 1, ref + r.radius);
        for (int i = low; i <= high; ++i) z[i] += rows[i - ref + r.radius];
      }
      rows += 2 * r.radius + 1;
    }
    for (const int f : slot.copies) {
      if (ids[f] < slot.size) z[ids[f]] += *rows;
      ++rows;
    }
    for (const Periodic& r : slot.periodic) {
      const Feature& f = spec.features[to_size(r.feature)];
      int ref = ids[r.feature];
      bool known = ref < kPitchClasses;
      if (f.kind != FeatureKind::given) {
        const Slot& other = spec.slots[to_size(f.slot)];
        const int first = std::max(other.first_pitch, 0);
        known = ref >= first && ref < other.size;
        ref -= first;
      }
      for (int i = slot.first_pitch; i < slot.size && known; ++i) {
        const int column = (i - slot.first_pitch + r.offset - ref) % kPitchClasses;
        z[i] += rows[column < 0 ? column + kPitchClasses : column];
      }
      rows += kPitchClasses;
    }
  }

  void tell_later_heads(std::size_t b, std::size_t slot_index, int token) {
    Sequence& s = sequences_[b];
    for (std::size_t i = 0; i < spec_.features.size(); ++i) {
      const Feature& f = spec_.features[i];
      if (to_size(f.slot) != slot_index) continue;
      if (f.kind == FeatureKind::chosen) s.ids[i] = token;
      if (f.kind == FeatureKind::chosen_sounding) s.ids[i] = s.history.sounding_with(f.slot, token);
    }
    s.history.compare(s.ids.data());
  }

  void end_frame(std::int64_t t) {
    std::size_t kept = 0;
    for (const std::size_t b : active_) {
      const std::int32_t* frame = request_.tokens + index(b, t, 0);
      sequences_[b].history.advance(frame);
      request_.lengths[to_size(first_) + b] = t + 1;
      const bool ends = request_.stop_slot >= 0 && frame[request_.stop_slot] == request_.stop_token;
      if (!ends) active_[kept++] = b;
    }
    active_.resize(kept);
  }

  const RecurrentModel& model_;
  const RecurrentSpec& spec_;
  const Request& request_;
  const Kernels& kernels_;
  std::vector<SequenceState>& states_;
  std::int64_t first_;
  Sampler sampler_;
  std::size_t n_slots_, n_layers_, units_;
  bool int8_;
  Arena floats_;
  float* scratch_ = nullptr;
  std::vector<Sequence> sequences_;
  std::vector<LayerRow> layer_rows_;
  std::vector<DenseRow> dense_rows_;
  std::vector<std::size_t> active_, drawing_;
};

}  // namespace

bool recurrent_sample(const RecurrentModel& model, std::vector<SequenceState>& states, const Request& request,
                      int threads, Isa isa, Interrupt& interrupt) {
  const auto batch = static_cast<std::int64_t>(states.size());
  const std::int64_t parts = std::max<std::int64_t>(1, std::min<std::int64_t>(threads, batch));
  const Kernels& kernels = kernels_for(isa);
  std::atomic<bool> stopped{false};
  const auto share = [&](int part) {
    const std::int64_t first = batch * part / parts, last = batch * (part + 1) / parts;
    Worker worker(model, states, request, first, last - first, kernels);
    Watch watch(part == 0 ? &interrupt : nullptr, stopped);
    worker.run(watch);
  };
  parallel(static_cast<int>(parts), share, [&] {
    if (interrupt.requested()) stopped = true;
  });
  return !stopped;
}

}  // namespace musicgen::generate
