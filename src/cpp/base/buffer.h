// A growing array of plain values whose memory can be handed to numpy without a copy.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <type_traits>
#include <utility>

#include "base/blocks.h"

namespace musicgen {

// malloc and realloc rather than std::vector: large blocks grow by remapping pages instead of holding two copies, so
// the peak stays near the final size; new values are not zeroed first; and release() gives the block away.
template <typename T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T>, "realloc moves the values");

 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Buffer() { give_block({data_, capacity_ * sizeof(T)}); }

  T* data() { return data_; }
  const T* data() const { return data_; }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T& operator[](std::size_t i) { return data_[i]; }
  const T& operator[](std::size_t i) const { return data_[i]; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }

  void push(const T& value) {
    if (size_ == capacity_) grow(1);
    data_[size_++] = value;
  }

  // Room for `count` more values at the end; the caller writes them.
  T* extend(std::size_t count) {
    if (count > capacity_ - size_) grow(count);
    T* at = data_ + size_;
    size_ += count;
    return at;
  }

  void reserve(std::size_t more) {
    if (more > capacity_ - size_) grow(more);
  }

  // Within what is reserved; new values are as they were.
  void set_size(std::size_t size) { size_ = size; }

  void append(const T* values, std::size_t count) {
    if (count > 0) std::memcpy(extend(count), values, count * sizeof(T));  // nothing may have no address
  }

  // The block, for give_block(), never null and less than half empty; the buffer is empty afterwards.
  Block release() {
    if (data_ == nullptr || size_ < capacity_ / 2) reallocate(size_);
    size_ = 0;
    return {std::exchange(data_, nullptr), std::exchange(capacity_, 0) * sizeof(T)};
  }

 private:
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
  }

  void grow(std::size_t more) {
    constexpr std::size_t most = static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max()) / sizeof(T);
    if (more > most - size_) throw std::bad_alloc();
    const std::size_t needed = size_ + more, half_more = capacity_ + capacity_ / 2 + 64;  // < 2 * most: no overflow
    reallocate(needed > half_more ? needed : (half_more < most ? half_more : most));
  }

  void reallocate(std::size_t capacity) {
    Block block{nullptr, capacity * sizeof(T)};
    if (data_ == nullptr) {
      block = take_block(block.bytes);
    } else {
      block.data = std::realloc(data_, block.bytes == 0 ? 1 : block.bytes);
      if (block.data == nullptr) throw std::bad_alloc();
    }
    data_ = static_cast<T*>(block.data);
    capacity_ = block.bytes / sizeof(T);
  }

  T* data_ = nullptr;
  std::size_t size_ = 0, capacity_ = 0;
};

}  // namespace musicgen
