// The fused sampling loop of recurrent models: features of the past, a trunk of recurrent layers that steps once a
// frame, and a head for every slot of the frame. musicgen_ext.architectures.RecurrentConfig says what each part means.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/arena.h"
#include "base/interrupt.h"
#include "generate/kernels.h"
#include "generate/packing.h"
#include "generate/sampler.h"

namespace musicgen::generate {

enum class FeatureKind {
  token,
  sounding,
  held,
  clock,
  match,
  match_length,
  interval,
  given,
  chosen,
  chosen_sounding,
  difference,
  degree,
  parallel
};

struct Feature {
  FeatureKind kind = FeatureKind::token;
  int slot = 0, lag = 1;
  std::vector<std::int64_t> buckets;
  int period = 1, divide = 1;
  int other_slot = 0, limit = 0;
  int first = 0, second = 0, third = 0;  // difference, degree, parallel: indices of features
  int offset = 0;                        // degree: the pitch class of the slot's first pitch
  int size = 0;                          // number of ids
  int given = 0;                         // which column of the given features
};

struct Relative {
  int feature = 0, radius = 0;
};

struct Periodic {
  int feature = 0, offset = 0;
};

constexpr int kPitchClasses = 12;

struct Slot {
  std::string name;
  int size = 0;
  int first_pitch = -1, hold = -1;  // -1: none
  int hidden_size = 0;
  std::vector<int> inputs;  // indices of features, as below
  std::vector<Relative> relative;
  std::vector<int> copies;
  std::vector<Periodic> periodic;
  std::string output_weight;  // the tensor whose first rows are the output matrix
  int output_rows() const;
};

struct RecurrentSpec {
  Cell cell = Cell::lstm;
  int hidden_size = 0, num_layers = 0;
  bool concat = true;
  std::vector<Feature> features;
  std::vector<std::string> feature_names;
  std::vector<int> trunk;               // indices of features
  std::vector<int> trunk_dims;          // widths of their embeddings
  int vector_size = 0, vector_dim = 0;  // a dim of 0: the vector does not enter the trunk's input
  bool vector_initial = false;          // whether it makes the states before the first frame
  int match_window = 1024;
  std::vector<Slot> slots;
  int num_given = 0;
  bool heads = true;  // without them nothing can be drawn: all tokens are forced, and their probabilities not asked for
};

// Immutable once built; any number of threads may sample from one model.
class RecurrentModel {
 public:
  // The tensors are copied (packed); those of products with the state are stored with `precision`. Their names and
  // shapes have been checked by the caller; std::invalid_argument where one is missing all the same.
  RecurrentModel(RecurrentSpec spec, const Tensors& tensors, Precision precision);

  const RecurrentSpec& spec() const { return spec_; }
  Precision precision() const { return precision_; }
  std::size_t packed_bytes() const { return arena_.size(); }
  std::size_t macs_per_frame() const { return macs_per_frame_; }

  struct Table {  // one row of packed sums for every id of a feature
    const float* rows = nullptr;
    std::size_t pitch = 0;
    const float* row(int id) const { return rows + static_cast<std::size_t>(id) * pitch; }
  };
  struct Head {
    Matrix hidden, output;
    const float* hidden_bias = nullptr;
    const float* output_bias = nullptr;
    std::vector<Table> inputs;
  };

  int units() const { return units_; }          // hidden_size, padded
  int gate_rows() const { return gate_rows_; }  // of one layer, packed
  int most_rows() const { return most_rows_; }  // of any head's hidden or output product, padded
  int most_tokens() const { return most_tokens_; }
  const std::vector<Layer>& layers() const { return layers_; }
  const std::vector<Table>& trunk() const { return trunk_; }
  const std::vector<Head>& heads() const { return heads_; }
  const float* base() const { return base_; }  // first layer's biases, where no table holds them
  const Matrix& vector_projection() const { return vector_projection_; }
  const Matrix& vector_input() const { return vector_input_; }
  const Matrix& initial() const { return initial_; }  // of all states: h of every layer, then c of every layer
  const float* initial_bias() const { return initial_bias_; }
  const std::vector<std::size_t>& combined() const { return combined_; }
  bool needs_match() const { return needs_match_; }
  int history() const { return history_; }  // frames kept, a power of two

 private:
  class Packer;

  RecurrentSpec spec_;
  Precision precision_;
  Arena arena_;
  std::vector<Layer> layers_;
  std::vector<Table> trunk_;
  std::vector<Head> heads_;
  std::vector<std::size_t> combined_;  // indices of the features made of others
  const float* base_ = nullptr;
  Matrix vector_projection_, vector_input_, initial_;
  const float* initial_bias_ = nullptr;
  int units_ = 0, gate_rows_ = 0, most_rows_ = 0, most_tokens_ = 0, history_ = 2;
  bool needs_match_ = false;
  std::size_t macs_per_frame_ = 0;
};

// Everything a sequence remembers between frames. A value: copy it to branch, keep it to go on later.
struct SequenceState {
  std::vector<float> h, c;                     // (num_layers, units)
  std::int64_t frame = 0;                      // frames so far
  std::vector<std::int32_t> tokens, sounding;  // rings of (history, slots)
  std::vector<std::int64_t> last_onset;        // (slots)
  std::vector<std::uint64_t> hashes;           // ring of (history), of whole frames
  std::vector<std::int32_t> match;             // ring of (history): lengths of common suffixes
};

SequenceState start_of(const RecurrentModel& model);

// One call: B sequences, n frames. Row-major arrays; null where optional.
struct Request {
  std::int64_t n_frames = 0;
  const double* coins = nullptr;          // (B, n, slots) in [0, 1)
  const std::int32_t* forced = nullptr;   // (B, n, slots), -1: free; optional
  const std::int32_t* given = nullptr;    // (B, n, num_given)
  const float* vector = nullptr;          // (B, vector_size)
  const std::uint8_t* allowed = nullptr;  // (allowed_frames, slots, most_tokens); optional
  std::int64_t allowed_frames = 0;        // 1 or n
  int stop_slot = -1, stop_token = -1;    // a sequence ends with the frame in which this token is drawn
  SamplerOptions options;
  std::int32_t* tokens = nullptr;   // out (B, n, slots), -1 behind the end
  std::int64_t* lengths = nullptr;  // out (B)
  double* log_probs = nullptr;      // out (B, n, slots); optional
  float* logits = nullptr;          // out (B, n, slots, most_tokens); optional
};

// Runs the request on `threads` threads and advances the states. False if it was interrupted. Throws
// std::invalid_argument where no token is allowed.
bool recurrent_sample(const RecurrentModel& model, std::vector<SequenceState>& states, const Request& request,
                      int threads, Isa isa, Interrupt& interrupt);

}  // namespace musicgen::generate
