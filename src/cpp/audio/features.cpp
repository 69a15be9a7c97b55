#include "audio/features.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <numeric>
#include <stdexcept>
#include <string>

#include "base/registers.h"

namespace musicgen::audio {

namespace {

// The loops of features.inl, for one instruction set.
struct Loops {
  bool (*any_from)(const float*, std::int64_t, std::uint32_t);
  void (*to_log)(const float*, std::int64_t, bool, double, double, double, float*);
  void (*lane_maxima)(const float*, std::int64_t, float*);
  void (*at_least)(float*, std::int64_t, float);
  void (*exp2_all)(const float*, std::int64_t, double, double, double, float, float*);
  void (*mu_compress)(const float*, std::int64_t, double, double, float*);
  void (*mu_law)(const float*, std::int64_t, double, double, std::int32_t*);
  void (*mu_expand)(const double*, std::int64_t, double, double, float*);
  void (*polar)(const float*, std::int64_t, float*, float*);
  double (*sum_of_squares)(const float*, std::int64_t);
  std::int64_t (*sign_changes)(const float*, std::int64_t, float, bool);
  void (*correlate_row)(const float*, std::int64_t, const double*, std::int64_t, float*);
  void (*load_tile)(const float*, std::int64_t, std::int64_t, std::int64_t, float*);
  float (*smallest_of_tile)(const float*, std::int64_t);
  void (*sums)(const float*, std::int64_t, const double*, double*, double*);
  void (*weighted_sums)(const float*, std::int64_t, const double*, double*);
  void (*squared_deviations)(const float*, std::int64_t, const double*, const double*, double*);
  void (*sums_of_squares)(const float*, std::int64_t, const double*, double*);
  void (*bins_below)(const float*, std::int64_t, const double*, double*);
  void (*means)(const float*, std::int64_t, bool, double, double*, double*);
  void (*extremes_of_band)(const float*, std::int64_t, std::int64_t, float*, double*, double*);
};

#define MUSICGEN_KERNELS "audio/features.inl"
#include "base/every_isa.inl"

const Loops& loops_for(Isa isa) { return MUSICGEN_OF(isa, kLoops); }

constexpr std::int64_t kBlock = 1 << 15;  // elements between two looks at the largest, or at the signals
constexpr int kLanes = kTileFrames;

using Sixteen = std::array<double, kLanes>;

// Sums below it are not divided by.
constexpr double kTiny = std::numeric_limits<float>::min();

// out[channel][first + j] = value(j) for the frames of a tile.
template <typename Value>
void for_frames(const Tile& tile, std::int64_t frames, float* out, const Value& value) {
  float* to = out + tile.channel * frames + tile.first;
  for (std::size_t j = 0; j < static_cast<std::size_t>(tile.count); ++j) to[j] = static_cast<float>(value(j));
}

// Chunks of which frames are made: the longest that all frames and hops are whole numbers of. Each is worked on once,
// however many frames share it; where they would be shorter than `least` samples, every frame is worked on by itself.
std::int64_t chunk_of(const Framing& framing, std::int64_t least) {
  const std::int64_t common = std::gcd(framing.frame_length, framing.hop_length);
  return common >= least ? common : 0;
}

}  // namespace

Nonfinite nonfinite(const float* values, std::int64_t n, Isa isa) {
  constexpr std::uint32_t infinity = 0x7f800000u;
  if (!loops_for(isa).any_from(values, n, infinity)) return {0, -1};
  const auto bad = [](float value) { return !std::isfinite(value); };
  return {static_cast<std::int64_t>(std::count_if(values, values + n, bad)),
          std::find_if(values, values + n, bad) - values};
}

bool any_from(const float* values, std::int64_t n, float limit, Isa isa) {
  std::uint32_t bits;
  std::memcpy(&bits, &limit, sizeof bits);
  return loops_for(isa).any_from(values, n, bits);
}

float to_log(const float* x, std::int64_t n, bool squared, double factor, double amin, double offset, float* out,
             Isa isa) {
  const Loops& loops = loops_for(isa);
  std::array<float, 16> top;
  top.fill(-std::numeric_limits<float>::infinity());
  for (std::int64_t at = 0; at < n; at += kBlock) {
    const std::int64_t size = std::min(kBlock, n - at), whole = size / 16 * 16;
    loops.to_log(x + at, size, squared, factor, amin, offset, out + at);
    loops.lane_maxima(out + at, whole, top.data());
    for (std::int64_t i = at + whole; i < at + size; ++i) top[0] = std::max(top[0], out[i]);
  }
  return *std::max_element(top.begin(), top.end());
}

void at_least(float* out, std::int64_t n, float floor, Isa isa) { loops_for(isa).at_least(out, n, floor); }

void exp2_of(const float* x, std::int64_t n, double rate, double scale, float* out, Isa isa) {
  loops_for(isa).exp2_all(x, n, rate, scale, 1000.0, std::numeric_limits<float>::max(), out);
}

void mu_compress(const float* x, std::int64_t n, double mu, float* out, Isa isa) {
  loops_for(isa).mu_compress(x, n, mu, 1 / std::log1p(mu), out);
}

void mu_law(const float* x, std::int64_t n, double mu, std::int32_t* out, Isa isa) {
  loops_for(isa).mu_law(x, n, mu, 0.5 * mu / std::log1p(mu), out);
}

void mu_expand(const double* x, std::int64_t n, double mu, float* out, Isa isa) {
  mu = std::max(mu, 1e-200);  // a straight line long before that
  loops_for(isa).mu_expand(x, n, std::log1p(mu), 2 / mu, out);
}

void polar(const float* x, std::int64_t n, float* magnitude, float* direction, Isa isa) {
  loops_for(isa).polar(x, n, magnitude, direction);
}

void rms(const float* y, const Framing& framing, float* out, Isa isa, const Poll& poll) {
  const Loops& loops = loops_for(isa);
  const std::int64_t chunk = chunk_of(framing, 32), length = framing.frame_length;
  std::vector<double> sums(chunk > 0 ? static_cast<std::size_t>(framing.length / chunk) : 0);
  for (std::int64_t row = 0; row < framing.rows; ++row) {
    const float* x = y + row * framing.length;
    float* to = out + row * framing.frames;
    for (std::size_t i = 0; i < sums.size(); ++i) {
      sums[i] = loops.sum_of_squares(x + static_cast<std::int64_t>(i) * chunk, chunk);
      if (i % 4096 == 4095) poll();
    }
    for (std::int64_t t = 0; t < framing.frames; ++t) {
      const std::int64_t begin = t * framing.hop_length;
      double sum = 0;
      if (chunk > 0) {
        for (std::int64_t i = begin / chunk; i < (begin + length) / chunk; ++i)
          sum += sums[static_cast<std::size_t>(i)];
      } else {
        sum = loops.sum_of_squares(x + begin, length);
      }
      to[t] = static_cast<float>(std::sqrt(sum / static_cast<double>(length)));
      if (t % 256 == 255) poll();
    }
  }
}

void zero_crossing_rate(const float* y, const Framing& framing, float threshold, bool zero_apart, float* out, Isa isa,
                        const Poll& poll) {
  const Loops& loops = loops_for(isa);
  const std::int64_t chunk = chunk_of(framing, 32), length = framing.frame_length;
  std::vector<std::int64_t> counts(chunk > 0 ? static_cast<std::size_t>(framing.length / chunk) : 0);
  for (std::int64_t row = 0; row < framing.rows; ++row) {
    const float* x = y + row * framing.length;
    float* to = out + row * framing.frames;
    for (std::size_t i = 0; i < counts.size();
         ++i) {  // the first sample of each chunk is left out: a frame may begin there
      counts[i] = loops.sign_changes(x + static_cast<std::int64_t>(i) * chunk + 1, chunk - 1, threshold, zero_apart);
      if (i % 4096 == 4095) poll();
    }
    for (std::int64_t t = 0; t < framing.frames; ++t) {
      const std::int64_t begin = t * framing.hop_length;
      std::int64_t count = 0;
      if (chunk > 0) {
        for (std::int64_t i = begin / chunk; i < (begin + length) / chunk; ++i) {
          count += counts[static_cast<std::size_t>(i)];
          if (i * chunk > begin) count += loops.sign_changes(x + i * chunk, 1, threshold, zero_apart);
        }
      } else {
        count = loops.sign_changes(x + begin + 1, length - 1, threshold, zero_apart);
      }
      to[t] = static_cast<float>(static_cast<double>(count) / static_cast<double>(length));
      if (t % 256 == 255) poll();
    }
  }
}

void kaldi_frames(const float* y, const KaldiFrames& options, std::int64_t begin, std::int64_t end, float* out,
                  float* energies, const Poll& poll) {
  const std::int64_t length = options.frame_length, n = options.n;
  std::vector<double> frame(static_cast<std::size_t>(length));
  for (std::int64_t t = begin; t < end; ++t) {
    const std::int64_t start = options.first_start + t * options.hop_length;
    for (std::int64_t i = 0; i < length; ++i) {
      std::int64_t at = start + i;
      while (at < 0 || at >= n) at = at < 0 ? -at - 1 : 2 * n - 1 - at;
      frame[static_cast<std::size_t>(i)] = y[at];
    }
    if (options.remove_mean) {
      const double mean = std::accumulate(frame.begin(), frame.end(), 0.0) / static_cast<double>(length);
      for (double& x : frame) x -= mean;
    }
    double energy = std::inner_product(frame.begin(), frame.end(), frame.begin(), 0.0);
    float* to = out + (t - begin) * options.padded_length;
    double before = frame[0];
    for (std::int64_t i = 0; i < length; ++i) {
      const double x = frame[static_cast<std::size_t>(i)];
      to[i] = static_cast<float>((x - options.preemphasis * before) * options.window[i]);
      before = x;
    }
    std::fill(to + length, to + options.padded_length, 0.0f);
    if (!options.raw_energy) {
      energy = 0;
      for (std::int64_t i = 0; i < length; ++i) energy += static_cast<double>(to[i]) * to[i];
    }
    energies[t - begin] = static_cast<float>(energy);
    if (t % 1024 == 1023) poll();
  }
}

Tiles tiles_of(const Spectra& S, bool signs_allowed, Isa isa, const Poll& poll) {
  const auto each = [=](const std::function<void(const Tile&)>& body) {
    const Loops& loops = loops_for(isa);
    std::vector<float> x(static_cast<std::size_t>(S.bins) * kLanes);
    const std::int64_t between_polls = 1 + 1'000'000 / (kLanes * S.bins);
    std::int64_t done = 0;
    for (std::int64_t channel = 0; channel < S.channels; ++channel) {
      for (std::int64_t first = 0; first < S.frames; first += kLanes) {
        const std::int64_t count = std::min<std::int64_t>(kLanes, S.frames - first);
        const float* from = S.values + channel * S.channel_stride + first * S.frame_stride;
        if (count == kLanes) {
          loops.load_tile(from, S.bins, S.bin_stride, S.frame_stride, x.data());
        } else {
          for (std::int64_t k = 0; k < S.bins; ++k)
            for (std::int64_t j = 0; j < kLanes; ++j)
              x[static_cast<std::size_t>(k * kLanes + j)] =
                  from[k * S.bin_stride + (j < count ? j : 0) * S.frame_stride];
        }
        if (!signs_allowed) {
          const float least = loops.smallest_of_tile(x.data(), S.bins);
          if (least < 0) throw std::invalid_argument("S: expected non-negative values, got " + std::to_string(least));
        }
        body({x.data(), channel, first, count});
        if (++done % between_polls == 0) poll();
      }
    }
  };
  return {S.channels, S.bins, S.frames, each};
}

void centroid(const Tiles& tiles, const double* frequencies, float* out, Isa isa) {
  const Loops& loops = loops_for(isa);
  tiles.each([&](const Tile& tile) {
    Sixteen total, weighted;
    loops.sums(tile.x, tiles.bins, frequencies, total.data(), weighted.data());
    for_frames(tile, tiles.frames, out, [&](std::size_t j) {
      return total[j] < kTiny ? weighted[j] : weighted[j] / total[j];  // librosa does not divide by less
    });
  });
}

void bandwidth(const Tiles& tiles, const double* frequencies, const float* centres, bool norm, double p, float* out,
               Isa isa) {
  const Loops& loops = loops_for(isa);
  tiles.each([&](const Tile& tile) {
    Sixteen total, weighted, centre, sum{};
    loops.sums(tile.x, tiles.bins, frequencies, total.data(), weighted.data());
    for (std::size_t j = 0; j < kLanes; ++j) {
      if (total[j] < kTiny) total[j] = 1;
      centre[j] = weighted[j] / total[j];
    }
    if (centres != nullptr) {
      const float* given = centres + tile.channel * tiles.frames + tile.first;
      std::copy(given, given + tile.count, centre.begin());
    }
    if (p == 2) {
      loops.squared_deviations(tile.x, tiles.bins, frequencies, centre.data(), sum.data());
    } else {
      for (std::int64_t k = 0; k < tiles.bins; ++k)
        for (std::size_t j = 0; j < static_cast<std::size_t>(tile.count); ++j)
          sum[j] +=
              tile.x[static_cast<std::size_t>(k) * kLanes + j] * std::pow(std::abs(frequencies[k] - centre[j]), p);
    }
    for_frames(tile, tiles.frames, out, [&](std::size_t j) {
      const double mean = norm ? sum[j] / total[j] : sum[j];
      return p == 2 ? std::sqrt(mean) : std::pow(mean, 1 / p);
    });
  });
}

void rolloff(const Tiles& tiles, const double* values, double share, float* out, Isa isa) {
  const Loops& loops = loops_for(isa);
  tiles.each([&](const Tile& tile) {
    Sixteen total, unused, below;
    loops.sums(tile.x, tiles.bins, values, total.data(), unused.data());
    for (double& limit : total) limit *= share;
    loops.bins_below(tile.x, tiles.bins, total.data(), below.data());
    for_frames(tile, tiles.frames, out,
               [&](std::size_t j) { return values[std::min(static_cast<std::int64_t>(below[j]), tiles.bins - 1)]; });
  });
}

void flatness(const Tiles& tiles, double power, double amin, float* out, Isa isa) {
  const Loops& loops = loops_for(isa);
  const auto bins = static_cast<double>(tiles.bins);
  tiles.each([&](const Tile& tile) {
    Sixteen sum{}, logs{};
    if (power == 1 || power == 2) {
      loops.means(tile.x, tiles.bins, power == 2, amin, sum.data(), logs.data());
    } else {
      for (std::int64_t k = 0; k < tiles.bins; ++k) {
        for (std::size_t j = 0; j < static_cast<std::size_t>(tile.count); ++j) {
          const double value =
              std::max(amin, std::pow(static_cast<double>(tile.x[static_cast<std::size_t>(k) * kLanes + j]), power));
          sum[j] += value;
          logs[j] += std::log(value);
        }
      }
    }
    for_frames(tile, tiles.frames, out, [&](std::size_t j) { return std::exp(logs[j] / bins) / (sum[j] / bins); });
  });
}

void weighted_norm(const Tiles& tiles, const double* weights, float* out, Isa isa) {
  const Loops& loops = loops_for(isa);
  tiles.each([&](const Tile& tile) {
    Sixteen sum;
    loops.sums_of_squares(tile.x, tiles.bins, weights, sum.data());
    for_frames(tile, tiles.frames, out, [&](std::size_t j) { return std::sqrt(sum[j]); });
  });
}

void weighted_sums(const Tiles& tiles, const double* weights, std::int64_t rows, float* out, Isa isa) {
  const Loops& loops = loops_for(isa);
  tiles.each([&](const Tile& tile) {
    for (std::int64_t row = 0; row < rows; ++row) {
      Sixteen sum;
      loops.weighted_sums(tile.x, tiles.bins, weights + row * tiles.bins, sum.data());
      const Tile at{tile.x, tile.channel * rows + row, tile.first, tile.count};
      for_frames(at, tiles.frames, out, [&](std::size_t j) { return sum[j]; });
    }
  });
}

void extremes(const Tiles& tiles, const std::vector<Band>& bands, float* valley, float* peak, Isa isa) {
  // Passing a value down two lists costs their length; sorting a column costs nearly the same for any.
  constexpr std::int64_t longest_list = 16;
  const Loops& loops = loops_for(isa);
  const auto num_bands = static_cast<std::int64_t>(bands.size());
  tiles.each([&](const Tile& tile) {
    std::array<float, 2 * longest_list * kLanes> lists;
    std::vector<float> column;
    for (std::int64_t b = 0; b < num_bands; ++b) {
      const Band& band = bands[static_cast<std::size_t>(b)];
      const float* from = tile.x + band.low * kLanes;
      const std::int64_t size = band.high - band.low;
      Sixteen low{}, high{};
      if (band.count <= longest_list) {
        loops.extremes_of_band(from, size, band.count, lists.data(), low.data(), high.data());
      } else {
        column.resize(static_cast<std::size_t>(size));
        for (std::size_t j = 0; j < static_cast<std::size_t>(tile.count); ++j) {
          for (std::size_t k = 0; k < column.size(); ++k) column[k] = from[k * kLanes + j];
          std::sort(column.begin(), column.end());
          low[j] = std::accumulate(column.begin(), column.begin() + band.count, 0.0);
          high[j] = std::accumulate(column.rbegin(), column.rbegin() + band.count, 0.0);
        }
      }
      const auto values = static_cast<double>(band.count);
      const Tile row{tile.x, tile.channel * num_bands + b, tile.first, tile.count};
      for_frames(row, tiles.frames, valley, [&](std::size_t j) { return low[j] / values; });
      for_frames(row, tiles.frames, peak, [&](std::size_t j) { return high[j] / values; });
    }
  });
}

Peaks peaks(const Tiles& tiles, std::int64_t low, std::int64_t high, float threshold, Isa isa) {
  const Loops& loops = loops_for(isa);
  Peaks all;
  std::mutex mutex;
  const std::int64_t begin = std::max<std::int64_t>(low, 1), end = std::min(high, tiles.bins), last = tiles.bins - 1;
  tiles.each([&](const Tile& tile) {
    Peaks found;
    std::array<float, kLanes> limit{};
    loops.lane_maxima(tile.x, tiles.bins * kLanes, limit.data());
    for (float& value : limit) value *= threshold;
    for (std::int64_t k = begin; k < end; ++k) {
      const float* x = tile.x + k * kLanes;
      for (std::int64_t j = 0; j < tile.count; ++j) {
        const float here = x[j], before = x[j - kLanes];
        if (!(here > limit[static_cast<std::size_t>(j)] && here > before)) continue;
        float shift = 0, slope = 0;
        if (k < last) {  // the last bin has no neighbour above: it is taken as it is
          const float after = x[j + kLanes];
          if (!(here >= after)) continue;
          const float curve = after + before - 2 * here;
          slope = (after - before) / 2;
          if (std::abs(slope) < std::abs(curve)) shift = -slope / curve;
        }
        found.position.push_back(static_cast<float>(k) + shift);
        found.height.push_back(here + 0.5f * slope * shift);
      }
    }
    const std::lock_guard<std::mutex> lock(mutex);
    all.position.insert(all.position.end(), found.position.begin(), found.position.end());
    all.height.insert(all.height.end(), found.height.begin(), found.height.end());
  });
  return all;
}

void correlate(const float* x, std::int64_t rows, std::int64_t n, const double* taps, std::int64_t width, float* out,
               std::int64_t out_stride, Isa isa, const Poll& poll) {
  const Loops& loops = loops_for(isa);
  const std::int64_t between_polls = 1 + 1'000'000 / (n * width);
  for (std::int64_t row = 0; row < rows; ++row) {
    loops.correlate_row(x + row * n, n - width + 1, taps, width, out + row * out_stride);
    if (row % between_polls == between_polls - 1) poll();
  }
}

}  // namespace musicgen::audio
