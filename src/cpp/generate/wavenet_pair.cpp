#include "generate/wavenet_pair.h"

#include <algorithm>
#include <thread>

#include "base/checked.h"
#include "base/spin.h"

namespace musicgen::generate {

namespace {

constexpr int kSpins = 4096;                 // before a thread that waits lets others have the processor
constexpr std::int64_t kTrial = 48;          // samples that are enough to see which way is faster
constexpr std::int64_t kTurn = 64 * kTrial;  // samples until both are tried again
// How often the leader tells how far it is: every telling takes the line of the counter back from the helper.
constexpr std::int64_t kLayersATelling = 4;
// How many layers ahead the leader asks for lines that the helper had last.
constexpr std::int64_t kLayersAhead = 3;

std::size_t products(const Matrix& matrix) { return to_size(matrix.vecs) * to_size(matrix.cols); }

// Vectors of rows of the skip product that are left to the leader, so that both have as much to do. What the chain
// takes longer than its products would by themselves: a third.
int leaders_share(const WaveNetModel& model, int n_taps) {
  double older = 0.0, chain = 0.0;
  for (const WaveNetLayer& layer : model.layers()) {
    const double tap = static_cast<double>(products(layer.taps[0]));
    older += (n_taps - 1) * tap;
    chain += 1.33 * (tap + static_cast<double>(products(layer.residual)));
  }
  const double skip = static_cast<double>(products(model.skip()));
  const double outputs = static_cast<double>(products(model.hidden()) + products(model.logits()));
  const double share = std::clamp((older + skip - chain - outputs) / (2.0 * skip), 0.0, 1.0);
  return static_cast<int>(share * model.skip().vecs + 0.5);
}

inline void fetch(const void* p, std::size_t bytes, bool to_write) {
#if defined(__GNUC__)
  const char* at = static_cast<const char*>(p);
  for (std::size_t i = 0; i < bytes; i += 64) to_write ? __builtin_prefetch(at + i, 1) : __builtin_prefetch(at + i, 0);
#else
  (void)p, (void)bytes, (void)to_write;
#endif
}

template <class Condition>
void spin_until(const Condition& condition) {
  for (;;) {
    for (int i = 0; i < kSpins; ++i) {
      if (condition()) return;
      breathe();
    }
    std::this_thread::yield();
  }
}

}  // namespace

WaveNetPair::WaveNetPair(const WaveNetModel& model, Isa isa, Sequence& sequence)
    : model_(model),
      kernels_(wavenet_kernels_for(isa)),
      layers_(*kernels_.layers_for(model.precision(), model.channels() / kLanes)),
      sequence_(sequence),
      n_layers_(static_cast<std::int64_t>(model.layers().size())),
      int8_(model.precision() == Precision::int8) {
  lay_out();
  memory_ = Arena(used_);
  used_ = 0;
  lay_out();
  asked_.set(0);
  answered_.set(0);
}

void WaveNetPair::lay_out() {
  const auto take = [this](std::size_t bytes) {
    const std::size_t at = used_;
    used_ += round_up(bytes, 64);
    return memory_.size() > 0 ? memory_.data() + at : nullptr;
  };
  const auto floats = [&](std::size_t n) { return reinterpret_cast<float*>(take(n * sizeof(float))); };
  gates_ = floats(to_size(n_layers_) * 2 * to_size(model_.channels()));
  const Matrix& skip = model_.skip();
  skip_sums_ = floats(to_size(skip.vecs) * kLanes);
  void* sums = take(to_size(skip.vecs) * 64);
  const int leaders = leaders_share(model_, model_.spec().kernel_size);
  helpers_ = {&skip, model_.skip_bias(), 0, skip.vecs - leaders, sums, skip_sums_};
  leaders_ = {&skip, model_.skip_bias(), skip.vecs - leaders, leaders, sums, skip_sums_};
}

bool WaveNetPair::together(std::int64_t sample) {
  reached_.set(sample);
  if (sample >= until_) {
    begin_stretch(sample);
  } else if (joined_ && (sample - from_) % 8 == 7) {
    // A helper whose processor is taken away for a while: do not wait for it again.
    const double seconds = std::chrono::duration<double>(Clock::now() - since_).count();
    if (seconds > 4.0 * seconds_[0] * static_cast<double>(sample - from_) + 1e-3) begin_stretch(sample);
  }
  return joined_;
}

void WaveNetPair::begin_stretch(std::int64_t sample) {
  if (joined_) {
    end_.set(sample);
    spin_until([&] { return answered_.get() == asked_.get(); });
  }
  const Clock::time_point now = Clock::now();
  if (sample > from_)
    seconds_[joined_] = std::chrono::duration<double>(now - since_).count() / static_cast<double>(sample - from_);
  // Alone, together, and for a while the faster of the two; then again.
  const int phase = static_cast<int>(turns_++ % 3);
  joined_ = here_.load(std::memory_order_acquire) && (phase == 1 || (phase == 2 && seconds_[1] < seconds_[0]));
  from_ = sample;
  until_ = sample + (phase == 2 ? kTurn : kTrial);
  since_ = now;
  if (!here_.load(std::memory_order_acquire)) {  // look for the helper soon
    until_ = sample + kTrial;
    turns_ = 0;
  }
  if (!joined_) return;
  older_.set(sample * n_layers_);
  older_seen_ = sample * n_layers_;
  first_.set(sample);
  end_.set(until_);
  asked_.set(asked_.get() + 1);
}

void WaveNetPair::run(std::int64_t sample, float* skip) {
  const WaveNetStep step = step_at(sample, true);
  const std::size_t z_bytes = to_size(model_.channels()) * (int8_ ? 1 : sizeof(float));
  for (std::int64_t l = 0; l < n_layers_; ++l) {
    if (l + kLayersAhead < n_layers_) {
      const std::size_t ahead = to_size(l + kLayersAhead);
      fetch(step.sums + ahead * step.sums_pitch, step.sums_pitch * sizeof(float), false);
      fetch(static_cast<char*>(step.z) + ahead * z_bytes, z_bytes, true);
    }
    const std::int64_t done = sample * n_layers_ + l + 1;
    if (older_seen_ < done) spin_until([&] { return (older_seen_ = older_.get()) >= done; });
    layers_.chain(step, static_cast<int>(l));
    if (done % kLayersATelling == 0 || l + 1 == n_layers_) chain_.set(done);
  }
  if (!sequence_.wants_logits(sample)) return;
  kernels_.rows_begin(leaders_);
  if (leaders_.vecs > 0) kernels_.rows_add(leaders_, 0, model_.skip().cols, step.z);
  kernels_.rows_end(leaders_, kByteScale);
  wait_for(skip_, sample, sample);
  std::copy(skip_sums_, skip_sums_ + model_.skip().vecs * kLanes, skip);
}

void WaveNetPair::end() {
  over_.store(true, std::memory_order_release);
  end_.set(-1);
}

// -- the helper
// --------------------------------------------------------------------------------------------------------

void WaveNetPair::help() {
  here_.store(true, std::memory_order_release);
  for (std::int64_t stretch = 0;; ++stretch) {
    const Clock::time_point idle = Clock::now();
    while (asked_.get() <= stretch) {
      if (over_.load(std::memory_order_acquire)) return;
      if (Clock::now() - idle < std::chrono::microseconds(200)) {
        for (int i = 0; i < 64; ++i) breathe();
      } else {
        std::this_thread::sleep_for(std::chrono::microseconds(200));
      }
    }
    for (std::int64_t sample = first_.get(); !given_up(sample); ++sample) help_with(sample);
    answered_.set(stretch + 1);
  }
}

void WaveNetPair::help_with(std::int64_t sample) {
  const WaveNetStep step = step_at(sample, false);
  for (std::int64_t l = 0; l < n_layers_; ++l) {
    if (given_up(sample)) return;
    layers_.older(step, static_cast<int>(l));
    older_.set(sample * n_layers_ + l + 1);
  }
  const bool wanted = sequence_.wants_logits(sample);
  if (wanted) kernels_.rows_begin(helpers_);
  for (std::int64_t l = 0; l < n_layers_; ++l) {  // also for the inputs of the next sample's older taps
    if (!wait_for(chain_, sample * n_layers_ + l + 1, sample)) return;
    if (!wanted) continue;
    const int channels = model_.channels(), first = static_cast<int>(l) * channels;
    const auto* z = static_cast<const unsigned char*>(step.z) + to_size(first) * (int8_ ? 1 : sizeof(float));
    kernels_.rows_add(helpers_, first, channels, z);
  }
  if (wanted) kernels_.rows_end(helpers_, kByteScale);
  skip_.set(sample);
}

void WaveNetPair::wait_for_leader(std::int64_t sample) { wait_for(reached_, sample, sample); }

bool WaveNetPair::wait_for(const Counter& counter, std::int64_t least, std::int64_t sample) const {
  spin_until([&] { return counter.get() >= least || given_up(sample); });
  return counter.get() >= least;
}

// -- both
// --------------------------------------------------------------------------------------------------------------

WaveNetStep WaveNetPair::step_at(std::int64_t sample, bool leader) {
  WaveNetStep step = sequence_.step_at(sample, leader);
  step.sums = gates_;
  step.sums_pitch = 2 * to_size(model_.channels());
  return step;
}

}  // namespace musicgen::generate
