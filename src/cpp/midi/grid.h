// Ticks to equal steps, of a beat or of a second; the nearest one, and half a step is rounded up.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "midi/song.h"
#include "midi/tempo.h"

namespace musicgen::midi {

constexpr std::int64_t max_steps = std::int64_t{1} << 27;  // 15 days of 10 ms: what is longer is no piece

struct Step {
  std::int64_t number;
  bool exact;  // whether it is where the tick is
};

[[noreturn]] inline void refuse_long_piece(std::int64_t tick) {
  throw std::invalid_argument("score: expected at most " + std::to_string(max_steps) +
                              " steps, got a note or event at tick " + std::to_string(tick));
}

// scaled / divisor as a whole number, half a step rounded up. A division takes longer than all the rest: `estimate` is
// the quotient or, close to half a step, its neighbour. Sums and products may wrap around, their difference is small.
inline Step nearest(std::uint64_t scaled, std::uint64_t divisor, double estimate, std::int64_t tick) {
  if (!(estimate <= static_cast<double>(max_steps))) refuse_long_piece(tick);
  auto number = static_cast<std::int64_t>(estimate + 0.5);
  const auto size = static_cast<std::int64_t>(divisor);
  auto twice_off = static_cast<std::int64_t>(2 * (scaled - static_cast<std::uint64_t>(number) * divisor));
  if (twice_off < -size) --number, twice_off += 2 * size;
  if (twice_off >= size) ++number, twice_off -= 2 * size;
  return {number, twice_off == 0};
}

// Steps of a quarter note, or of half a second in SMPTE time, which has no beats.
class BeatGrid {
 public:
  BeatGrid(const SongView& song, double steps_per_beat) {
    std::int64_t quarter = song.division, per = 1;  // a quarter note has quarter / per ticks
    if (song.division & 0x8000) {
      const int fps = 256 - (song.division >> 8), ticks = song.division & 0xFF;
      const bool ntsc = fps == 29;  // 30000 / 1001 frames per second
      quarter = (ntsc ? 30'000 : fps) * std::int64_t{ticks};
      per = ntsc ? 2 * 1001 : 2;
    }
    rate_ = static_cast<std::uint64_t>(static_cast<double>(per) * steps_per_beat);
    divisor_ = static_cast<std::uint64_t>(quarter);
    steps_per_tick_ = static_cast<double>(rate_) / static_cast<double>(divisor_);
  }

  // Whether a piece may go on until this tick.
  bool holds(std::int64_t tick) const {
    return static_cast<double>(tick) * steps_per_tick_ <= static_cast<double>(max_steps);
  }

  Step operator()(std::int64_t tick) const {
    return nearest(static_cast<std::uint64_t>(tick) * rate_, divisor_, static_cast<double>(tick) * steps_per_tick_,
                   tick);
  }

 private:
  std::uint64_t rate_, divisor_;
  double steps_per_tick_;
};

// Steps of a second, for a song without SMPTE time. Remembers the tempo at the tick before.
class SecondGrid {
 public:
  SecondGrid(const TempoMap& tempos, std::int32_t track, int steps_per_second)
      : cursor_(tempos, track),
        rate_(static_cast<std::uint64_t>(steps_per_second)),
        divisor_(static_cast<std::uint64_t>(tempos.divisor())),
        inverse_(steps_per_second / tempos.divisor()) {}

  Step operator()(std::int64_t tick) {
    const double sum = cursor_.sum(tick), estimate = sum * inverse_;
    const double bounded = estimate <= static_cast<double>(max_steps) ? sum : 0.0;  // else refused
    return nearest(static_cast<std::uint64_t>(bounded) * rate_, divisor_, estimate, tick);
  }

 private:
  TempoMap::Cursor cursor_;
  std::uint64_t rate_, divisor_;
  double inverse_;
};

}  // namespace musicgen::midi
