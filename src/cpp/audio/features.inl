// Plain loops that a compiler turns into vectors, included once for every instruction set, after its registers. No
// function of the standard library, no fused operation, no sum whose order a compiler may choose.

inline std::uint64_t bits_of(double x) {
  std::uint64_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline double from_bits(std::uint64_t bits) {
  double x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}
inline double larger(double a, double b) { return a > b ? a : b; }
inline double smaller(double a, double b) { return a < b ? a : b; }

constexpr std::uint64_t kExponentOf2To52 = 0x4330000000000000u;
constexpr std::uint64_t kMantissa = 0x000fffffffffffffu;

// x = mantissa * 2^exponent with a mantissa in [1, 2). Normal positive numbers only.
inline double exponent_of(double x) {
  return from_bits((bits_of(x) >> 52) | kExponentOf2To52) - (4503599627370496.0 + 1023.0);
}
inline double mantissa_of(double x) { return from_bits((bits_of(x) & kMantissa) | 0x3ff0000000000000u); }

// The natural logarithm of a normal positive number, to 2e-11 of it or 1e-16 of its exponent: log(1 + t) / t is
// a polynomial (interpolated at Chebyshev's nodes) for m = 1 + t in [1/sqrt 2, sqrt 2]. No division: it would take as
// long as all of this.
inline double log_of(double x) {
  // Subtracting the bits of sqrt(1/2) moves the border of the exponent from 1 to sqrt(1/2).
  const std::uint64_t shifted = bits_of(x) - 0x3fe6a09e667f3bcdu + (std::uint64_t{1023} << 52);
  const double exponent = from_bits((shifted >> 52) | kExponentOf2To52) - (4503599627370496.0 + 1023.0);
  const double t = from_bits((shifted & kMantissa) + 0x3fe6a09e667f3bcdu) - 1;
  double series = 0.053729704424245836;
  series = series * t - 0.09908102603848357;
  series = series * t + 0.10031802754568031;
  series = series * t - 0.09921064618020903;
  series = series * t + 0.11005071539244143;
  series = series * t - 0.12497648744593083;
  series = series * t + 0.14290995817795282;
  series = series * t - 0.16666936660500947;
  series = series * t + 0.19999880755134034;
  series = series * t - 0.2499999419730542;
  series = series * t + 0.33333334338472237;
  series = series * t - 0.5000000002882445;
  series = series * t + 0.999999999985877;
  return exponent * 0.69314718055994530942 + series * t;
}

// 2^x for |x| <= 1000, to 1e-11 of it: x = n + f with |f| <= 1/2, and the series of exp(f log 2) up to the ninth power.
inline double exp2_of_one(double x) {
  constexpr double magic = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to whole numbers
  const double shifted = x + magic;
  const double f = (x - (shifted - magic)) * 0.69314718055994530942;
  double series = 1.0 / 362880;
  series = series * f + 1.0 / 40320;
  series = series * f + 1.0 / 5040;
  series = series * f + 1.0 / 720;
  series = series * f + 1.0 / 120;
  series = series * f + 1.0 / 24;
  series = series * f + 1.0 / 6;
  series = series * f + 0.5;
  series = series * f + 1.0;
  series = series * f + 1.0;
  return series * from_bits((bits_of(shifted) << 52) + 0x3ff0000000000000u);
}

// Whether a magnitude reaches `limit`, given as its bits: magnitudes lie in the order of their bits, infinity next to
// last and NaN last.
bool any_from(const float* values, std::int64_t n, std::uint32_t limit) {
  std::uint32_t seen = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    std::uint32_t bits;
    __builtin_memcpy(&bits, values + i, sizeof bits);
    seen |= (bits & 0x7fffffffu) + (0x80000000u - limit);
  }
  return (seen & 0x80000000u) != 0;
}

// -- element by element -----------------------------------------------------------------------------------------------

void to_log(const float* x, std::int64_t n, bool squared, double factor, double amin, double offset, float* out) {
  if (squared) {
    for (std::int64_t i = 0; i < n; ++i) {
      const double value = x[i];
      out[i] = static_cast<float>(factor * log_of(larger(value * value, amin)) - offset);
    }
  } else {
    for (std::int64_t i = 0; i < n; ++i) out[i] = static_cast<float>(factor * log_of(larger(x[i], amin)) - offset);
  }
}

