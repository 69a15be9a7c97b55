// The encoder of variational autoencoders: from a window of frames to mean and log-variance of its latent vector. The
// decoder is a RecurrentModel with a condition vector. musicgen_ext.architectures.VariationalConfig says what is what.
#pragma once

#include <cstdint>

#include "base/arena.h"
#include "base/interrupt.h"
#include "generate/kernels.h"
#include "generate/packing.h"
#include "generate/recurrent.h"

namespace musicgen::generate {

// Immutable once built; any number of threads may encode with one.
class VariationalEncoder {
 public:
  // `spec` is that of one direction, whose heads are not used. The tensors are those of the model file; names and
  // shapes have been checked by the caller.
  VariationalEncoder(const RecurrentSpec& spec, int latent_size, const Tensors& tensors, Precision precision);

  const RecurrentSpec& spec() const { return forwards_.spec(); }
  int latent_size() const { return latent_size_; }
  std::size_t packed_bytes() const { return arena_.size() + forwards_.packed_bytes() + backwards_.packed_bytes(); }

  // tokens (batch, frames, slots), all inside their slots -> mean, log_variance (batch, latent_size). False if it was
  // interrupted.
  bool encode(const std::int32_t* tokens, std::int64_t batch, std::int64_t frames, float* mean, float* log_variance,
              int threads, Isa isa, Interrupt& interrupt) const;

 private:
  class Packer;
  struct Dense {
    Matrix matrix;
    const float* bias = nullptr;
  };

  bool encode_some(const std::int32_t* tokens, std::int64_t batch, std::int64_t frames, float* mean,
                   float* log_variance, int threads, Isa isa, Interrupt& interrupt) const;
  bool read(const RecurrentModel& model, bool backwards, const std::int32_t* tokens, std::int64_t batch,
            std::int64_t frames, float* last, int threads, Isa isa, Interrupt& interrupt) const;

  RecurrentModel forwards_, backwards_;
  int latent_size_;
  Arena arena_;
  Dense mean_, log_variance_;
};

}  // namespace musicgen::generate
