// The sampling loop of WaveNets: gated dilated causal convolutions over queues of their past inputs, one sample a step
// (van den Oord et al. 2016; queues: Le Paine et al. 2016).
#pragma once

#include <cstdint>
#include <vector>

#include "base/arena.h"
#include "base/interrupt.h"
#include "generate/kernels.h"
#include "generate/packing.h"
#include "generate/sampler.h"
#include "generate/wavenet_kernels.h"

namespace musicgen::generate {

struct WaveNetSpec {
  int residual_channels = 0, skip_channels = 0, hidden_channels = 0;
  int kernel_size = 2;
  std::vector<int> dilations;  // one layer each
  int classes = 0;             // of mu-law; 0: a mixture of logistics
  int mixtures = 0;
  int condition_channels = 0, condition_width = 0, condition_kernel_size = 1;  // 0 channels: none
  int hop_length = 1;                                                          // samples a frame of the condition

  int rows() const { return classes > 0 ? classes : 3 * mixtures; }  // of logits
  int coins() const { return classes > 0 ? 1 : 2; }                  // a sample
};

// Immutable once built; any number of threads may sample from one model.
class WaveNetModel {
 public:
  // The tensors are copied (packed); those of products in a step are stored with `precision`. Their names and shapes
  // have been checked by the caller; std::invalid_argument where one is missing all the same.
  WaveNetModel(WaveNetSpec spec, const Tensors& tensors, Precision precision);

  const WaveNetSpec& spec() const { return spec_; }
  Precision precision() const { return precision_; }
  std::size_t packed_bytes() const { return arena_.size(); }
  std::size_t macs_per_sample() const { return macs_; }
  std::int64_t receptive_field() const;  // samples that a sample depends on

  int channels() const { return channels_; }  // residual_channels, padded
  std::size_t ring_rows() const { return ring_rows_; }
  const std::vector<WaveNetLayer>& layers() const { return layers_; }
  const Matrix& skip() const { return skip_; }
  const Matrix& hidden() const { return hidden_; }
  const Matrix& logits() const { return logits_; }
  const Matrix& condition_conv() const { return conv_; }
  const float* skip_bias() const { return skip_bias_; }
  const float* hidden_bias() const { return hidden_bias_; }
  const float* logits_bias() const { return logits_bias_; }
  const float* conv_bias() const { return conv_bias_; }
  const float* input_table() const { return input_table_; }  // a row of channels() for every class; or weights
  const float* input_bias() const { return input_bias_; }    // logistics only

 private:
  class Packer;

  WaveNetSpec spec_;
  Precision precision_;
  Arena arena_;
  std::vector<WaveNetLayer> layers_;
  Matrix skip_, hidden_, logits_, conv_;
  const float* skip_bias_ = nullptr;
  const float* hidden_bias_ = nullptr;
  const float* logits_bias_ = nullptr;
  const float* conv_bias_ = nullptr;
  const float* input_table_ = nullptr;
  const float* input_bias_ = nullptr;
  int channels_ = 0;
  std::size_t ring_rows_ = 0, macs_ = 0;
};

// Everything a sequence remembers between samples. A value: copy it to branch, keep it to go on later.
struct WaveNetState {
  std::vector<unsigned char> rings;  // rows of floats, or of signed bytes for int8 weights
  std::vector<float> scales;         // int8: of every row
  std::int64_t time = 0;             // samples so far
  std::int32_t last = -1;            // the last of them; -1: none
};

WaveNetState start_of(const WaveNetModel& model);

// One call: B sequences, n samples. Row-major arrays; null where optional.
struct WaveNetRequest {
  std::int64_t n_samples = 0;
  const double* coins = nullptr;         // (B, n, spec.coins()) in [0, 1)
  const std::int32_t* forced = nullptr;  // (B, n), -1: free; optional
  const float* condition = nullptr;      // (B, frames, condition_channels)
  std::int64_t frames = 0;
  std::int64_t offset = 0;  // sample of the condition's time line with which the call begins
  SamplerOptions options;
  std::int32_t* samples = nullptr;  // out (B, n)
  double* log_probs = nullptr;      // out (B, n); optional
  float* logits = nullptr;          // out (B, n, spec.rows()); optional
};

// Runs the request on `threads` threads and advances the states. False if it was interrupted.
bool wavenet_sample(const WaveNetModel& model, std::vector<WaveNetState>& states, const WaveNetRequest& request,
                    int threads, Isa isa, Interrupt& interrupt);

}  // namespace musicgen::generate
