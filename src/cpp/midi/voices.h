// Voices on a grid of sixteenths: finding them in any song, their tokens, and back.
//
// A frame has one slot for every voice, the outer voices first: with `hold`, {0 hold, 1 rest, 2 + i: onset of pitch
// lowest_pitch + i}, after a flag {0 nothing, 1 a fermata begins, 2 end}; without, {0 silent, 1 + i: pitch}.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "midi/encoder.h"
#include "midi/song.h"

namespace musicgen::midi {

constexpr int max_voices = 8;
constexpr std::int64_t steps_per_quarter = 4;
constexpr std::int64_t max_steps = 1 << 16;  // 4096 bars of 4/4
constexpr int rest = -1;
constexpr std::uint8_t choir_aahs = 52;  // General MIDI program, counted from 0

struct Voice {
  std::string name;
  // In lower case: a track whose name begins with the words of one of them is this voice.
  std::vector<std::string> aliases;
  int low = 0, high = 127;  // where it usually lies
};

// Rows of one value for every voice, high voice first.
struct Grid {
  int width = 0;
  Buffer<std::int32_t> pitch;    // or rest
  Buffer<std::uint8_t> onset;    // a note begins: never in a rest
  Buffer<std::uint8_t> fermata;  // one for every frame: a chord with a fermata begins
  bool ended = true;

  std::size_t frames() const { return fermata.size(); }
};

struct FoundVoices {
  Grid grid;
  std::int64_t first_step = 0;  // of the song's sixteenths, the grid's first
  std::vector<std::string> issues;
  std::string problem;             // not empty: why there is no grid
  std::int64_t problem_tick = -1;  // -1: nowhere in particular
};

// Tracks (or channels) with the names of all voices are those voices. Otherwise, as many parts as voices, if each plays
// one note at a time, are the voices by their mean pitch. Otherwise all notes are shared out, chord by chord: the
// choice with the least sum of leaps, of semitones outside of a voice's range, and of crossings, found exactly in n 2^n
// steps.
//
// `melody`: the first voice only: the part of its name, else the highest part, else the highest of the voices.
FoundVoices find_voices(const SongView& song, const std::vector<Voice>& voices, bool melody, Poll poll);

struct Notation {
  int numerator = 4, denominator = 4;
  int pickup = 0;  // sixteenths
  int microseconds_per_quarter = 500'000;
  std::optional<std::array<int, 2>> key = std::nullopt;  // sharps, minor
  int transpose = 0;
};

class VoiceGrid final : public Encoder {
 public:
  // 1 to max_voices voices; the vocabulary and the program within 0 to 127.
  VoiceGrid(std::vector<Voice> voices, bool hold, int lowest_pitch, int num_pitches, int microseconds_per_quarter,
            int program = choir_aahs);

  const std::vector<Voice>& voices() const { return voices_; }
  int width() const override { return num_voices() + hold_; }
  Encoded encode(const SongView& song, Poll poll) const override;
  Song decode(const std::int32_t* tokens, std::size_t rows, Poll poll) const override;

  // `onset` and `fermata` may be null: notes begin where the pitch changes; there are none.
  Buffer<std::int32_t> tokens_of(const std::int32_t* pitch, const std::uint8_t* onset, const std::uint8_t* fermata,
                                 std::size_t frames, bool end) const;
  void check_tokens(const std::int32_t* tokens, std::size_t rows) const;
  Grid grid_of(const std::int32_t* tokens, std::size_t rows) const;
  Song decode(const std::int32_t* tokens, std::size_t rows, const Notation& notation) const;

 private:
  int num_voices() const { return static_cast<int>(voices_.size()); }
  std::string name_of_slot(int slot) const;

  std::vector<Voice> voices_;
  std::vector<int> order_;  // voice of every slot
  int hold_;                // 0 or 1: also the number of slots before the voices'
  int lowest_pitch_, num_pitches_, microseconds_per_quarter_, program_;
};

}  // namespace musicgen::midi
