#include "audio/correlation.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "audio/fft.h"
#include "audio/kernels.h"
#include "base/arena.h"
#include "base/checked.h"

namespace musicgen::audio {

namespace {

constexpr std::int64_t kMostSize = std::int64_t{1} << 18;  // of a block: 200 MB of working memory, 10 ms a transform
constexpr std::int64_t kPadding = 32;  // values between lanes, so that sixteen of them do not share cache sets
constexpr std::size_t kMostKept = std::size_t{32} << 20;  // bytes of working memory that a thread keeps
// A transform takes as long as so many multiplications and additions for each of its N log2 N. Measured: 5.5 to 10 on
// AVX-512, 5 to 7.5 on AVX2, 2.5 to 3.5 on the baseline, for 12 to 128 rows and clips of 64 to 7752 frames.
constexpr double kCost = 10;

// A power of two between four and eight clips, where that is not too large: three quarters of a block are results.
std::int64_t size_for(std::int64_t clip_frames) {
  std::int64_t size = 64;
  while (size < 4 * clip_frames && size < kMostSize) size *= 2;
  return size;
}

// The transform of a size that is a power of two, made when it is first asked for and kept: its tables take longer than
// the transforms of a clip. No lock, so that a process may fork at any time.
const RealFft<double>& transform_of(std::int64_t size) {
  static std::atomic<const RealFft<double>*> made[64];
  int log_size = 0;
  while (std::int64_t{1} << log_size < size) ++log_size;
  const RealFft<double>* kept = made[log_size];
  if (kept != nullptr) return *kept;
  auto another = std::make_unique<const RealFft<double>>(static_cast<int>(size));
  if (made[log_size].compare_exchange_strong(kept, another.get())) return *another.release();
  return *kept;  // another thread was quicker
}

// sum += x * conj(y), complex numbers.
void add_product(const double* x, const double* y, std::int64_t count, double* sum) {
  for (std::int64_t k = 0; k < 2 * count; k += 2) {
    sum[k] += x[k] * y[k] + x[k + 1] * y[k + 1];
    sum[k + 1] += x[k + 1] * y[k] - x[k] * y[k + 1];
  }
}

}  // namespace

bool FastCorrelation::pays(int dims, std::int64_t clip_frames, std::int64_t frames) {
  const std::int64_t size = size_for(clip_frames), step = size - clip_frames + 1, offsets = frames - clip_frames + 1;
  if (size < 2 * clip_frames || offsets <= 0) return false;
  const std::size_t blocks = to_size((offsets + step - 1) / step);
  const std::size_t transforms = round_up(blocks * to_size(dims), kLanes) + round_up(blocks, kLanes);
  const double products = static_cast<double>(dims) * static_cast<double>(clip_frames) * static_cast<double>(offsets);
  const auto n = static_cast<double>(size);
  return products > kCost * static_cast<double>(transforms) * n * std::log2(n);
}

struct FastCorrelation::Plan {
  struct Stretch {
    const float* values;
    std::int64_t count;
  };
  // Working memory: the values of sixteen blocks, their spectra, sums of spectra, and what a transform needs.
  struct Room {
    explicit Room(const Plan& plan) {
      const std::size_t block = kLanes * to_size(plan.stride);
      const auto rest = to_size(plan.fft.plan().scratch_values + plan.fft.plan().bins * kPoint);
      const std::size_t bytes = (3 * block + rest) * sizeof(double);
      if (bytes > kMostKept) own = Arena(bytes);
      values = reinterpret_cast<double*>(bytes > kMostKept ? own.data() : thread_memory(bytes));
      spectra = values + block;
      sums = spectra + block;
      scratch = sums + block;
    }
    Arena own;
    double *values, *spectra, *sums, *scratch;
  };

  Plan(const float* values, int rows, std::int64_t count, Isa isa);
  void transform(const Stretch* stretches, double* const* spectra, int n, Room& room) const;

