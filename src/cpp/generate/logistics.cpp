#include "generate/logistics.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace musicgen::generate::logistics {

namespace {

// Narrower than a hundredth of a step: a smaller scale is the same distribution.
constexpr double kLeastLogScale = -14.0;
constexpr double kMostLogScale = 80.0;  // far beyond [-1, 1], far from overflow
constexpr double kHalfStep = 1.0 / 65535.0;

// exp and log as sums and products, which round alike on every machine; libraries differ in the last bit, and a seed
// names a piece. Within 4e-16 of their value.
double exp_of(double x) {
  const double n = std::floor(x * 1.4426950408889634 + 0.5);
  const double r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
  double sum = 1.0;
  for (int k = 14; k > 0; --k) sum = 1.0 + sum * r / k;
  return std::ldexp(sum, static_cast<int>(n));
}

double log_of(double x) {
  int exponent = 0;
  double m = std::frexp(x, &exponent);
  if (m < 0.70710678118654752) {
    m *= 2.0;
    --exponent;
  }
  const double s = (m - 1.0) / (m + 1.0), square = s * s;
  double sum = 0.0;
  for (int k = 23; k > 0; k -= 2) sum = sum * square + 1.0 / k;
  return exponent * 6.93147180559945286227e-01 + 2.0 * s * sum;
}

double log_sigmoid(double x) { return x < 0.0 ? x - std::log1p(std::exp(x)) : -std::log1p(std::exp(-x)); }

// ln(sigmoid(high) - sigmoid(low)), computed where the sigmoid is near zero, so that the difference keeps its digits.
double log_mass(double low, double high) {
  if (low + high > 0.0) {
    const double flipped = -low;
    low = -high;
    high = flipped;
  }
  const double below = log_sigmoid(high);
  return below + std::log(-std::expm1(log_sigmoid(low) - below));
}

double log_scale_of(float raw) {
  const auto log_scale = static_cast<double>(raw);
  return log_scale > kLeastLogScale ? std::min(log_scale, kMostLogScale) : kLeastLogScale;
}

}  // namespace

double log_prob(const float* row, int mixtures, int token) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const double low = token == 0 ? -infinity : value_of(token) - kHalfStep;
  const double high = token == kClasses - 1 ? infinity : value_of(token) + kHalfStep;
  const double largest = static_cast<double>(*std::max_element(row, row + mixtures));
  double total = 0.0, most = -infinity;
  const auto term = [&](int m) {
    const double mean = static_cast<double>(row[mixtures + m]), scale = std::exp(log_scale_of(row[2 * mixtures + m]));
    double mass = 0.0;
    if (token == 0) {
      mass = log_sigmoid((high - mean) / scale);
    } else if (token == kClasses - 1) {
      mass = log_sigmoid((mean - low) / scale);
    } else {
      mass = log_mass((low - mean) / scale, (high - mean) / scale);
    }
    return static_cast<double>(row[m]) - largest + mass;
  };
  for (int m = 0; m < mixtures; ++m) {
    total += std::exp(static_cast<double>(row[m]) - largest);
    most = std::max(most, term(m));
  }
  if (most == -infinity) return most;
  double sum = 0.0;
  for (int m = 0; m < mixtures; ++m) sum += std::exp(term(m) - most);
  return most + std::log(sum) - std::log(total);
}

int draw(const float* row, int mixtures, int m, double temperature, double coin) {
  double x = static_cast<double>(row[mixtures + m]);
  if (temperature > 0.0 && coin <= 0.0) return 0;
  if (temperature > 0.0) x += exp_of(log_scale_of(row[2 * mixtures + m])) * temperature * log_of(coin / (1.0 - coin));
  const double nearest = std::floor((x + 1.0) * 32767.5 + 0.5);
  if (!(nearest > 0.0)) return 0;  // nor is not-a-number
  return nearest < kClasses - 1 ? static_cast<int>(nearest) : kClasses - 1;
}

}  // namespace musicgen::generate::logistics
