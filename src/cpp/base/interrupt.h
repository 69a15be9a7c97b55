// How a caller ends a long call early.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>

namespace musicgen {

// Asked every few milliseconds in the calling thread; true ends the call early.
class Interrupt {
 public:
  virtual ~Interrupt() = default;
  virtual bool requested() = 0;
};

// Asks the caller's interrupt in the calling thread, by the amount of work done; the other threads see the flag.
class Watch {
 public:
  Watch(Interrupt* interrupt, std::atomic<bool>& stopped) : interrupt_(interrupt), stopped_(stopped) {}

  // True when the call should end.
  bool after(std::size_t multiplications) {
    work_ += multiplications;
    if (work_ < kWorkBetweenLooks) return false;
    work_ = 0;
    if (interrupt_ != nullptr) {
      const auto now = std::chrono::steady_clock::now();
      if (now - last_ > std::chrono::milliseconds(20)) {
        last_ = now;
        if (interrupt_->requested()) stopped_ = true;
      }
    }
    return stopped_;
  }

 private:
  static constexpr std::size_t kWorkBetweenLooks = 5'000'000;  // 0.1 ms on a fast path, 10 ms on the slowest
  Interrupt* interrupt_;
  std::atomic<bool>& stopped_;
  std::size_t work_ = 0;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace musicgen
