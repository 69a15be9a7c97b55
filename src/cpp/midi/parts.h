// Which events rule a note: the programs, or the pedal, of the part that plays it. A part is one track and channel; one
// without events of the kind has those of its channel, because files put the set-up of all channels into the first
// track, and files with more than 16 tracks use a channel twice.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/buffer.h"
#include "midi/song.h"

namespace musicgen::midi {

constexpr std::uint8_t program_change = 0xC0, control_change = 0xB0, sustain_pedal = 64, pedal_down = 64;

struct Change {
  std::int64_t time;
  std::int64_t held_until;  // of a pedal: 0 where it is up, the greatest of times where it is never up again
  std::int32_t track;
  std::uint8_t value;
};

class Changes {
 public:
  // Program changes, or changes of the sustain pedal.
  Changes(const SongView& song, std::uint8_t status, Poll poll);

  bool empty() const { return none_; }

  // The last change at or before a tick that rules a part, or nullptr. Quick where tracks come in ascending order and
  // ticks are near to the one before.
  const Change* at(std::int32_t track, std::uint8_t channel, std::int64_t tick) {
    if (track != track_) enter(track);
    const Range& range = ranges_[channel];
    const Change*& found = found_[channel];  // the first change after the tick
    if (found != range.end && found->time <= tick) ++found;
    if (found != range.begin && (found - 1)->time > tick) --found;
    const bool here = (found == range.end || found->time > tick) && (found == range.begin || (found - 1)->time <= tick);
    if (!here) found = first_after(range, tick);
    return found == range.begin ? nullptr : found - 1;
  }

 private:
  struct Range {
    const Change *begin, *end;
  };

  void enter(std::int32_t track);
  static const Change* first_after(const Range& range, std::int64_t tick);

  std::array<std::vector<Change>, 16> by_track_, by_time_;  // of every channel
  std::array<Range, 16> ranges_{};
  std::array<const Change*, 16> found_{};
  std::int32_t track_ = -1;
  bool none_ = true;
};

// Where notes end, in ticks: one that ends while its pedal is down sounds until the pedal is up, or until its pitch is
// struck again in its part. A pedal that is never lifted is at the end of the piece. Empty for a song without a pedal.
Buffer<std::int64_t> pedalled_ends(const SongView& song, Poll poll);

}  // namespace musicgen::midi
