// The fused sampling loop of networks over piano-roll frames. musicgen_ext.architectures.FramesConfig says what each
// part means; musicgen_reference.frames computes it the plain way.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "base/arena.h"
#include "base/interrupt.h"
#include "generate/frames_kernels.h"
#include "generate/packing.h"
#include "generate/sampler.h"

namespace musicgen::generate {

constexpr int kMostKeys = 128;
constexpr int kMostBelow = 8;  // FramesConfig's MOST_BELOW
constexpr int kMostApart = 4;  // and MOST_APART

struct FramesSpec {
  int keys = 88;
  bool notes = true;  // else the keys are independent
  std::vector<int> lags;
  std::vector<int> trunk_channels;
  int match_window = 0;  // 0: there is no match
  std::vector<std::int64_t> match_buckets;
  std::vector<int> clocks;
  Cell cell = Cell::lstm;
  int hidden_size = 0, num_layers = 0;
  int filters = 0, reach = 0;

  bool has_match() const { return match_window > 0; }
  int channels() const { return static_cast<int>(lags.size()) + (has_match() ? 1 : 0); }
};

// Immutable once built; any number of threads may sample from one model.
class FramesModel {
 public:
  // The tensors are copied (packed); products with the state use them as stored. Names and shapes have been checked by
  // the caller; std::invalid_argument where one is missing all the same.
  FramesModel(FramesSpec spec, const Tensors& tensors, Precision precision);

  const FramesSpec& spec() const { return spec_; }
  Precision precision() const { return precision_; }
  std::size_t packed_bytes() const { return arena_.size(); }
  std::size_t macs_per_frame() const { return macs_per_frame_; }
  int history() const { return history_; }  // frames kept, a power of two

  int units() const { return units_; }          // hidden_size, padded
  int gate_rows() const { return gate_rows_; }  // of one layer, packed
  int width() const { return width_; }          // filters, padded
  const std::vector<Layer>& layers() const { return layers_; }
  // What input `column` of the trunk adds to the first layer's sums.
  const float* input(int column) const { return inputs_ + to_size(column) * to_size(gate_rows_); }
  const Matrix& key() const { return key_; }
  const float* key_bias() const { return key_bias_; }
  const Matrix& condition() const { return condition_; }
  const float* no_bias() const { return no_bias_; }
  const float* position(int key) const { return position_ + to_size(key) * to_size(width_); }
  // What a note of a channel adds to the keys from `reach` below it to `reach` above.
  const float* local(int channel) const {
    return local_ + to_size(channel) * to_size(2 * spec_.reach + 1) * to_size(width_);
  }
  // What a note of the new frame adds to the `reach` keys above it.
  const float* written() const { return written_; }
  const float* ranks() const { return ranks_; }
  const float* output() const { return output_; }

 private:
  class Packer;

  FramesSpec spec_;
  Precision precision_;
  Arena arena_;
  std::vector<Layer> layers_;
  Matrix key_, condition_;
  const float *inputs_ = nullptr, *key_bias_ = nullptr, *no_bias_ = nullptr, *position_ = nullptr, *local_ = nullptr,
              *written_ = nullptr, *ranks_ = nullptr, *output_ = nullptr;
  int units_ = 0, gate_rows_ = 0, width_ = 0, history_ = 2;
  std::size_t macs_per_frame_ = 0;
};

using KeyBits = std::array<std::uint64_t, 2>;

// Everything a sequence remembers between frames. A value: copy it to branch, keep it to go on later.
struct FramesState {
  std::vector<float> h, c;          // (num_layers, units)
  std::int64_t frame = 0;           // frames so far
  std::vector<std::uint64_t> bits;  // ring of (history, 2)
  std::vector<std::int32_t> match;  // ring of (history): lengths of common suffixes
};

FramesState start_of(const FramesModel& model);

// One call: B sequences, n frames. Row-major arrays; null where optional.
struct FramesRequest {
  std::int64_t n_frames = 0;
  const double* coins = nullptr;        // (B, n, keys) in [0, 1): of the keys, or of the notes one by one
  const std::int8_t* forced = nullptr;  // (B, n, keys), -1: free; optional
  SamplerOptions options;
  std::uint8_t* frames = nullptr;  // out (B, n, keys)
  double* log_probs = nullptr;     // out (B, n); optional
  float* logits = nullptr;         // out (B, n, keys), each given the keys below; optional
};

// Runs the request on `threads` threads and advances the states. False if it was interrupted.
bool frames_sample(const FramesModel& model, std::vector<FramesState>& states, const FramesRequest& request,
                   int threads, Isa isa, Interrupt& interrupt);

}  // namespace musicgen::generate
