// Bars, positions in them, and what happens there: any piece of any number of instruments as one stream.
//
// After Huang & Yang, Pop Music Transformer (REMI), 2020, with the programs of von Rütte et al., FIGARO, 2022. Ids, in
// this order: bar; time signatures; positions, steps from the bar line; tempos; chords; programs and the drums;
// pitches; drum pitches; bins of velocity; durations; end of the piece.
//
// A bar is: bar, its time signature if it is the first or another one, and for every position where something happens:
// position, tempo, chord, notes. A note is: its program (if it is the first of its position or another one), pitch,
// velocity, duration. Notes of one position are in order of program (drums last), then pitch. A bar that is cut short
// ends with the position where the next one begins and nothing at it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "midi/encoder.h"
#include "midi/tokens.h"

namespace musicgen::midi {

struct BarOptions {
  int steps_per_beat = 12;                           // of a quarter note
  std::vector<std::pair<int, int>> time_signatures;  // numerator, denominator; 4/4 is one of them
  std::vector<std::int32_t> tempos;                  // microseconds of a quarter note, descending; may be none
  std::vector<std::int32_t> durations;               // steps, ascending from 1
  bool chords = false;
  bool programs = true;
  Selection selection;
  int velocity_bins = 32;
  int velocity = 80;  // of a decoded note without one
  bool end = true;
};

class BarEncoder final : public Encoder {
 public:
  explicit BarEncoder(BarOptions options);

  // Throws std::invalid_argument for a piece of more than max_steps, and for several pieces of format 2.
  Encoded encode(const SongView& song, Poll poll) const override;

  // Throws std::invalid_argument, too, for more than max_steps.
  Song decode(const std::int32_t* tokens, std::size_t rows, Poll poll) const override;

 private:
  struct Mark {  // a tempo or a time signature, from a step on
    std::int64_t step;
    std::int32_t index;
  };

  Buffer<std::uint64_t> notes_of(const SongView& song, Encoded& encoded, Poll poll) const;
  template <typename Read>
  std::vector<Mark> marks_of(const SongView& song, std::uint8_t type, std::int64_t size, std::int64_t last,
                             std::int32_t at_first, const std::string& thing, const std::string& otherwise,
                             Encoded& encoded, Read&& read) const;
  std::vector<Mark> tempos_of(const SongView& song, std::int64_t last, Encoded& encoded) const;
  std::vector<Mark> signatures_of(const SongView& song, std::int64_t last, Encoded& encoded) const;
  void write(const Buffer<std::uint64_t>& notes, const std::vector<Mark>& tempos, const std::vector<Mark>& signatures,
             Encoded& encoded, Poll poll) const;
  Song song_of(Buffer<std::uint64_t>& notes, std::vector<Mark>& tempos, const std::vector<Mark>& signatures,
               Poll poll) const;
  std::int32_t tempo_nearest(std::int64_t microseconds) const;

  BarOptions options_;
  std::vector<std::int32_t> bar_lengths_;        // steps, of every time signature
  std::vector<std::uint16_t> nearest_duration_;  // index, of every number of steps up to the longest
  std::array<std::uint8_t, 128> bins_{};
  std::int32_t common_time_ = -1;  // index of 4/4
  // The first token of each kind.
  std::int32_t signature_ = 1, position_, tempo_, chord_, program_, pitch_, drum_pitch_, velocity_, duration_, end_;
  std::int32_t vocabulary_;
};

}  // namespace musicgen::midi
