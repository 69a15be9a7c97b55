// One block of memory that holds all weights of a model in the order in which a step reads them.
#pragma once

#include <cstddef>
#include <utility>

namespace musicgen {

// A zeroed block on a 2 MiB boundary, in huge pages where the system offers them: a step walks megabytes of weights,
// and with 4 KiB pages a good part of its time would go into address translation. Throws std::bad_alloc.
class Arena {
 public:
  Arena() = default;
  explicit Arena(std::size_t bytes);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  Arena(Arena&& other) noexcept { swap(other); }
  Arena& operator=(Arena&& other) noexcept {
    swap(other);
    return *this;
  }

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  void swap(Arena& other) {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

// Working memory of this thread, with whatever the call before has left in it: as large as the largest so far.
std::byte* thread_memory(std::size_t bytes);

}  // namespace musicgen