// The largest in each of sixteen lanes; n a multiple of sixteen.
void lane_maxima(const float* x, std::int64_t n, float* top) {
  for (std::int64_t i = 0; i < n; i += 16)
    for (int j = 0; j < 16; ++j) top[j] = x[i + j] > top[j] ? x[i + j] : top[j];
}

void at_least(float* out, std::int64_t n, float floor) {
  for (std::int64_t i = 0; i < n; ++i) out[i] = out[i] > floor ? out[i] : floor;
}

// `bound` and `most` are arguments, or GCC sees constants, makes branches of them and no vectors.
void exp2_all(const float* x, std::int64_t n, double rate, double scale, double bound, float most, float* out) {
  for (std::int64_t i = 0; i < n; ++i) {
    const auto value = static_cast<float>(scale * exp2_of_one(larger(smaller(x[i] * rate, bound), -bound)));
    out[i] = value < most ? value : most;
  }
}

// sign(x) * scale * log(1 + mu |x|)
inline double compressed(double x, double mu, double scale) {
  const double magnitude = scale * log_of(1 + mu * from_bits(bits_of(x) & 0x7fffffffffffffffu));
  return from_bits(bits_of(magnitude) | (bits_of(x) & 0x8000000000000000u));
}

void mu_compress(const float* x, std::int64_t n, double mu, double scale, float* out) {
  for (std::int64_t i = 0; i < n; ++i) out[i] = static_cast<float>(compressed(x[i], mu, scale));
}

void mu_law(const float* x, std::int64_t n, double mu, double scale, std::int32_t* out) {
  const double middle = 0.5 * mu + 0.5;
  for (std::int64_t i = 0; i < n; ++i) out[i] = static_cast<std::int32_t>(middle + compressed(x[i], mu, scale));
}

// sign(x) (exp(rate |x|) - 1) / mu for rate |x| <= 710, to 1e-13 of it; half_scale is 2 / mu. With rate |x| = n log 2 +
// f, |f| <= log(2) / 2, exp(f) - 1 is its series up to the twelfth power; half of 2^n keeps within what a double holds.
void mu_expand(const double* x, std::int64_t n, double rate, double half_scale, float* out) {
  constexpr double magic = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to whole numbers
  for (std::int64_t i = 0; i < n; ++i) {
    const double exponent = rate * from_bits(bits_of(x[i]) & 0x7fffffffffffffffu);
    const double shifted = exponent * 1.4426950408889634 + magic;
    const double f = exponent - (shifted - magic) * 0.69314718055994530942;
    double series = 1.0 / 479001600;
    series = series * f + 1.0 / 39916800;
    series = series * f + 1.0 / 3628800;
    series = series * f + 1.0 / 362880;
    series = series * f + 1.0 / 40320;
    series = series * f + 1.0 / 5040;
    series = series * f + 1.0 / 720;
    series = series * f + 1.0 / 120;
    series = series * f + 1.0 / 24;
    series = series * f + 1.0 / 6;
    series = series * f + 0.5;
    series = series * f + 1.0;
    const double half = from_bits((bits_of(shifted) << 52) + 0x3fe0000000000000u);
    const double magnitude = half_scale * (half * (series * f) + (half - 0.5));
    out[i] = static_cast<float>(from_bits(bits_of(magnitude) | (bits_of(x[i]) & 0x8000000000000000u)));
  }
}

// Magnitude and direction of complex numbers (real, imaginary, …); squares of floats do not overflow in double
// precision.
void polar(const float* x, std::int64_t n, float* magnitude, float* direction) {
  for (std::int64_t i = 0; i < n; ++i) {
    const double re = x[2 * i], im = x[2 * i + 1];
    const double length = __builtin_sqrt(re * re + im * im);
    const double divisor = larger(length, 1e-300);
    const double one = length > 0 ? 0.0 : 1.0;  // the direction of nothing
    const auto shown = static_cast<float>(length);
    magnitude[i] = shown < 3.4028234e38f ? shown : 3.4028234e38f;
    direction[2 * i] = static_cast<float>(re / divisor + one);
    direction[2 * i + 1] = static_cast<float>(im / divisor);
  }
}

// -- signals ----------------------------------------------------------------------------------------------------------

constexpr int kSums = 8;  // running sums of squares side by side, then ((0+4)+(2+6))+((1+5)+(3+7))

