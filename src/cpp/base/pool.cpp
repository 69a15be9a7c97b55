#include "base/pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "base/spin.h"

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#define MUSICGEN_FORKS 1
#else
#define MUSICGEN_FORKS 0
#endif
#if defined(__linux__)
#include <sched.h>
#endif

namespace musicgen {

namespace {

using Clock = std::chrono::steady_clock;

// How often the caller looks up from its work; a tenth of what Ctrl-C may take.
constexpr std::chrono::milliseconds kBetweenPolls{10};
// How long a thread looks for more work, or for the end of it, before it sleeps: waking takes some 30 us, 10 of them
// the caller's. It keeps its processor for the first of these times only, and then offers it to others between looks.
constexpr std::chrono::microseconds kBeforeYield{50};
constexpr std::chrono::microseconds kBeforeSleep{1000};

template <typename Condition>
bool soon(const Condition& condition) {
  const Clock::time_point begin = Clock::now();
  for (;;) {
    for (int i = 0; i < 32; ++i) {
      if (condition()) return true;
      breathe();
    }
    const Clock::duration waited = Clock::now() - begin;
    if (waited >= kBeforeSleep) return false;
    if (waited >= kBeforeYield) std::this_thread::yield();
  }
}

struct Job {
  Job(std::size_t n, std::size_t parts, const std::function<void(std::size_t)>& f) : count(n), shares(parts), body(f) {}

  const std::size_t count;
  const std::size_t shares;  // a thread takes what is left divided by this, or one item
  const std::function<void(std::size_t)>& body;
  std::atomic<std::size_t> next{0};
  std::atomic<bool> stopped{false};
  std::atomic<int> helpers{0};  // threads of the pool that are inside
  int wanted = 0;               // how many more may join
  std::exception_ptr failure;   // under the pool's lock, as `wanted`
  std::condition_variable done;

  bool open() const { return !stopped.load() && next.load() < count; }

  // The next items, [begin, end).
  bool take(std::size_t& begin, std::size_t& end) {
    begin = next.load();
    do {
      if (begin >= count || stopped.load()) return false;
      end = begin + std::max<std::size_t>(1, (count - begin) / shares);
    } while (!next.compare_exchange_weak(begin, end));
    return true;
  }
};

class Pool {
 public:
  void run(Job& job, int threads, const std::function<void()>& idle) {
    const int helpers = post(job, threads - 1);
    helpers == 1 ? wake_.notify_one() : wake_.notify_all();
    work(job, &idle);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      jobs_.erase(std::find(jobs_.begin(), jobs_.end(), &job));
    }
    soon([&] { return job.helpers.load() == 0; });
    std::unique_lock<std::mutex> lock(mutex_);  // also waits until the last helper has let go of the job
    while (job.helpers.load() != 0) {
      if (job.done.wait_for(lock, kBetweenPolls) == std::cv_status::timeout && !job.failure) {
        lock.unlock();
        attempt(job, idle);
        lock.lock();
      }
    }
    if (job.failure) std::rethrow_exception(job.failure);
  }

 private:
  int post(Job& job, int wanted) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const int helpers = std::min(wanted, grow_to(wanted));
    job.wanted = helpers;
    steer_away();
    jobs_.push_back(&job);
    posted_.fetch_add(1);
    return helpers;
  }

  // Linux likes to wake a thread on the processor of whoever wakes it, where it would wait for its caller to pause: 30
  // s of sound took two threads longer than one. So the threads may use all processors of the caller but the one it is
  // on.
  void steer_away() {
#if defined(__linux__)
    cpu_set_t others;
    const int here = sched_getcpu();
    if (here < 0 || pthread_getaffinity_np(pthread_self(), sizeof(others), &others) != 0) return;
    CPU_CLR(here, &others);
    if (CPU_COUNT(&others) == 0) return;
    const bool same = CPU_EQUAL(&others, &others_);
    for (std::size_t i = same ? steered_ : 0; i < handles_.size(); ++i)
      pthread_setaffinity_np(handles_[i], sizeof(others), &others);  // refused: then it is slower, no more
    others_ = others;
    steered_ = handles_.size();
#endif
  }

  template <typename Action>
  void attempt(Job& job, const Action& action) {
    try {
      action();
    } catch (...) {
      job.stopped = true;
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!job.failure) job.failure = std::current_exception();
    }
  }

  void work(Job& job, const std::function<void()>* idle) {
    attempt(job, [&] {
      Clock::time_point polled = idle != nullptr ? Clock::now() : Clock::time_point{};
      std::size_t begin, end;
      while (job.take(begin, end)) {
        for (; begin < end && !job.stopped.load(); ++begin) {
          job.body(begin);
          if (idle == nullptr) continue;
          const Clock::time_point now = Clock::now();
          if (now - polled < kBetweenPolls) continue;
          (*idle)();
          polled = now;
        }
      }
    });
  }

  // Starts threads until there are `wanted`, or no more to be had; returns how many there are.
  int grow_to(int wanted) {
    try {
      for (; threads_ < wanted; ++threads_) {
        std::thread thread([this] { serve(); });
#if defined(__linux__)
        handles_.push_back(thread.native_handle());
#endif
        thread.detach();
      }
    } catch (const std::system_error&) {
    }
    return threads_;
  }

  void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      const auto open =
          std::find_if(jobs_.begin(), jobs_.end(), [](const Job* job) { return job->wanted > 0 && job->open(); });
      if (open == jobs_.end()) {
        const unsigned seen = posted_.load();
        lock.unlock();
        const bool more = soon([&] { return posted_.load() != seen; });
        lock.lock();
        if (!more) wake_.wait(lock, [&] { return posted_.load() != seen; });
        continue;
      }
      Job& job = **open;
      --job.wanted;
      job.helpers.fetch_add(1);
      lock.unlock();
      work(job, nullptr);
      lock.lock();
      if (job.helpers.fetch_sub(1) == 1) job.done.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Job*> jobs_;
  std::atomic<unsigned> posted_{0};
  int threads_ = 0;
#if defined(__linux__)
  std::vector<pthread_t> handles_;
  std::size_t steered_ = 0;  // of the handles, to these processors
  cpu_set_t others_{};
#endif
};

// Never destroyed: its threads may still wait in it while the process ends. A forked child has none of these threads,
// and the lock may be held by one that is gone: it forgets the pool and makes another.
std::atomic<Pool*> current{nullptr};

#if MUSICGEN_FORKS
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, [] { current.store(nullptr); });
#endif

Pool& pool() {
  Pool* found = current.load();
  if (found != nullptr) return *found;
  Pool* made = new Pool;
  if (current.compare_exchange_strong(found, made)) return *made;
  delete made;  // another thread was faster; this one has not started anything
  return *found;
}

void alone(std::size_t count, const std::function<void(std::size_t)>& body, const std::function<void()>& idle) {
  Clock::time_point polled = Clock::now();
  for (std::size_t i = 0; i < count; ++i) {
    body(i);
    const Clock::time_point now = Clock::now();
    if (now - polled < kBetweenPolls) continue;
    idle();
    polled = now;
  }
}

}  // namespace

void spread(std::size_t count, int threads, const std::function<void(std::size_t)>& body,
            const std::function<void()>& idle, bool neighbours) {
  const int useful = static_cast<int>(std::min<std::size_t>(count, static_cast<std::size_t>(std::max(threads, 1))));
  if (useful <= 1) return alone(count, body, idle);
  Job job(count, neighbours ? 2 * static_cast<std::size_t>(useful) : count, body);
  pool().run(job, useful, idle);
}

}  // namespace musicgen
