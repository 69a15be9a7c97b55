#include "base/arena.h"

#include <cstring>
#include <new>

#include "base/checked.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace musicgen {

namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kLine = 64;

// A small model does not deserve a huge page of its own.
std::size_t alignment_for(std::size_t bytes) { return bytes >= kHugePage / 4 ? kHugePage : kLine; }

}  // namespace

Arena::Arena(std::size_t bytes) : size_(bytes) {
  if (bytes == 0) return;
  const std::size_t alignment = alignment_for(bytes);
  const std::size_t rounded = round_up(bytes, alignment);
  data_ = static_cast<std::byte*>(::operator new(rounded, std::align_val_t{alignment}));
#if defined(__linux__)
  if (alignment == kHugePage) madvise(data_, rounded, MADV_HUGEPAGE);  // advice: refusal costs speed, nothing else
#endif
  std::memset(data_, 0, rounded);
}

Arena::~Arena() {
  if (data_ != nullptr) ::operator delete(data_, std::align_val_t{alignment_for(size_)});
}

std::byte* thread_memory(std::size_t bytes) {
  thread_local Arena arena;
  if (arena.size() < bytes) {
    arena = Arena();  // the old one first
    arena = Arena(bytes);
  }
  return arena.data();
}

}  // namespace musicgen
