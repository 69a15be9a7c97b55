// The fused sampling loop of transformers: a decoder whose layers attend to the last tokens through a cache of keys and
// values, and, where the model has one, to the memory that an encoder makes of other tokens.
// musicgen_ext.architectures.AttentionConfig says what each part means.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/arena.h"
#include "base/interrupt.h"
#include "generate/attention_kernels.h"
#include "generate/packing.h"
#include "generate/sampler.h"

namespace musicgen::generate {

struct AttentionMemorySpec {
  int vocab_size = 0, num_layers = 0;
  int context = 0;            // the most tokens
  int reach = 0;              // places further away than this count as this far away
  std::vector<int> advances;  // by token: how far it moves the place
};

struct AttentionSpec {
  int vocab_size = 0, width = 0, num_layers = 0, num_heads = 0, mlp_size = 0;
  Activation activation = Activation::gelu;
  int context = 0;           // tokens that a layer sees, the newest included
  bool tied = false;         // the output's matrix is the embedding's
  std::vector<int> buckets;  // of every distance: which row of a layer's biases
  std::vector<int> advances;
  AttentionMemorySpec memory;  // context 0: none

  int head_size() const { return width / num_heads; }
  int mlp_rows() const { return activation == Activation::gated ? 2 * mlp_size : mlp_size; }
};

// Immutable once built; any number of threads may sample from one model.
class AttentionModel {
 public:
  // The tensors are copied (packed); their names and shapes have been checked by the caller. std::invalid_argument
  // where one is missing all the same.
  AttentionModel(AttentionSpec spec, const Tensors& tensors, Precision precision);

  const AttentionSpec& spec() const { return spec_; }
  Precision precision() const { return precision_; }
  std::size_t packed_bytes() const { return arena_.size(); }
  std::size_t macs_per_token() const { return macs_per_token_; }  // of all products with weights
  // Keys and values are kept as the weights are, bytes as bfloat16: a cache of bytes would need scales of its own.
  bool halves() const { return precision_ != Precision::float32; }
  std::size_t value_bytes() const { return halves() ? 2 : 4; }

  struct Product {
    Matrix matrix;
    const float* bias = nullptr;
  };
  struct Norm {
    const float* gain = nullptr;
    const float* shift = nullptr;
  };
  struct Layer {
    Norm before_attention, before_cross, before_mlp;
    Product qkv, attended, query, crossed, up, down;
    Product keys_values;  // of the memory
    // Heads' biases: of a decoder's layer by slot - time modulo the context, twice in a row; of an encoder's by
    // key - query + context - 1.
    const float* bias = nullptr;
    std::size_t bias_pitch = 0;
  };
  struct Table {  // one row for every token, the start the last
    const float* rows = nullptr;
    std::size_t pitch = 0;
    const float* row(std::int64_t id) const { return rows + static_cast<std::size_t>(id) * pitch; }
  };

  const Table& embedding() const { return embedding_; }
  const std::vector<Layer>& layers() const { return layers_; }
  const Norm& norm() const { return norm_; }
  const Product& output() const { return output_; }
  const Table& memory_embedding() const { return memory_embedding_; }
  const std::vector<Layer>& memory_layers() const { return memory_layers_; }
  const Norm& memory_norm() const { return memory_norm_; }
  const Table& place_bias() const { return place_bias_; }  // heads x (2 reach + 1)

 private:
  class Packer;

  AttentionSpec spec_;
  Precision precision_;
  Arena arena_;
  Table embedding_, memory_embedding_, place_bias_;
  std::vector<Layer> layers_, memory_layers_;
  Norm norm_, memory_norm_;
  Product output_;
  std::size_t macs_per_token_ = 0;
};

// Keys and values of `capacity` slots: layer after layer, of each its heads, of each its keys, then its values.
struct AttentionCache {
  int capacity = 0;  // a multiple of sixteen
  Arena bytes;
};

// What the decoder's layers see of a memory. Shared by all that were told the same.
struct AttentionMemory {
  int count = 0;
  std::vector<std::int64_t> places;  // of its tokens
  AttentionCache cache;
};

// Everything a sequence remembers. A value: calls never change what it points to.
struct AttentionState {
  std::int64_t frame = 0;  // tokens so far
  std::int32_t last = -1;  // the newest of them; -1: none
  std::int64_t place = 0;  // how far they have moved
  std::shared_ptr<const AttentionCache> cache;
  std::shared_ptr<const AttentionMemory> memory;
};

// Bytes of a cache of this many slots.
std::size_t cache_bytes(const AttentionModel& model, int capacity);

// One call: B sequences, n tokens. Row-major arrays; null where optional.
struct AttentionRequest {
  std::int64_t n_frames = 0;
  const double* coins = nullptr;          // (B, n) in [0, 1)
  const std::int32_t* forced = nullptr;   // (B, n), -1: free; optional
  const std::uint8_t* allowed = nullptr;  // (allowed_frames, vocab_size); optional
  std::int64_t allowed_frames = 0;        // 1 or n
  std::int32_t stop_token = -1;           // a sequence ends with this token
  SamplerOptions options;
  std::int32_t* tokens = nullptr;   // out (B, n), -1 behind the end
  std::int64_t* lengths = nullptr;  // out (B)
  double* log_probs = nullptr;      // out (B, n); optional
  float* logits = nullptr;          // out (B, n, vocab_size); optional
};

// Runs the encoder over `tokens` (count of them). Null if it was interrupted.
std::shared_ptr<const AttentionMemory> attention_memory(const AttentionModel& model, const std::int32_t* tokens,
                                                        int count, Isa isa, Interrupt& interrupt);

// Runs the request on `threads` threads and advances the states. False if it was interrupted. Throws
// std::invalid_argument where no token is allowed.
bool attention_sample(const AttentionModel& model, std::vector<AttentionState>& states, const AttentionRequest& request,
                      int threads, Isa isa, Interrupt& interrupt);

}  // namespace musicgen::generate
