// From logits to a token: greedy, temperature, top-k and top-p; one coin a draw, never a random generator.
#pragma once

#include <vector>

#include "generate/kernels.h"

namespace musicgen::generate {

struct SamplerOptions {
  double temperature = 1.0;  // 0: the most likely token
  int top_k = 0;             // keep the k most likely tokens; 0: all
  double top_p = 1.0;        // keep the most likely tokens whose probabilities add up to this; 1: all
};

// Buffers for vocabularies up to a size; one for each thread.
class Sampler {
 public:
  Sampler(const SamplerOptions& options, int most_tokens);

  // The token for `coin` in [0, 1). `logits` (n of them) are padded with -infinity to a multiple of 16. -1 if all of
  // them are -infinity: no token is allowed.
  int draw(const Kernels& kernels, const float* logits, int n, double coin);

  // log of the sum of exp(logits): a token's logit less this is the natural logarithm of its probability.
  double log_normaliser(const Kernels& kernels, const float* logits, int n);

 private:
  // Zero the weights of the tokens that top-k and top-p leave out.
  void filter(const Kernels& kernels, const float* logits, int n);

  SamplerOptions options_;
  float inverse_temperature_;
  std::vector<float> weights_, sums_;
  std::vector<int> order_;
};

}  // namespace musicgen::generate
