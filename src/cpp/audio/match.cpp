#include "audio/match.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <thread>

#include "audio/correlation.h"
#include "base/checked.h"
#include "base/pool.h"
#include "base/registers.h"

namespace musicgen::audio {

namespace {

constexpr int kLanes = 16;
constexpr int kOffsets = 64;  // of a block of the correlation: four vectors
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Up to sixteen rows of the clip on their way through the piece. The rows of the cost matrix D above are in `row`, and
// the last row of the strip replaces them as it goes.
struct Strip {
  Cost cost;
  int dims;
  float weights[3][kLanes];  // of the steps
  const float* clip;         // [dims][kLanes], negated for the cosine
  const float* piece;  // frame 0 of the reversed piece: frame j lies at piece[-j], kLanes more frames on both sides
  std::size_t piece_stride;
  int last_lane;            // the last one that holds a row of the clip
  float* row;               // [frames + kLanes]
  std::int32_t* row_start;  // where its paths begin; in lanes as bits (below 2^30 they are no NaN)
  float* steps;             // null, or [frames + kLanes][kLanes]: the index of the step that led to a cell
};

// What a step leaves to the next one.
struct Carry {
  float left[kLanes], corner[kLanes], left_start[kLanes], corner_start[kLanes];
};

struct Kernels {
  void (*correlate_block)(const float* clip, std::size_t clip_stride, const float* piece, std::size_t piece_stride,
                          int dims, std::int64_t frames, float* out);
  void (*warp_steps)(const Strip& strip, Carry& carry, std::int64_t first, std::int64_t last);
};

#define MUSICGEN_KERNELS "audio/match.inl"
#include "base/every_isa.inl"

const Kernels& kernels_for(Isa isa) { return MUSICGEN_OF(isa, kKernels); }

// -- the pieces of a library over threads ----------------------------------------------------------------------------

// Calls body(piece, watch) for every piece, the next free thread taking the next piece. False if interrupted.
template <class Body>
bool over_pieces(std::size_t count, int threads, Interrupt& interrupt, Body&& body) {
  std::atomic<bool> stopped{false};
  const auto caller = std::this_thread::get_id();
  const auto search = [&](std::size_t k) {
    if (stopped) return;
    Watch watch(std::this_thread::get_id() == caller ? &interrupt : nullptr, stopped);
    body(k, watch);
  };
  spread(count, threads, search, [&] {
    if (interrupt.requested()) stopped = true;
  });
  return !stopped;
}

// -- correlation -----------------------------------------------------------------------------------------------------

// A stretch whose variance is this part of its energy varies by rounding only: float32 features of a steady sound.
constexpr double kFlat = 1e-10;
// A stretch with this part of the energy of its piece is beyond the precision of Fourier transforms of the piece.
constexpr double kFaint = 1e-14;

// sums[t] = values[t] + … + values[t + width - 1] for every t, without taking anything off again: what lies outside a
// window cannot leave its rounding in it. Tails and heads of blocks as wide as the window (M. van Herk, Pattern
// Recognition Letters 13, 1992).
void window_sums(const double* values, std::int64_t count, std::int64_t width, double* sums) {
  for (std::int64_t first = 0; first < count; first += width) {
    const std::int64_t windows = count - width + 1;
    double tail = 0;
    for (std::int64_t t = std::min(first + width, count) - 1; t >= first; --t) {
      tail += values[t];
      if (t < windows) sums[t] = tail;
    }
    double head = 0;
    for (std::int64_t t = first; t < std::min(first + width - 1, count); ++t) {  // windows that end here began before
      head += values[t];
      if (t - width + 1 >= 0) sums[t - width + 1] += head;
    }
  }
}

// The clip once, in the form every piece meets.
struct Template {
  Template(const Correlation& options, int dims_, const Sequence& clip)
      : center(options.center), dims(dims_), frames(clip.frames) {
    values.assign(clip.values, clip.values + checked_product(to_size(dims), to_size(frames)));
    double squares = 0, energy = 0;
    for (int r = 0; r < dims; ++r) {
      float* row = values.data() + to_size(r) * to_size(frames);
      double mean = 0;
      for (std::int64_t j = 0; j < frames; ++j) mean += row[j];
      mean /= static_cast<double>(frames);
      for (std::int64_t j = 0; j < frames; ++j) {
        energy += static_cast<double>(row[j]) * row[j];
        if (center) row[j] = static_cast<float>(row[j] - mean);
        squares += static_cast<double>(row[j]) * row[j];
      }
    }
    flat = !(squares > (center ? kFlat * energy : 0));
    const double norm = std::sqrt(squares);
    for (float& value : values) value = flat ? 0.0f : static_cast<float>(value / norm);
    for (int r = 0; r < dims; ++r) {
      const float* row = values.data() + to_size(r) * to_size(frames);
      sums.push_back(std::accumulate(row, row + frames, 0.0));
    }
  }

