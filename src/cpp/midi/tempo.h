// Ticks to seconds: the one place where ticks become seconds. What a file says about tempo is read once; every time in
// seconds of the native side comes from here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "midi/song.h"

namespace musicgen::midi {

// exact: microseconds are summed as whole numbers and divided once, so a time is the nearest double to the true one
// (for any piece of up to 24 hours). pretty_midi: that library's order of operations, seconds per tick accumulated from
// one tempo to the next, so that a time has the bits that it would give; SMPTE time, which it cannot read, is exact.
enum class Seconds { exact, pretty_midi };

// All tempos of all tracks, in a file of format 2 (where every track is a piece of its own) each track's own. Until the
// first tempo, a quarter note takes half a second. A tempo of the wrong length, or of 0, counts for nothing. SMPTE time
// ignores tempos; its 29 frames per second are 30000 / 1001.
class TempoMap {
 public:
  explicit TempoMap(const SongView& song, Seconds order = Seconds::exact);

  // The times of one track (which one matters in format 2 only). Looks first where the time before was found: cheap for
  // times in order.
  class Cursor {
   public:
    explicit Cursor(const TempoMap& map, std::int32_t track = 0);
    double seconds(std::int64_t tick) { return sum(tick) / map_->divisor_; }

    // The seconds times divisor(): a whole number where the order is exact (for any piece of up to 24 hours).
    double sum(std::int64_t tick) {
      const Segment* const segments = map_->segments_.data();
      if (tick < segments[at_].begin || (at_ + 1 < end_ && tick >= segments[at_ + 1].begin)) seek(tick);
      return segments[at_].sum + static_cast<double>(tick - segments[at_].begin) * segments[at_].rate;
    }

   private:
    void seek(std::int64_t tick);

    const TempoMap* map_;
    std::size_t begin_, end_, at_;
  };

  // Microseconds times ticks per quarter note in a second, where time is not SMPTE time.
  double divisor() const { return divisor_; }

  double seconds(std::int64_t tick, std::int32_t track = 0) const { return Cursor(*this, track).seconds(tick); }

 private:
  struct Segment {
    std::int64_t begin;  // ticks
    double sum, rate;    // at `begin`, and of a tick; in units of 1 / divisor_ seconds
  };
  std::vector<Segment> segments_;    // of every timeline; the first of each begins at 0
  std::vector<std::size_t> begins_;  // of every timeline, and the end
  double divisor_ = 1.0;
};

// Seconds at which the last note ends or the last event happens, whichever is later: `Score.end_time`, and what a limit
// on the duration means. The longest track's, in a file of format 2. Silence before an end of track is left out.
double duration_of(const SongView& song);

}  // namespace musicgen::midi
