#include "base/blocks.h"

#include <array>
#include <atomic>
#include <cstdlib>
#include <new>

namespace musicgen {

namespace {

constexpr std::size_t smallest = std::size_t{64} << 10, largest = std::size_t{4} << 20;  // what is kept

#if !defined(__has_feature)
#define __has_feature(name) 0
#endif

#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
constexpr bool keeps = false;  // so that the use of a block that was given back is found
#else
constexpr bool keeps = true;
#endif

bool worth_keeping(std::size_t bytes) { return keeps && bytes >= smallest && bytes <= largest; }

// A kept block says its size in its first bytes. No lock, which a fork could leave closed for ever.
std::array<std::atomic<std::size_t*>, 8> kept;
std::atomic<unsigned> next_slot;

}  // namespace

Block take_block(std::size_t bytes) {
  if (worth_keeping(bytes)) {
    for (std::atomic<std::size_t*>& slot : kept) {
      if (slot.load(std::memory_order_relaxed) == nullptr) continue;
      std::size_t* const block = slot.exchange(nullptr, std::memory_order_acquire);
      if (block == nullptr) continue;
      if (*block >= bytes && *block / 2 <= bytes) return {block, *block};
      give_block({block, *block});
    }
  }
  void* const data = std::malloc(bytes == 0 ? 1 : bytes);
  if (data == nullptr) throw std::bad_alloc();
  return {data, bytes};
}

void give_block(Block block) noexcept {
  if (block.data == nullptr || !worth_keeping(block.bytes)) return std::free(block.data);
  auto* const size = static_cast<std::size_t*>(block.data);
  *size = block.bytes;
  for (std::atomic<std::size_t*>& slot : kept) {
    std::size_t* empty = nullptr;
    if (slot.compare_exchange_strong(empty, size, std::memory_order_release, std::memory_order_relaxed)) return;
  }
  const unsigned slot =
      next_slot.fetch_add(1, std::memory_order_relaxed) % kept.size();  // the newest are the likeliest
  std::free(kept[slot].exchange(size, std::memory_order_acq_rel));
}

}  // namespace musicgen
