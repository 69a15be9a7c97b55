// Note-ons, note-offs, shifts of time and velocities, in the order in which they happen.
//
// Ids: note-on 0 to 127; note-off 128 to 255; time shift by 1 to max_shift steps from 256; from there the bins of
// velocity; then the end of the piece, if the encoding has one. With 100 steps and 32 bins these are the 388 events of
// Oore et al., This time with feeling: learning expressive musical performance, 2018, numbered as in Magenta's
// PerformanceOneHotEncoding, with its bins of velocity.
//
// At one step, the note-offs come first, then the note-ons, each from low to high. A velocity is written before a
// note-on where it changes. A note-off ends the oldest sounding note of its pitch.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "midi/encoder.h"
#include "midi/tokens.h"

namespace musicgen::midi {

struct EventOptions {
  int steps_per_second = 100;
  int steps_per_beat = 0;  // more than 0: steps of a quarter note instead
  int max_shift = 100;
  int velocity_bins = 32;  // 0: no velocities
  Selection selection;
  bool sustain = true;  // whether notes sound for as long as the sustain pedal holds them
  int velocity = 80;    // of decoded notes before the first velocity
  bool end = true;
};

class EventEncoder final : public Encoder {
 public:
  explicit EventEncoder(EventOptions options);

  // Throws std::invalid_argument for a piece of more than max_steps, and for several pieces of format 2.
  Encoded encode(const SongView& song, Poll poll) const override;

  // Throws std::invalid_argument, too, for more than max_steps.
  Song decode(const std::int32_t* tokens, std::size_t rows, Poll poll) const override;

 private:
  template <typename Grid>
  Encoded encode_on(Grid start_grid, Grid end_grid, const SongView& song, Poll poll) const;
  void write(const Buffer<std::uint64_t>& keys, Encoded& encoded, Poll poll) const;

  EventOptions options_;
  std::int32_t first_velocity_, end_token_, vocabulary_;
  std::array<std::uint8_t, 128> bins_{};  // of every velocity, from 1
  int ticks_per_step_;
  std::uint16_t division_;
};

}  // namespace musicgen::midi
