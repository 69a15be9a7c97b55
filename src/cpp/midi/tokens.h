// What the encoders of token streams share: notes in time order, bins of velocity, the end of a piece, what was lost.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "midi/encoder.h"
#include "midi/song.h"

namespace musicgen::midi {

constexpr std::uint8_t drum_channel = 9, default_release_velocity = 64;
constexpr int max_rate = 1000;                  // steps of a second or a beat
constexpr std::size_t poll_interval = 1 << 16;  // notes or tokens: well under a millisecond

// Which notes of a song are encoded.
struct Selection {
  bool drums = false;                // those of the drum channel, too
  bool all_tracks = true;            // or only `tracks`
  std::vector<std::int32_t> tracks;  // ascending, at least one

  std::int32_t first_track() const { return all_tracks ? 0 : tracks.front(); }
};

// Throws std::invalid_argument for no tracks, or one that a file cannot have.
void check_selection(const Selection& selection);

// Calls take(note) for every chosen note, in their order, and returns what was left out in words.
template <typename Take>
void for_chosen(const SongView& song, const Selection& selection, std::vector<std::string>& issues, Poll poll,
                Take&& take);

// Sorts by the bits from `low_bit` upwards; the order of equals is kept. Least significant digit first: linear in the
// number of keys, with as many passes as the keys have digits, and none at all over keys that are in order.
void sort_keys(Buffer<std::uint64_t>& keys, unsigned low_bit, Poll poll);

// "1 note was …", "12 notes were …": nothing for none.
void add_issue(std::vector<std::string>& issues, std::int64_t count, const std::string& what,
               const std::string& thing = "note");

// Throws std::invalid_argument for an option outside [low, high].
void expect(const char* name, int value, int low, int high);

// Velocities 1 to 127 in bins of equal size, numbered from 1, as in Magenta; a bin stands for its lowest velocity.
int bin_of_velocity(int velocity, int bins);
int velocity_of_bin(int bin, int bins);

// Throws std::invalid_argument for a token that is not below `size`.
void check_tokens(const std::int32_t* tokens, std::size_t count, std::int32_t size, Poll poll);

// The tokens between the ends: leading end tokens (a model may begin with one) are skipped, the next one ends the
// piece.
struct Span {
  const std::int32_t *begin, *end;
};
Span between_ends(const std::int32_t* tokens, std::size_t count, std::int32_t end_token);

// Throws std::invalid_argument for a song of format 2 with notes on more than one track: they are pieces of their own.
void refuse_several_pieces(const SongView& song);

// The last track of a song, after empty ones, and its end.
void add_track(Song& song, std::int32_t track, std::int64_t end);

// Add a meta event at a tick of track 0; in order of time.
void add_tempo(Song& song, std::int64_t time, std::int32_t microseconds_per_quarter);
void add_time_signature(Song& song, std::int64_t time, int numerator, int denominator);

template <typename Take>
void for_chosen(const SongView& song, const Selection& selection, std::vector<std::string>& issues, Poll poll,
                Take&& take) {
  std::int64_t drums = 0, elsewhere = 0;
  auto wanted = selection.tracks.begin();
  for (std::size_t i = 0; i < song.num_notes; ++i) {
    if (i % poll_interval == 0) poll();
    const Note& note = song.notes[i];
    if (!selection.all_tracks) {
      while (wanted != selection.tracks.end() && *wanted < note.track) ++wanted;
      if (wanted == selection.tracks.end() || *wanted != note.track) {
        ++elsewhere;
        continue;
      }
    }
    if (note.channel == drum_channel && !selection.drums) {
      ++drums;
      continue;
    }
    take(note);
  }
  add_issue(issues, elsewhere, "of other tracks {were} left out");
  add_issue(issues, drums, "of the drum channel {were} left out");
}

}  // namespace musicgen::midi