  std::int64_t dims, frames, size, stride;  // stride: of spectra and of blocks, in values
  const RealFft<double>& fft;
  const Kernels<double>& kernels;
  std::vector<double> halves, scales;  // windows on the way there and back
  std::vector<double> clip;            // the spectra of its rows
};

FastCorrelation::Plan::Plan(const float* values, int rows, std::int64_t count, Isa isa)
    : dims(rows),
      frames(count),
      size(size_for(count)),
      stride(size + kPadding),
      fft(transform_of(size)),
      kernels(kernels_for<double>(isa)),
      halves(to_size(size), 0.5),
      scales(to_size(size), 1.0 / static_cast<double>(size)),
      clip(checked_product(to_size(dims), to_size(stride))) {
  Room room(*this);
  for (std::int64_t row = 0; row < dims; row += kLanes) {
    const int n = static_cast<int>(std::min<std::int64_t>(kLanes, dims - row));
    Stretch stretches[kLanes];
    double* spectra[kLanes];
    for (int l = 0; l < n; ++l) {
      stretches[l] = {values + (row + l) * frames, frames};
      spectra[l] = clip.data() + (row + l) * stride;
    }
    transform(stretches, spectra, n, room);
  }
}

// The spectra of n stretches, each followed by zeros.
void FastCorrelation::Plan::transform(const Stretch* stretches, double* const* spectra, int n, Room& room) const {
  const double* from[kLanes];
  double* to[kLanes];
  for (int l = 0; l < kLanes; ++l) {
    const int lane = std::min(l, n - 1);
    double* values = room.values + lane * stride;
    if (l == lane) std::fill(std::copy_n(stretches[l].values, stretches[l].count, values), values + size, 0.0);
    from[l] = values;
    to[l] = spectra[lane];
  }
  kernels.spectrum(fft.plan(), halves.data(), from, room.scratch, to, n);
}

FastCorrelation::FastCorrelation(const float* clip, int dims, std::int64_t frames, Isa isa)
    : plan_(std::make_unique<Plan>(clip, dims, frames, isa)) {}
FastCorrelation::~FastCorrelation() = default;

bool FastCorrelation::run(const float* piece, std::int64_t frames, double* out, const Stop& stop) const {
  const Plan& plan = *plan_;
  const std::int64_t step = plan.size - plan.frames + 1, offsets = frames - plan.frames + 1;
  const std::int64_t blocks = (offsets + step - 1) / step, bins = plan.fft.plan().bins;
  const auto size = static_cast<double>(plan.size);
  const auto work = static_cast<std::int64_t>(kCost * kLanes * size * std::log2(size));  // of sixteen transforms
  Plan::Room room(plan);
  for (std::int64_t first = 0; first < blocks; first += kLanes) {
    const int count = static_cast<int>(std::min<std::int64_t>(kLanes, blocks - first));
    std::fill_n(room.sums, count * plan.stride, 0.0);
    // Rows of blocks, sixteen at a time.
    for (std::int64_t job = 0; job < count * plan.dims; job += kLanes) {
      const int n = static_cast<int>(std::min<std::int64_t>(kLanes, count * plan.dims - job));
      Plan::Stretch stretches[kLanes];
      double* to[kLanes];
      for (int l = 0; l < n; ++l) {
        const std::int64_t begin = (first + (job + l) / plan.dims) * step, row = (job + l) % plan.dims;
        stretches[l] = {piece + row * frames + begin, std::min(plan.size, frames - begin)};
        to[l] = room.spectra + l * plan.stride;
      }
      plan.transform(stretches, to, n, room);
      for (int l = 0; l < n; ++l) {
        const std::int64_t block = (job + l) / plan.dims, row = (job + l) % plan.dims;
        add_product(to[l], plan.clip.data() + row * plan.stride, bins, room.sums + block * plan.stride);
      }
      if (stop(work)) return false;
    }
    const double* from[kLanes];
    double* to[kLanes];
    for (int l = 0; l < kLanes; ++l) {
      const int lane = std::min(l, count - 1);
      from[l] = room.sums + lane * plan.stride;
      to[l] = room.values + lane * plan.stride;
    }
    plan.kernels.inverse(plan.fft.plan(), plan.scales.data(), from, room.scratch, to, count);
    for (int l = 0; l < count; ++l) {
      const std::int64_t begin = (first + l) * step;
      std::copy_n(to[l], std::min(step, offsets - begin), out + begin);
    }
    if (stop(work)) return false;
  }
  return true;
}

}  // namespace musicgen::audio
