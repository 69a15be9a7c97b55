// Recurrent generators of numbers: LSTM layers that hear noise and what they said last (musicgen_ext.architectures.
// CRnnGanConfig, after Mogren's C-RNN-GAN).
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/arena.h"
#include "generate/kernels.h"
#include "generate/packing.h"

namespace musicgen::generate {

struct TupleSpec {
  int noise = 0, hidden_size = 0, num_layers = 0, outputs = 0;
};

// Immutable once built; any number of threads may run one model.
class TupleModel {
 public:
  // The tensors are copied (packed). std::invalid_argument where one is missing or has another size.
  TupleModel(const TupleSpec& spec, const Tensors& tensors, Precision precision);

  const TupleSpec& spec() const { return spec_; }
  Precision precision() const { return precision_; }
  std::size_t packed_bytes() const { return arena_.size(); }
  const std::vector<Layer>& layers() const { return layers_; }
  const Matrix& output() const { return output_; }
  const float* output_bias() const { return output_bias_; }
  std::size_t macs_per_step() const { return macs_; }

 private:
  class Packer;

  TupleSpec spec_;
  Precision precision_;
  Arena arena_;
  std::vector<Layer> layers_;
  Matrix output_;
  const float* output_bias_ = nullptr;
  std::size_t macs_ = 0;
};

// One sequence: noise (n, noise) in, numbers in (0, 1) (n, outputs) out. `state` holds what the layers remember and the
// last outputs, (num_layers, 2, hidden_size) and (outputs): zeros at the beginning, in place.
// `idle` is called every few milliseconds; it may throw.
void tuples_run(const TupleModel& model, const float* noise, std::size_t n, float* state, float* out, Isa isa,
                const std::function<void()>& idle);

}  // namespace musicgen::generate