double sum_of_squares(const float* x, std::int64_t n) {
  double sums[kSums] = {};
  std::int64_t i = 0;
  for (; i + kSums <= n; i += kSums)
    for (int j = 0; j < kSums; ++j) sums[j] += static_cast<double>(x[i + j]) * x[i + j];
  for (int j = 0; i < n; ++i, ++j) sums[j] += static_cast<double>(x[i]) * x[i];
  for (int half = kSums / 2; half > 0; half /= 2)
    for (int j = 0; j < half; ++j) sums[j] += sums[j + half];
  return sums[0];
}

// How many of x[0 … n) differ in sign from the value before.
std::int64_t sign_changes(const float* x, std::int64_t n, float threshold, bool zero_apart) {
  std::int32_t count = 0;
  if (zero_apart) {
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int32_t now = (x[i] > threshold) - (x[i] < -threshold);
      const std::int32_t before = (x[i - 1] > threshold) - (x[i - 1] < -threshold);
      count += now != before;
    }
  } else {
    for (std::int64_t i = 0; i < n; ++i) count += (x[i] < -threshold) != (x[i - 1] < -threshold);
  }
  return count;
}

void correlate_row(const float* x, std::int64_t n, const double* taps, std::int64_t width, float* out) {
  constexpr std::int64_t block = 512;
  double sums[block];
  for (std::int64_t at = 0; at < n; at += block) {
    const std::int64_t size = n - at < block ? n - at : block;
    for (std::int64_t i = 0; i < size; ++i) sums[i] = taps[0] * x[at + i];
    for (std::int64_t k = 1; k < width; ++k)
      for (std::int64_t i = 0; i < size; ++i) sums[i] += taps[k] * x[at + i + k];
    for (std::int64_t i = 0; i < size; ++i) out[at + i] = static_cast<float>(sums[i]);
  }
}

// -- tiles: x[bins][16] -----------------------------------------------------------------------------------------------

// Sixteen frames of one channel out of `from`.
void load_tile(const float* from, std::int64_t bins, std::int64_t bin_stride, std::int64_t frame_stride, float* tile) {
  constexpr int width = RegisterOf<float>::width;
  std::int64_t k = 0;
  if (frame_stride == 1) {
    for (; k < bins; ++k) __builtin_memcpy(tile + 16 * k, from + k * bin_stride, 16 * sizeof(float));
  } else if (bin_stride == 1) {
    for (; k + width <= bins; k += width) {
      for (int j = 0; j < 16; j += width) {
        RegisterOf<float>::Type rows[width];
        for (int i = 0; i < width; ++i) rows[i] = load(from + (j + i) * frame_stride + k);
        transpose(rows);
        for (int i = 0; i < width; ++i) store(tile + 16 * (k + i) + j, rows[i]);
      }
    }
  }
  for (; k < bins; ++k)
    for (int j = 0; j < 16; ++j) tile[16 * k + j] = from[k * bin_stride + j * frame_stride];
}

float smallest_of_tile(const float* tile, std::int64_t bins) {
  float low[16];
  for (int j = 0; j < 16; ++j) low[j] = tile[j];
  for (std::int64_t k = 1; k < bins; ++k)
    for (int j = 0; j < 16; ++j) low[j] = tile[16 * k + j] < low[j] ? tile[16 * k + j] : low[j];
  float least = low[0];
  for (int j = 1; j < 16; ++j) least = low[j] < least ? low[j] : least;
  return least;
}

void sums(const float* tile, std::int64_t bins, const double* weights, double* total, double* weighted) {
  double a[16] = {}, b[16] = {};
  for (std::int64_t k = 0; k < bins; ++k) {
    const double weight = weights[k];
    for (int j = 0; j < 16; ++j) {
      const double x = tile[16 * k + j];
      a[j] += x;
      b[j] += weight * x;
    }
  }
  __builtin_memcpy(total, a, sizeof a);
  __builtin_memcpy(weighted, b, sizeof b);
}

void weighted_sums(const float* tile, std::int64_t bins, const double* weights, double* out) {
  double sum[16] = {};
  for (std::int64_t k = 0; k < bins; ++k) {
    const double weight = weights[k];
    for (int j = 0; j < 16; ++j) sum[j] += weight * tile[16 * k + j];
  }
  __builtin_memcpy(out, sum, sizeof sum);
}

