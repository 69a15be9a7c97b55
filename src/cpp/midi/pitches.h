// One token for every note: its pitch, in order of start, then pitch.
//
// Ids: pitch - lowest, from 0; then the end of the piece, if the encoding has one. Times are not kept: decoding plays
// one note after the other, all of one length.
#pragma once

#include <cstddef>
#include <cstdint>

#include "midi/encoder.h"
#include "midi/tokens.h"

namespace musicgen::midi {

enum class Polyphony { all, highest, lowest };  // which of the notes that begin together

struct PitchOptions {
  int lowest = 0, highest = 127;  // pitches, both included
  Polyphony polyphony = Polyphony::all;
  Selection selection;
  int duration = 240;  // of a decoded note, in ticks, 480 per quarter note
  int velocity = 80;   // of a decoded note
  bool end = true;     // whether there is an end token
};

class PitchEncoder final : public Encoder {
 public:
  explicit PitchEncoder(PitchOptions options);

  // Throws std::invalid_argument for a note that begins at tick 2^56 or later, and for several pieces of format 2.
  Encoded encode(const SongView& song, Poll poll) const override;
  Song decode(const std::int32_t* tokens, std::size_t rows, Poll poll) const override;

 private:
  PitchOptions options_;
  std::int32_t end_token_, vocabulary_;
};

}  // namespace musicgen::midi
