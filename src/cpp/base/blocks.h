// Memory for results, handed from one that is thrown away to the next.
//
// A program that reads file after file asks for some megabytes and gives them back, again and again, and the system
// zeroes every page anew: 1.4 us for 4 KiB where that was measured, as long as it takes to parse the notes in it.
#pragma once

#include <cstddef>

namespace musicgen {

struct Block {  // from malloc, or nothing at all
  void* data = nullptr;
  std::size_t bytes = 0;
};

// At least `bytes`, at most about twice as many; not zeroed. Throws std::bad_alloc.
Block take_block(std::size_t bytes);

// Frees the block or keeps it for take_block(): a few blocks, 32 MiB in all. From any thread.
void give_block(Block block) noexcept;

}  // namespace musicgen
