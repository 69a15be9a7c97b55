// Which chord sounds in a stretch of time: a recogniser in whole numbers.
//
// Every pitch class weighs as many steps as its notes sound in the stretch. A chord is there if all of its tones sound;
// of those that are, the one with the most weight in its tones wins, then the one on the lowest note, then the first.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace musicgen::midi {

// Pitch classes above the root, a bit each: maj, min, dim, aug, 7, maj7, min7, hdim7, dim7 (the shorthands of Harte et
// al., Symbolic representation of musical chords, 2005).
constexpr std::array<std::uint32_t, 9> chord_qualities = {0b0000'1001'0001, 0b0000'1000'1001, 0b0000'0100'1001,
                                                          0b0001'0001'0001, 0b0100'1001'0001, 0b1000'1001'0001,
                                                          0b0100'1000'1001, 0b0100'0100'1001, 0b0010'0100'1001};
constexpr std::int32_t num_chords = 12 * static_cast<std::int32_t>(chord_qualities.size());

class ChordFinder {
 public:
  // Notes come in order of their beginning.
  void add(std::int64_t begin, std::int64_t end, int pitch) { sounding_.push_back({begin, end, pitch}); }

  // Root times 9 plus quality, or -1. All notes that begin before `end` have been added; no stretch begins before the
  // last one.
  std::int32_t find(std::int64_t begin, std::int64_t end);

 private:
  struct Sounding {
    std::int64_t begin, end;
    int pitch;
  };
  std::vector<Sounding> sounding_;
};

}  // namespace musicgen::midi
