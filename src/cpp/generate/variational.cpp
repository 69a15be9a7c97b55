#include "generate/variational.h"

#include <algorithm>
#include <string>
#include <vector>

#include "base/checked.h"

namespace musicgen::generate {

namespace {

constexpr std::int64_t kTogether = 256;  // windows: their states stay in cache, and an interrupt does not wait for all

// The tensors whose names begin so, by the rest of their names.
Tensors part_of(const Tensors& tensors, const std::string& prefix) {
  Tensors part;
  for (const auto& [name, tensor] : tensors)
    if (name.compare(0, prefix.size(), prefix) == 0) part.emplace(name.substr(prefix.size()), tensor);
  return part;
}

RecurrentSpec without_heads(RecurrentSpec spec) {
  spec.heads = false;
  return spec;
}

}  // namespace

class VariationalEncoder::Packer final : public Packing {
 public:
  Packer(VariationalEncoder& encoder, const Tensors& tensors, Precision precision)
      : Packing(precision, encoder.arena_), encoder_(encoder), tensors_(tensors) {}

 private:
  void lay_out() override {
    lay_out(encoder_.mean_, "mean");
    lay_out(encoder_.log_variance_, "log_variance");
  }

  void lay_out(Dense& dense, const std::string& name) {
    const int hidden = encoder_.spec().hidden_size;
    Indices columns = plain_indices(hidden);  // the last state of either direction, each padded
    const Indices second = spaced_indices(hidden, 1, hidden);
    columns.insert(columns.end(), second.begin(), second.end());
    const Indices rows = plain_indices(encoder_.latent_size_);
    const Tensor& bias = tensor_of(tensors_, name + ".bias");
    dense.bias = row_of(rows, [&](std::int64_t r) { return bias.at(r, 0); });
    pack({{&dense.matrix, &tensor_of(tensors_, name + ".weight"), columns}}, rows,
         tiles_of(padded(encoder_.latent_size_) / kLanes, 1), Precision::float32);
  }

  VariationalEncoder& encoder_;
  const Tensors& tensors_;
};

VariationalEncoder::VariationalEncoder(const RecurrentSpec& spec, int latent_size, const Tensors& tensors,
                                       Precision precision)
    : forwards_(without_heads(spec), part_of(tensors, "encoder.forwards."), precision),
      backwards_(without_heads(spec), part_of(tensors, "encoder.backwards."), precision),
      latent_size_(latent_size) {
  Packer(*this, tensors, precision).run();
}

bool VariationalEncoder::encode(const std::int32_t* tokens, std::int64_t batch, std::int64_t frames, float* mean,
                                float* log_variance, int threads, Isa isa, Interrupt& interrupt) const {
  const std::size_t slots = spec().slots.size(), size = to_size(latent_size_);
  for (std::int64_t first = 0; first < batch; first += kTogether) {
    const std::size_t at = to_size(first);
    if (!encode_some(tokens + at * to_size(frames) * slots, std::min(kTogether, batch - first), frames,
                     mean + at * size, log_variance + at * size, threads, isa, interrupt))
      return false;
  }
  return true;
}

bool VariationalEncoder::encode_some(const std::int32_t* tokens, std::int64_t batch, std::int64_t frames, float* mean,
                                     float* log_variance, int threads, Isa isa, Interrupt& interrupt) const {
  const std::size_t count = to_size(batch), units = to_size(forwards_.units()), out = to_size(padded(latent_size_));
  std::vector<float> last(checked_product(count, 2, units)), made(checked_product(count, 2, out));
  for (const bool backwards : {false, true})
    if (!read(backwards ? backwards_ : forwards_, backwards, tokens, batch, frames, last.data(), threads, isa,
              interrupt))
      return false;
  const Kernels& kernels = kernels_for(isa);
  std::vector<DenseRow> rows(count);
  for (const Dense* dense : {&mean_, &log_variance_}) {
    for (std::size_t b = 0; b < count; ++b)
      rows[b] = {dense->bias,
                 {reinterpret_cast<const unsigned char*>(last.data() + 2 * units * b), 1.0f},
                 made.data() + out * b};
    kernels.dense(dense->matrix, rows.data(), static_cast<int>(count));
    float* to = dense == &mean_ ? mean : log_variance;
    for (std::size_t b = 0; b < count; ++b)
      std::copy(rows[b].out, rows[b].out + latent_size_, to + to_size(latent_size_) * b);
  }
  return true;
}

// The last states of one direction, into its half of `last` (batch, 2, units).
bool VariationalEncoder::read(const RecurrentModel& model, bool backwards, const std::int32_t* tokens,
                              std::int64_t batch, std::int64_t frames, float* last, int threads, Isa isa,
                              Interrupt& interrupt) const {
  // A step hears the frame before its own, the first one a start id: the last frame takes one step more, whose own
  // tokens nobody hears.
  const std::size_t slots = spec().slots.size(), n = to_size(frames), count = to_size(batch);
  std::vector<std::int32_t> forced(checked_product(count, n + 1, slots), 0), drawn(forced.size());
  for (std::size_t b = 0; b < count; ++b)
    for (std::size_t t = 0; t < n; ++t) {
      const std::int32_t* frame = tokens + (b * n + (backwards ? n - 1 - t : t)) * slots;
      std::copy(frame, frame + slots, forced.data() + (b * (n + 1) + t) * slots);
    }
  std::vector<std::int64_t> lengths(count);
  std::vector<SequenceState> states(count, start_of(model));
  Request request;
  request.n_frames = frames + 1;
  request.forced = forced.data();
  request.tokens = drawn.data();
  request.lengths = lengths.data();
  if (!recurrent_sample(model, states, request, threads, isa, interrupt)) return false;
  const std::size_t units = to_size(model.units());
  for (std::size_t b = 0; b < count; ++b)
    std::copy(states[b].h.end() - static_cast<std::ptrdiff_t>(units), states[b].h.end(),
              last + (2 * b + (backwards ? 1 : 0)) * units);
  return true;
}

}  // namespace musicgen::generate
