#include "generate/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/checked.h"

namespace musicgen::generate {

Sampler::Sampler(const SamplerOptions& options, int most_tokens)
    : options_(options),
      inverse_temperature_(
          // A temperature of 1e-40 has no inverse in float: the largest one leaves the same tokens standing.
          static_cast<float>(std::min(1.0 / std::max(options.temperature, 1e-300),
                                      static_cast<double>(std::numeric_limits<float>::max())))),
      weights_(round_up(static_cast<std::size_t>(most_tokens), kLanes)),
      sums_(weights_.size() / kLanes),
      order_(static_cast<std::size_t>(most_tokens)) {}

int Sampler::draw(const Kernels& kernels, const float* logits, int n, double coin) {
  const int lanes = padded(n);
  const bool greedy = options_.temperature == 0.0;
  if (greedy) {
    const int token = kernels.largest(logits, lanes);
    return logits[token] == -std::numeric_limits<float>::infinity() ? -1 : token;
  }
  const float top = kernels.weights_of(logits, weights_.data(), lanes, inverse_temperature_);
  if (top == -std::numeric_limits<float>::infinity()) return -1;
  if ((options_.top_k > 0 && options_.top_k < n) || options_.top_p < 1.0) filter(kernels, logits, n);
  const double total = kernels.total(weights_.data(), sums_.data(), lanes);
  return kernels.pick(weights_.data(), sums_.data(), lanes, coin * total);
}

void Sampler::filter(const Kernels& kernels, const float* logits, int n) {
  // Most likely first, ties by index: the same tokens stay on every machine.
  const auto before = [logits](int a, int b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; };
  for (int i = 0; i < n; ++i) order_[static_cast<std::size_t>(i)] = i;
  const auto begin = order_.begin();
  int kept = n;
  if (options_.top_k > 0 && options_.top_k < n) {
    kept = options_.top_k;
    std::nth_element(begin, begin + kept, begin + n, before);
    for (int i = kept; i < n; ++i) weights_[static_cast<std::size_t>(order_[static_cast<std::size_t>(i)])] = 0.0f;
  }
  if (options_.top_p < 1.0) {
    std::sort(begin, begin + kept, before);
    const int lanes = padded(n);
    const double enough = options_.top_p * kernels.total(weights_.data(), sums_.data(), lanes);
    double sum = 0.0;
    int i = 0;
    while (i < kept && sum < enough)
      sum += static_cast<double>(weights_[static_cast<std::size_t>(order_[static_cast<std::size_t>(i++)])]);
    for (; i < kept; ++i) weights_[static_cast<std::size_t>(order_[static_cast<std::size_t>(i)])] = 0.0f;
  }
}

double Sampler::log_normaliser(const Kernels& kernels, const float* logits, int n) {
  const int lanes = padded(n);
  const float top = kernels.weights_of(logits, weights_.data(), lanes, 1.0f);
  return static_cast<double>(top) + std::log(kernels.total(weights_.data(), sums_.data(), lanes));
}

}  // namespace musicgen::generate
