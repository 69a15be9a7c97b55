#include "base/parallel.h"

#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace musicgen {

void parallel(int parts, const std::function<void(int)>& body, const std::function<void()>& idle) {
  std::mutex mutex;
  std::condition_variable finished;
  int running = 0;
  std::exception_ptr failure;

  const auto guarded = [&](int part) {
    try {
      body(part);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex);
      if (!failure) failure = std::current_exception();
    }
  };

  std::vector<std::thread> threads;
  std::vector<int> mine = {0};
  threads.reserve(static_cast<std::size_t>(parts));
  for (int part = 1; part < parts; ++part) {
    {
      const std::lock_guard<std::mutex> lock(mutex);
      ++running;
    }
    try {
      threads.emplace_back([&, part] {
        guarded(part);
        const std::lock_guard<std::mutex> lock(mutex);
        --running;
        finished.notify_one();
      });
    } catch (const std::system_error&) {  // no more threads to be had: this one does the part
      const std::lock_guard<std::mutex> lock(mutex);
      --running;
      mine.push_back(part);
    }
  }
  for (const int part : mine) guarded(part);

  {
    std::unique_lock<std::mutex> lock(mutex);
    while (running > 0) {
      if (finished.wait_for(lock, std::chrono::milliseconds(10)) == std::cv_status::timeout) {
        lock.unlock();
        idle();
        lock.lock();
      }
    }
  }
  for (std::thread& thread : threads) thread.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace musicgen
