// The tables of a song: notes, and every other event in file order; payloads lie end to end in one byte array. What the
// reader fills, the writer writes, and the encoders turn into tokens. Time is 64-bit ticks.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/buffer.h"

namespace musicgen::midi {

// Called every few milliseconds of long work; may throw.
using Poll = void (*)();

struct Note {
  std::int64_t start, duration;  // ticks; while a note sounds, duration holds the next sounding note of its queue
  std::uint8_t pitch, velocity, channel, release_velocity;
  std::int32_t track;
};
static_assert(sizeof(Note) == 24, "numpy sees this layout");

struct Event {
  std::int64_t time;  // ticks
  std::int32_t track;
  std::uint8_t status;        // 0xA0..0xEF with its channel, or 0xF0, 0xF7, 0xFF: these have a payload
  std::uint8_t data1, data2;  // data1 of a meta event (0xFF) is its type
  std::uint8_t place;         // among the notes of its tick: 0 before the offs, 1 between offs and ons, 2 after the ons
};
static_assert(sizeof(Event) == 16, "numpy sees this layout");

struct Chunk {  // neither header nor track
  enum : std::int32_t {
    in_header = -1,    // no chunk: what a header holds behind its first six bytes
    before_data = -2,  // in a RIFF wrapper, before the chunk with the MIDI file
    after_data = -3,   // and after it
  };
  std::int32_t before_track;  // or one of those
  std::array<char, 4> id;
  const std::uint8_t* data;
  std::size_t size;
};

enum class Deviation : std::uint8_t {
  chunk_truncated,
  track_count,
  format_0_tracks,
  event_truncated,
  payload_truncated,
  no_end_of_track,
  end_of_track_length,
  after_end_of_track,
  past_claimed_length,
  no_running_status,
  cancelled_running_status,
  high_data_byte,
  bad_status,
  tempo,
  time_signature,
  key_signature,
  unended_note,
  lone_note_off,
  zero_length_note,
  not_a_chunk,
  second_header,
  riff_length,
};

struct Issue {
  Deviation kind;
  std::int32_t track;   // -1: not inside a track
  std::int64_t offset;  // bytes from the start of the file
  std::int64_t got, expected;
};

struct Song {
  int format = 1;
  std::uint16_t division = 480;  // as in the header: ticks per quarter note, or SMPTE if the high bit is set
  Buffer<Note> notes;            // by track, then in the order in which they start
  Buffer<Event> events;          // by track, then in file order; without end-of-track events
  Buffer<std::uint8_t> payload;
  Buffer<std::int64_t> payload_ends;  // one for every event with status >= 0xF0
  Buffer<std::int64_t> track_ends;    // tick of every track's end
  Buffer<Chunk> chunks;               // point into the bytes given to parse()
  std::vector<Issue> issues;          // the first max_issues
  std::int64_t unlisted_issues = 0;
};

// A song in memory that somebody else owns.
struct SongView {
  int format = 1;
  std::uint16_t division = 480;
  const Note* notes = nullptr;
  std::size_t num_notes = 0;
  const Event* events = nullptr;
  std::size_t num_events = 0;
  const std::uint8_t* payload = nullptr;
  const std::int64_t* payload_ends = nullptr;
  std::size_t payload_size = 0, num_payloads = 0;
  const std::int64_t* track_ends = nullptr;
  std::size_t num_tracks = 0;
  const Chunk* chunks = nullptr;
  std::size_t num_chunks = 0;
};

inline SongView view_of(const Song& song) {
  return {song.format,
          song.division,
          song.notes.data(),
          song.notes.size(),
          song.events.data(),
          song.events.size(),
          song.payload.data(),
          song.payload_ends.data(),
          song.payload.size(),
          song.payload_ends.size(),
          song.track_ends.data(),
          song.track_ends.size(),
          song.chunks.data(),
          song.chunks.size()};
}

}  // namespace musicgen::midi
