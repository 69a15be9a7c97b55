// Piano rolls: a song as a picture, one row for every pitch, one column for every step or frame of time.
//
// Two ways to get columns. In steps of a beat, whole-number arithmetic over ticks: a note fills the steps from its
// start up to its end, both rounded to the nearest (halves up), and at least one. In frames of 1 / fs seconds: what
// pretty_midi.PrettyMIDI(file).get_piano_roll(fs, times, pedal_threshold) draws, cell for cell. That means its parts
// and its pairing of notes (see ensemble.h), its truncation of times to frames, and its order: notes are added up, then
// every window of the sustain pedal holds the running maximum, then pitch bends move what sounds by up to two
// semitones, interpolated between neighbouring pitches.
//
// Every value of a roll is a whole number of 4096ths far below 2^53 (velocities, times a bend's fraction), so that sums
// are exact in any order; only `times`, which takes means, must keep pretty_midi's order of parts.
//
// Source: pretty_midi 0.2.11, Instrument.get_piano_roll.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/buffer.h"
#include "midi/ensemble.h"
#include "midi/song.h"

namespace musicgen::midi {

constexpr std::size_t num_pitches = 128;

struct RollOptions {
  double fs = 100.0;                // frames per second, above 0; where steps_per_beat is 0
  std::int64_t steps_per_beat = 0;  // not for songs in SMPTE time
  bool pedal = true;                // with fs: sustain, down from a value of pedal_threshold
  double pedal_threshold = 64.0;
  bool has_times = false;     // with fs: columns that are means of frames
  std::vector<double> times;  // seconds at which they begin, not decreasing, at least one
  bool drums = false;         // drawn, too; they always count for the width
  bool per_track = false;
};

enum class Channel { frame, onset, offset };

// A part with its times in frames.
struct RollPart {
  struct Pedal {
    std::uint32_t frame;
    bool down;
  };
  struct Bend {
    std::uint32_t frame;
    std::int32_t value;  // -8192 to 8191
  };
  std::int32_t track = 0;
  std::uint32_t width = 0;    // frames up to its last event (or the last of `times`, where that is later)
  std::vector<Pedal> pedals;  // in the order in which they count; none where they do not
  std::vector<Bend> bends;    // in the order of time
};

// A note of a part; of drums only where they are drawn.
struct PartNote {
  std::uint32_t part, begin, end;
  std::int32_t velocity;
  std::uint8_t pitch;
};

// What a roll shows, found but not drawn: its size is known before anything large is allocated.
class Roll {
 public:
  static constexpr double max_width = 2'147'483'647.0;

  // In steps of a beat; the song's own notes.
  static Roll in_steps(const SongView& song, const RollOptions& options, Poll poll);

  // The notes of an ensemble that heard the song; in steps of a beat, or in frames.
  static Roll of(const SongView& song, const Ensemble& ensemble, const RollOptions& options, Poll poll);

  // In frames; parts in the order of their tracks, with widths of at most max_width, and their notes in any order.
  static Roll in_frames(const std::vector<RollPart>& parts, const PartNote* notes, std::size_t num_notes,
                        std::size_t num_tracks, const RollOptions& options, Poll poll);

  // Columns: what pretty_midi gives, or the steps up to the last that a note fills. Nothing can be drawn where there
  // are more than max_width, or (`times`) where their frames would be: then it says how many that is.
  double width() const { return width_; }
  std::size_t num_tracks() const { return num_tracks_; }  // of the result: 1 unless per_track

  // Draws a channel, shape (num_tracks, 128, width), row by row, into memory that is all zeros or (`zeroed` false) not.
  // frame: the sum of what sounds; onset, offset: of the velocities of notes that begin there, or fill it last, without
  // pedal and bends. `binary`: 1 where that is not 0. Sums are rounded down and clipped where T is std::uint8_t; T may
  // be float or double, too.
  template <typename T>
  void draw(Channel channel, bool binary, bool zeroed, T* out, Poll poll) const;

  // As one bit for each column, the first in the highest bit of a byte; each row begins with a new byte. Not with
  // `times`.
  void draw_bits(Channel channel, bool zeroed, std::uint8_t* out, Poll poll) const;

 private:
  struct Note {  // frames [begin, end) of a row; none, where a note is so short that truncation leaves nothing
    std::uint32_t row, begin, end;
    std::int32_t velocity;
  };
  struct Rows {  // notes by row; those of row r from begins[r] to begins[r + 1]
    Buffer<Note> notes;
    std::vector<std::size_t> begins;
  };
  struct Run {
    std::uint32_t begin, end;
    double value;
  };
  struct Stretch {  // the runs of one pitch of a voice, in order, not overlapping
    std::uint8_t pitch;
    std::size_t begin, end;
  };
  struct Voice {  // a part that is more than the sum of its notes
    std::int32_t track;
    std::uint32_t width;
    std::vector<Stretch> stretches;  // by pitch
    std::vector<RollPart::Bend> bends;
  };

  explicit Roll(const RollOptions& options, std::size_t num_tracks);
  Rows by_row(const Buffer<Note>& notes) const;
  void add_voice(const RollPart& part, const PartNote* notes, std::size_t num_notes);
  std::uint32_t row_of(std::int32_t track, std::uint8_t pitch) const;
  template <typename Emit>
  void for_each_run(const Voice& voice, int pitch, const Emit& emit) const;
  template <typename Canvas>
  void draw_notes(const Note* notes, std::size_t count, Channel channel, const Canvas& canvas, Poll poll) const;
  template <typename Canvas>
  void draw_voices(std::size_t row, const Canvas& canvas) const;
  template <typename Canvas>
  void draw_on(const Canvas& canvas, Channel channel, Poll poll) const;
  void draw_means(std::size_t row, double* sums, double* out) const;
  std::pair<const Voice*, const Voice*> voices_of(std::size_t row) const;

  double width_ = 0.0;
  std::size_t num_tracks_;
  bool per_track_, has_times_;
  bool is_whole_ = true;  // no fractions of a bend
  Buffer<Note> plain_;    // of parts that are the sums of their notes
  Buffer<Note> marks_;    // of the voices: for onset and offset only
  std::vector<Voice> voices_;
  Buffer<Run> runs_;                 // of all voices
  std::vector<std::uint32_t> bins_;  // `times` in frames
};

}  // namespace musicgen::midi
