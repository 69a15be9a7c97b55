// One sequence on two threads. The chain from sample to sample (newest taps, gates, residuals) stays on one, the
// leader; the other, the helper, computes what the chain does not wait for: the older taps, ahead of it, and most of
// the skip product, behind it. The output layers are cut in halves by rows. Every sum is made by one thread, in the
// order that a single thread keeps: the same bits.
//
// The threads meet a few times a sample, through counters: no locks. A helper that never comes, or whose processor is
// busy with something else, costs time but no answer; the leader measures, and goes on alone where that is faster.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include "base/arena.h"
#include "generate/wavenet.h"

namespace musicgen::generate {

class WaveNetPair {
 public:
  // What the pair is told of its sequence.
  class Sequence {
   public:
    virtual ~Sequence() = default;
    // At a sample of the call. The helper asks ahead of the leader.
    virtual WaveNetStep step_at(std::int64_t sample, bool leader) = 0;
    virtual bool wants_logits(std::int64_t sample) const = 0;
  };

  WaveNetPair(const WaveNetModel& model, Isa isa, Sequence& sequence, std::int64_t n_samples);

  // -- the leader's side --
  // To be called before every sample: whether it is to be computed together, by run().
  bool together(std::int64_t sample);
  // Layers, from an embedded input. True if the skip product is done, too: its sums are in `skip`.
  bool run(std::int64_t sample, float* skip);
  // No more samples: the helper may go.
  void end();

  // -- the helper's side --
  // Returns after end().
  void help();
  // For step_at: returns when the leader has come to the sample, or will not.
  void wait_for_leader(std::int64_t sample);

 private:
  using Clock = std::chrono::steady_clock;
  // On a line of its own: what one thread writes does not take away what the other reads.
  struct alignas(64) Counter {
    std::atomic<std::int64_t> value{-1};
    void set(std::int64_t to) { value.store(to, std::memory_order_release); }
    std::int64_t get() const { return value.load(std::memory_order_acquire); }
  };

  void lay_out();
  void begin_stretch(std::int64_t sample);
  bool slower_than_alone(std::int64_t sample);
  void send_off(std::int64_t sample);
  template <class Condition>
  bool helper_comes(const Condition& condition) const;
  void run_alone(std::int64_t sample, std::int64_t layer);
  bool enter(std::int64_t sample);
  void leave();
  bool given_up(std::int64_t sample) const { return sample >= end_.get(); }
  // True when the counter has reached `least`; false when the leader has given the sample up.
  bool wait_for(const Counter& counter, std::int64_t least, std::int64_t sample) const;
  WaveNetStep step_at(std::int64_t sample, bool leader);
  void help_with(std::int64_t sample);

  const WaveNetModel& model_;
  const WaveNetKernels& kernels_;
  const WaveNetLayerKernels& layers_;
  Sequence& sequence_;
  std::int64_t n_samples_;  // of the call: the helper, who runs ahead, does not go beyond
  std::int64_t n_layers_;
  bool int8_;
  Arena memory_;
  std::size_t used_ = 0;
  float* gates_ = nullptr;
  float* skip_sums_ = nullptr;
  RowsProduct helpers_, leaders_;  // their rows of the skip product

  Counter older_, chain_;  // layers done, of all samples
  Counter skip_;           // the last sample whose rows the helper has done
  Counter reached_;        // the last sample that the leader has begun
  // Stretches of samples [first, end) computed together: how many the leader has called the helper for, for how many it
  // was ready, and how many have begun.
  Counter called_, ready_, begun_, first_, end_;
  Counter inside_;  // 1 while the helper reads what the leader writes, once it goes on alone
  std::atomic<bool> over_{false};

  // The leader's: which way it goes until `until_`, and seconds a sample of both ways when last measured.
  bool joined_ = false, calling_ = false, alone_again_ = false;
  std::int64_t waits_ = 1;  // turns
  std::int64_t older_seen_ = 0;
  std::int64_t from_ = 0, until_ = 0, length_ = 0, turns_ = 0;
  double seconds_[2] = {0.0, 0.0};
  Clock::time_point since_, looked_;
};

}  // namespace musicgen::generate
