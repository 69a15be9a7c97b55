#include "generate/wavenet_pair.h"

#include <algorithm>
#include <thread>

#include "base/checked.h"
#include "base/spin.h"

namespace musicgen::generate {

namespace {

constexpr int kSpins = 1024;                            // before a thread that waits lets others have the processor
constexpr std::chrono::microseconds kBeforeSleep{200};  // how long a helper without work looks for more
constexpr double kPatience = 100e-6;         // and seconds that the leader waits after that, and the time of a sample
constexpr std::int64_t kTrial = 48;          // samples that are enough to see which way is faster
constexpr std::int64_t kTurn = 64 * kTrial;  // samples until both are tried again
constexpr std::int64_t kMostWaits = 64;      // turns, where the helper has not come
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

WaveNetPair::WaveNetPair(const WaveNetModel& model, Isa isa, Sequence& sequence, std::int64_t n_samples)
    : model_(model),
      kernels_(wavenet_kernels_for(isa)),
      layers_(*kernels_.layers_for(model.precision(), model.channels() / kLanes)),
      sequence_(sequence),
      n_samples_(n_samples),
      n_layers_(static_cast<std::int64_t>(model.layers().size())),
      int8_(model.precision() == Precision::int8) {
  lay_out();
  memory_ = Arena(used_);
  used_ = 0;
  lay_out();
  called_.set(0);
  ready_.set(0);
  begun_.set(0);
  inside_.set(0);
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
  if (sample >= until_ || (joined_ && slower_than_alone(sample))) begin_stretch(sample);
  return joined_;
}

// Looked at now and then: another process may have come to the helper's processor.
bool WaveNetPair::slower_than_alone(std::int64_t sample) {
  if (sample == from_ || (sample - from_) % kTrial != 0) return false;
  const Clock::time_point now = Clock::now();
  const double seconds = std::chrono::duration<double>(now - looked_).count() / static_cast<double>(kTrial);
  looked_ = now;
  return seconds > seconds_[0];
}

// The helper does nothing more at this sample. What it is reading now must stay as it is until it has read it.
void WaveNetPair::send_off(std::int64_t sample) {
  end_.value.store(sample);
  spin_until([&] { return inside_.value.load() == 0; });
}

void WaveNetPair::begin_stretch(std::int64_t sample) {
  const Clock::time_point now = Clock::now();
  if (sample - from_ >= kTrial)
    seconds_[joined_] = std::chrono::duration<double>(now - since_).count() / static_cast<double>(sample - from_);
  if (joined_ && !alone_again_) send_off(sample);
  from_ = sample;
  since_ = looked_ = now;
  if (calling_) {  // the helper may have to wake up first
    joined_ = ready_.get() == called_.get();
    until_ = sample + (joined_ ? length_ : kTrial);
    if (!joined_) return;
    calling_ = false;
    older_.set(sample * n_layers_);
    older_seen_ = sample * n_layers_;
    first_.set(sample);
    end_.set(std::min(until_, n_samples_));
    begun_.set(called_.get());
    return;
  }
  // Alone, together, and for a while the faster of the two; then again. Alone for longer and longer where the helper
  // has not come.
  const int phase = alone_again_ ? 0 : static_cast<int>(turns_++ % 3);
  joined_ = false;
  length_ = alone_again_ ? kTurn * waits_ : phase == 2 ? kTurn : kTrial;
  until_ = sample + length_;
  alone_again_ = false;
  calling_ = phase == 1 || (phase == 2 && seconds_[1] < seconds_[0]);
  if (!calling_) return;
  called_.set(called_.get() + 1);
  until_ = sample + 1;
}

bool WaveNetPair::run(std::int64_t sample, float* skip) {
  const WaveNetStep step = step_at(sample, true);
  const std::size_t z_bytes = to_size(model_.channels()) * (int8_ ? 1 : sizeof(float));
  for (std::int64_t l = 0; l < n_layers_; ++l) {
    if (l + kLayersAhead < n_layers_) {
      const std::size_t ahead = to_size(l + kLayersAhead);
      fetch(step.sums + ahead * step.sums_pitch, step.sums_pitch * sizeof(float), false);
      fetch(static_cast<char*>(step.z) + ahead * z_bytes, z_bytes, true);
    }
    const std::int64_t done = sample * n_layers_ + l + 1;
    if (older_seen_ < done && !helper_comes([&] { return (older_seen_ = older_.get()) >= done; })) {
      run_alone(sample, l);
      return false;
    }
    layers_.chain(step, static_cast<int>(l));
    if (done % kLayersATelling == 0 || l + 1 == n_layers_) chain_.set(done);
  }
  if (!sequence_.wants_logits(sample)) return false;
  kernels_.rows_begin(leaders_);
  if (leaders_.vecs > 0) kernels_.rows_add(leaders_, 0, model_.skip().cols, step.z);
  kernels_.rows_end(leaders_, kByteScale);
  if (!helper_comes([&] { return skip_.get() >= sample; })) {
    run_alone(sample, n_layers_);
    return false;
  }
  std::copy(skip_sums_, skip_sums_ + model_.skip().vecs * kLanes, skip);
  return true;
}

// Waits for the helper, but not for a processor that is taken from it.
template <class Condition>
bool WaveNetPair::helper_comes(const Condition& condition) const {
  for (int i = 0; i < kSpins; ++i) {
    if (condition()) return true;
    breathe();
  }
  const Clock::time_point begin = Clock::now();
  const std::chrono::duration<double> patience(kPatience + seconds_[0]);
  while (Clock::now() - begin < patience) {
    if (condition()) return true;
    std::this_thread::yield();
  }
  return false;
}

// Ends the stretch with this sample.
void WaveNetPair::run_alone(std::int64_t sample, std::int64_t layer) {
  send_off(sample);
  until_ = sample + 1;
  alone_again_ = true;
  waits_ = std::min(2 * waits_, kMostWaits);
  const WaveNetStep step = sequence_.step_at(sample, true);
  for (; layer < n_layers_; ++layer) {
    layers_.older(step, static_cast<int>(layer));
    layers_.chain(step, static_cast<int>(layer));
  }
}

void WaveNetPair::end() {
  over_.store(true, std::memory_order_release);
  end_.set(-1);
}

// -- the helper -------------------------------------------------------------------------------------------------------

void WaveNetPair::help() {
  for (std::int64_t stretch = 1;; ++stretch) {
    const Clock::time_point idle = Clock::now();
    while (called_.get() < stretch) {
      if (over_.load(std::memory_order_acquire)) return;
      if (Clock::now() - idle < kBeforeSleep) {
        for (int i = 0; i < 64; ++i) breathe();
      } else {
        std::this_thread::sleep_for(kBeforeSleep);
      }
    }
    ready_.set(stretch);
    spin_until([&] { return begun_.get() >= stretch || over_.load(std::memory_order_acquire); });
    if (begun_.get() < stretch) return;
    for (std::int64_t sample = first_.get(); !given_up(sample); ++sample) help_with(sample);
  }
}

void WaveNetPair::help_with(std::int64_t sample) {
  const WaveNetStep step = step_at(sample, false);
  for (std::int64_t l = 0; l < n_layers_; ++l) {
    if (!enter(sample)) return;
    layers_.older(step, static_cast<int>(l));
    leave();
    older_.set(sample * n_layers_ + l + 1);
  }
  const bool wanted = sequence_.wants_logits(sample);
  if (wanted) kernels_.rows_begin(helpers_);
  for (std::int64_t l = 0; l < n_layers_; ++l) {  // also for the inputs of the next sample's older taps
    if (!wait_for(chain_, sample * n_layers_ + l + 1, sample)) return;
    if (!wanted) continue;
    if (!enter(sample)) return;
    const int channels = model_.channels(), first = static_cast<int>(l) * channels;
    const auto* z = static_cast<const unsigned char*>(step.z) + to_size(first) * (int8_ ? 1 : sizeof(float));
    kernels_.rows_add(helpers_, first, channels, z);
    leave();
  }
  if (wanted) kernels_.rows_end(helpers_, kByteScale);
  skip_.set(sample);
}

// Either the leader sees the helper inside, or the helper sees that the leader has given the sample up.
bool WaveNetPair::enter(std::int64_t sample) {
  inside_.value.store(1);
  if (sample < end_.value.load()) return true;
  leave();
  return false;
}

void WaveNetPair::leave() { inside_.set(0); }

void WaveNetPair::wait_for_leader(std::int64_t sample) { wait_for(reached_, sample, sample); }

bool WaveNetPair::wait_for(const Counter& counter, std::int64_t least, std::int64_t sample) const {
  spin_until([&] { return counter.get() >= least || given_up(sample); });
  return counter.get() >= least;
}

// -- both -------------------------------------------------------------------------------------------------------------

WaveNetStep WaveNetPair::step_at(std::int64_t sample, bool leader) {
  WaveNetStep step = sequence_.step_at(sample, leader);
  step.sums = gates_;
  step.sums_pitch = 2 * to_size(model_.channels());
  return step;
}

}  // namespace musicgen::generate