void squared_deviations(const float* tile, std::int64_t bins, const double* frequencies, const double* centres,
                        double* out) {
  double c[16], sum[16] = {};
  __builtin_memcpy(c, centres, sizeof c);
  for (std::int64_t k = 0; k < bins; ++k) {
    const double frequency = frequencies[k];
    for (int j = 0; j < 16; ++j) {
      const double away = frequency - c[j];
      sum[j] += tile[16 * k + j] * (away * away);
    }
  }
  __builtin_memcpy(out, sum, sizeof sum);
}

void sums_of_squares(const float* tile, std::int64_t bins, const double* weights, double* out) {
  double sum[16] = {};
  for (std::int64_t k = 0; k < bins; ++k) {
    const double weight = weights[k];
    for (int j = 0; j < 16; ++j) {
      const double x = tile[16 * k + j];
      sum[j] += weight * (x * x);
    }
  }
  __builtin_memcpy(out, sum, sizeof sum);
}

// How many bins lie before the sum from below reaches `limit`.
void bins_below(const float* tile, std::int64_t bins, const double* limit, double* count) {
  double sum[16] = {}, below[16] = {}, most[16];
  __builtin_memcpy(most, limit, sizeof most);
  for (std::int64_t k = 0; k < bins; ++k) {
    for (int j = 0; j < 16; ++j) {
      sum[j] += tile[16 * k + j];
      below[j] += sum[j] < most[j] ? 1.0 : 0.0;
    }
  }
  __builtin_memcpy(count, below, sizeof below);
}

// Sums of max(x^power, amin), power 1 or 2, and of their logarithms. A product of mantissas and a sum of exponents
// spare all logarithms but one in a thousand.
void means(const float* tile, std::int64_t bins, bool squared, double amin, double* sum, double* sum_of_logs) {
  double total[16] = {}, exponents[16] = {}, logs[16] = {};
  for (std::int64_t begin = 0; begin < bins; begin += 1000) {  // 2^1000 is still a number
    const std::int64_t end = bins < begin + 1000 ? bins : begin + 1000;
    double product[16];
    for (int j = 0; j < 16; ++j) product[j] = 1;
    for (std::int64_t k = begin; k < end; ++k) {
      for (int j = 0; j < 16; ++j) {
        const double x = tile[16 * k + j];
        const double value = larger(squared ? x * x : x, amin);
        total[j] += value;
        product[j] *= mantissa_of(value);
        exponents[j] += exponent_of(value);
      }
    }
    for (int j = 0; j < 16; ++j) logs[j] += log_of(product[j]);
  }
  __builtin_memcpy(sum, total, sizeof total);
  for (int j = 0; j < 16; ++j) sum_of_logs[j] = logs[j] + exponents[j] * 0.69314718055994530942;
}

// Sums of the `count` smallest and largest of a band: sorted lists into which every value is passed down. `lists`: room
// for 2 * count * 16 values.
void extremes_of_band(const float* tile, std::int64_t bins, std::int64_t count, float* lists, double* low_sum,
                      double* high_sum) {
  float *low = lists, *high = lists + 16 * count;
  for (std::int64_t i = 0; i < 16 * count; ++i) {
    low[i] = __builtin_inff();
    high[i] = -__builtin_inff();
  }
  for (std::int64_t k = 0; k < bins; ++k) {
    for (int j = 0; j < 16; j += RegisterOf<float>::width) {
      auto up = load(tile + 16 * k + j), down = up;
      for (std::int64_t at = j; at < 16 * count; at += 16) {
        const auto l = load(low + at), h = load(high + at);
        store(low + at, min(up, l));
        up = max(up, l);
        store(high + at, max(down, h));
        down = min(down, h);
      }
    }
  }
  for (int j = 0; j < 16; ++j) low_sum[j] = high_sum[j] = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    for (int j = 0; j < 16; ++j) {
      low_sum[j] += low[16 * i + j];
      high_sum[j] += high[16 * i + j];
    }
  }
}

const Loops kLoops = {
    any_from,  to_log,        lane_maxima,        at_least,        exp2_all,      mu_compress, mu_law,
    mu_expand, polar,         sum_of_squares,     sign_changes,    correlate_row, load_tile,   smallest_of_tile,
    sums,      weighted_sums, squared_deviations, sums_of_squares, bins_below,    means,       extremes_of_band};