  bool center;
  int dims;
  std::int64_t frames;
  std::vector<float> values;              // of norm 1: large features do not overflow
  std::vector<double> sums;               // of the rows
  bool flat;                              // nothing to correlate with
  std::unique_ptr<FastCorrelation> fast;  // where some piece is long enough for it
};

// products[t] of the clip with the stretches first + t … of a piece. The mean of the first stretch (means[r * blocks]
// for row r) comes off the rows before: in the products it would cancel, but for its rounding.
void multiply(const Template& clip, const Sequence& piece, const double* means, std::size_t blocks, std::int64_t first,
              std::vector<float>& block, const Kernels& kernels, double* products) {
  const auto rows = to_size(clip.dims), stride = block.size() / rows;
  const std::int64_t seen = std::min<std::int64_t>(clip.frames + kOffsets - 1, piece.frames - first);
  for (std::size_t r = 0; r < rows; ++r) {
    const float* row = piece.values + r * to_size(piece.frames) + first;
    const double mean = means[r * blocks];
    for (std::int64_t j = 0; j < seen; ++j) block[r * stride + to_size(j)] = static_cast<float>(row[j] - mean);
  }
  float sums[kOffsets];
  kernels.correlate_block(clip.values.data(), to_size(clip.frames), block.data(), stride, clip.dims, clip.frames, sums);
  std::copy(sums, sums + kOffsets, products);
}

void correlate_piece(const Template& clip, const Sequence& piece, float* curve, const Kernels& kernels, Watch& watch) {
  const std::int64_t n = piece.frames, m = clip.frames, offsets = n - m + 1;
  if (offsets <= 0) return;
  if (clip.flat) {
    std::fill(curve, curve + offsets, 0.0f);
    return;
  }
  const auto rows = to_size(clip.dims);
  const std::size_t blocks = (to_size(offsets) + kOffsets - 1) / kOffsets;
  const bool is_fast = clip.fast != nullptr && FastCorrelation::pays(clip.dims, m, n);
  // The energy of every stretch, what is left of it without the means of its rows, and these for some stretches.
  std::vector<double> values(to_size(n)), squares(to_size(n), 0.0), sums(to_size(offsets));
  std::vector<double> energy(to_size(offsets)), varying, means(checked_product(rows, blocks), 0.0);
  std::vector<double> fast(is_fast ? to_size(offsets) : 0);
  if (is_fast &&
      !clip.fast->run(piece.values, n, fast.data(), [&](std::int64_t work) { return watch.after(to_size(work)); }))
    return;
  for (std::size_t r = 0; r < rows; ++r) {
    const float* row = piece.values + r * to_size(n);
    for (std::size_t j = 0; j < values.size(); ++j) {
      values[j] = row[j];
      squares[j] += values[j] * values[j];
    }
    if (clip.center) {
      varying.resize(to_size(offsets));
      window_sums(values.data(), n, m, sums.data());
      for (std::size_t t = 0; t < sums.size(); ++t) varying[t] -= sums[t] * sums[t] / static_cast<double>(m);
      for (std::size_t b = 0; b < blocks; ++b) means[r * blocks + b] = sums[b * kOffsets] / static_cast<double>(m);
      // The means of a stretch cancel in the products, but for the rounding of the clip's rows.
      for (std::size_t t = 0; t < fast.size(); ++t) fast[t] -= clip.sums[r] / static_cast<double>(m) * sums[t];
    }
    if (watch.after(to_size(8 * n))) return;
  }
  window_sums(squares.data(), n, m, energy.data());
  const double whole = std::accumulate(squares.begin(), squares.end(), 0.0);

  const std::size_t stride = round_up(to_size(m) + kOffsets, kLanes);
  std::vector<float> block(is_fast ? 0 : checked_product(rows, stride), 0.0f);
  for (std::int64_t first = 0; first < offsets; first += kOffsets) {
    const std::int64_t last = std::min(first + kOffsets, offsets);
    double variation[kOffsets];  // 0: none
    bool is_near = is_fast;      // enough for the precision of the transforms
    for (std::int64_t t = first; t < last; ++t) {
      const double all = energy[to_size(t)], own = clip.center ? all + varying[to_size(t)] : all;
      const bool flat = !(own > (clip.center ? kFlat * all : 0));
      variation[t - first] = flat ? 0 : std::sqrt(own);
      is_near = is_near && (flat || own > kFaint * whole);
    }
    double products[kOffsets];
    if (is_near) {
      std::copy(fast.begin() + first, fast.begin() + last, products);
    } else {
      block.resize(checked_product(rows, stride));
      multiply(clip, piece, means.data() + first / kOffsets, blocks, first, block, kernels, products);
    }
    for (std::int64_t t = first; t < last; ++t) {
      const double norm = variation[t - first], score = norm == 0 ? 0 : products[t - first] / norm;
      curve[t] = static_cast<float>(std::clamp(score, -1.0, 1.0));
    }
    if (watch.after(to_size(is_near ? kOffsets : kOffsets * clip.dims * m))) return;
  }
}

// -- warping ---------------------------------------------------------------------------------------------------------

// Features as the cost wants them: for the cosine, every frame of length 1. Silence has no direction: it is an axis of
// its own there, so that it costs 0 to meet silence and 1 to meet sound.
struct Frames {
  Frames(Cost cost, int dims, const Sequence& sequence)
      : rows(to_size(dims) + (cost == Cost::cosine ? 1 : 0)), count(to_size(sequence.frames)) {
    values.assign(checked_product(rows, count), 0.0f);
    std::copy(sequence.values, sequence.values + to_size(dims) * count, values.begin());
    if (cost != Cost::cosine) {
      for (const float value : values) largest = std::max(largest, std::abs(value));
      return;
    }
    std::vector<double> norm(count, 0.0);
    const auto for_each_value = [&](const auto& visit) {
      for (std::size_t r = 0; r < to_size(dims); ++r)
        for (std::size_t j = 0; j < count; ++j) visit(values[r * count + j], norm[j]);
    };
    for_each_value([](float value, double& sum) { sum += static_cast<double>(value) * value; });
    for (std::size_t j = 0; j < count; ++j) {
      silent = silent || norm[j] == 0;
      values[to_size(dims) * count + j] = norm[j] == 0 ? 1.0f : 0.0f;
      norm[j] = norm[j] == 0 ? 1 : std::sqrt(norm[j]);
    }
    for_each_value([](float& value, double length) { value = static_cast<float>(value / length); });
  }

