// A mixture of logistic distributions over the 65,536 values of a 16-bit sample.
#pragma once

namespace musicgen::generate::logistics {

constexpr int kClasses = 65536;

// The sample in [-1, 1] that a token stands for.
inline double value_of(int token) { return (token - 32767.5) / 32767.5; }

// A row of logits: mixture logits, means, log scales, `mixtures` of each.
// Natural logarithm of the probability of a token: the mass between the midpoints to its neighbours, and everything
// beyond for the first and the last one.
double log_prob(const float* row, int mixtures, int token);

// The token of component m at the coin in [0, 1); the component's scale is multiplied by `temperature`.
int draw(const float* row, int mixtures, int m, double temperature, double coin);

}  // namespace musicgen::generate::logistics
