// What every way of writing a song as whole numbers has in common. An encoder is made once from its options and then
// only read: threads share it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "midi/song.h"

namespace musicgen::midi {

struct Encoded {
  Buffer<std::int32_t> tokens;      // row after row
  std::vector<std::string> issues;  // what the encoding could not hold, in words, each kind once with its count
};

class Encoder {
 public:
  Encoder() = default;
  Encoder(const Encoder&) = delete;
  Encoder& operator=(const Encoder&) = delete;
  virtual ~Encoder() = default;

  // Tokens in a row: 1, or the slots of a frame.
  virtual int width() const { return 1; }

  // The song has passed check_song or was parsed. Throws std::invalid_argument for one that this encoding cannot say
  // at all.
  virtual Encoded encode(const SongView& song, Poll poll) const = 0;

  // The song that the tokens mean. Any tokens of the vocabulary have a meaning; others throw std::invalid_argument
  // naming the first.
  virtual Song decode(const std::int32_t* tokens, std::size_t rows, Poll poll) const = 0;
};

}  // namespace musicgen::midi