  std::size_t rows, count;
  std::vector<float> values;  // (rows, count)
  bool silent = false;        // some frame is (for the cosine)
  float largest = 0;          // magnitude (for the distance)
};

// One pass of a clip through a piece. `steps`: null, or where the kernel traces its steps, strip by strip.
void warp_piece(const Warping& options, const Frames& clip, const Frames& piece, float* costs, std::int32_t* starts,
                float* steps, const Kernels& kernels, Watch& watch) {
  const std::size_t n = piece.count;
  // The axis of silence is needed where both sides have some.
  const std::size_t rows = clip.rows - (options.cost == Cost::cosine && !(clip.silent && piece.silent) ? 1 : 0);
  const std::size_t stride = n + 2 * kLanes;
  std::vector<float> reversed(checked_product(rows, stride), 0.0f);
  // Distances of numbers near 1: their squares stay in range, and a power of two leaves every digit in place.
  const float largest = std::max(clip.largest, piece.largest);
  const int exponent = largest > 0 ? std::clamp(std::ilogb(largest), -126, 126) : 0;
  const float scale = options.cost == Cost::cosine ? 1.0f : std::ldexp(1.0f, -exponent);
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t j = 0; j < n; ++j) reversed[r * stride + kLanes + n - 1 - j] = scale * piece.values[r * n + j];

  // Above row 0 of the cost matrix lies a row of zeros: a path may begin anywhere. Only the diagonal leads out of it.
  std::vector<float> row(n + kLanes, 0.0f), values(rows * kLanes);
  std::vector<std::int32_t> row_start(n + kLanes);
  std::iota(row_start.begin(), row_start.end(), 1);
  Strip strip{};
  strip.cost = options.cost;
  strip.dims = static_cast<int>(rows);
  strip.clip = values.data();
  strip.piece = reversed.data() + kLanes + n - 1;
  strip.piece_stride = stride;
  strip.row = row.data();
  strip.row_start = row_start.data();
  const float factor = options.cost == Cost::cosine ? -1.0f : scale;
  for (std::size_t first = 0; first < clip.count; first += kLanes) {
    const std::size_t lanes = std::min<std::size_t>(kLanes, clip.count - first);
    for (std::size_t r = 0; r < rows; ++r)
      for (std::size_t l = 0; l < kLanes; ++l)
        values[r * kLanes + l] = l < lanes ? factor * clip.values[r * clip.count + first + l] : 0.0f;
    for (std::size_t k = 0; k < 3; ++k) std::fill_n(strip.weights[k], kLanes, options.weights[k]);
    Carry carry{};
    std::fill_n(carry.left, kLanes, kInfinity);
    std::fill_n(carry.corner, kLanes, kInfinity);
    if (first == 0) {
      strip.weights[0][0] = 1;
      strip.weights[1][0] = strip.weights[2][0] = std::numeric_limits<float>::max();
      carry.corner[0] = 0;
    }
    strip.last_lane = static_cast<int>(lanes) - 1;
    strip.steps = steps;
    if (steps != nullptr) steps += (n + kLanes) * kLanes;
    constexpr std::int64_t chunk = 1024;
    const auto end = static_cast<std::int64_t>(n + lanes) - 1;
    for (std::int64_t t = 0; t < end; t += chunk) {
      kernels.warp_steps(strip, carry, t, std::min(t + chunk, end));
      if (watch.after(to_size(chunk * kLanes * static_cast<std::int64_t>(rows + 4)))) return;
    }
  }
  for (std::size_t j = 0; j < n; ++j) costs[j] = row[j] / scale;
  std::copy_n(row_start.begin(), n, starts);
}

}  // namespace

bool correlate(const Correlation& options, int dims, const Sequence& clip, const std::vector<Sequence>& pieces,
               const std::vector<float*>& curves, int threads, Isa isa, Interrupt& interrupt) {
  Template prepared(options, dims, clip);
  const auto is_long = [&](const Sequence& piece) { return FastCorrelation::pays(dims, clip.frames, piece.frames); };
  if (std::any_of(pieces.begin(), pieces.end(), is_long))
    prepared.fast = std::make_unique<FastCorrelation>(prepared.values.data(), dims, clip.frames, isa);
  const Kernels& kernels = kernels_for(isa);
  return over_pieces(pieces.size(), threads, interrupt, [&](std::size_t k, Watch& watch) {
    correlate_piece(prepared, pieces[k], curves[k], kernels, watch);
  });
}

bool warp(const Warping& options, int dims, const Sequence& clip, const std::vector<Sequence>& pieces,
          const std::vector<float*>& costs, const std::vector<std::int32_t*>& starts, int threads, Isa isa,
          Interrupt& interrupt) {
  const Frames prepared(options.cost, dims, clip);
  const Kernels& kernels = kernels_for(isa);
  return over_pieces(pieces.size(), threads, interrupt, [&](std::size_t k, Watch& watch) {
    const Frames piece(options.cost, dims, pieces[k]);
    if (piece.count > 0) warp_piece(options, prepared, piece, costs[k], starts[k], nullptr, kernels, watch);
  });
}

std::vector<std::int64_t> warp_path(const Warping& options, int dims, const Sequence& clip, const Sequence& stretch,
                                    Isa isa, Interrupt& interrupt) {
  const Frames prepared(options.cost, dims, clip), piece(options.cost, dims, stretch);
  const std::size_t pitch = (piece.count + kLanes) * kLanes;
  std::vector<float> steps(checked_product((prepared.count + kLanes - 1) / kLanes, pitch)), costs(piece.count);
  std::vector<std::int32_t> starts(piece.count);
  const bool done = over_pieces(1, 1, interrupt, [&](std::size_t, Watch& watch) {
    warp_piece(options, prepared, piece, costs.data(), starts.data(), steps.data(), kernels_for(isa), watch);
  });
  std::vector<std::int64_t> path;
  if (!done) return path;
  std::size_t i = prepared.count - 1, j = piece.count - 1;
  for (;;) {
    path.push_back(static_cast<std::int64_t>(j));
    path.push_back(static_cast<std::int64_t>(i));
    if (i == 0) break;
    const std::size_t lane = i % kLanes;
    const float step = steps[i / kLanes * pitch + (j + lane) * kLanes + lane];
    if (step != 1) --i;
    if (step != 2) --j;
  }
  std::reverse(path.begin(), path.end());
  return path;
}

}  // namespace musicgen::audio
