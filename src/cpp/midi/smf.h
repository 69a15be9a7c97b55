// Standard MIDI Files: bytes to columns and back. Time is 64-bit ticks, never seconds.
//
// Reading keeps two tables: notes, and every other event in file order (meta and system exclusive payloads lie end to
// end in one byte array). Nothing is allocated from a length that a file claims: the tables grow with the events read.
// What a file gets wrong is listed as issues; in strict mode the first one is thrown as a MidiError.
//
// Pairing: inside one track, a note-off ends the oldest sounding note of its channel and pitch (first in, first out).
// A note still sounding at the track's end ends there; an on and off at the same tick last one tick; both are issues.
// The writer marks the rare note-off that must end a younger note (nested notes of one pitch) with a sequencer-specific
// meta event, 7D "mgp" k: the next note-off ends the k-th oldest. So any list of notes survives writing and reading.
//
// Source: MIDI 1.0 Detailed Specification (96.1), Standard MIDI Files 1.0; RP-029 for the RIFF wrapping.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/buffer.h"

namespace musicgen::midi {

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

struct Chunk {  // a chunk that is neither header nor track
  std::int32_t before_track;
  std::string id;
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
  not_kept,  // legal, but lost when the score is saved: never an error
};

struct Issue {
  Deviation kind;
  std::int32_t track;   // -1: not inside a track
  std::int64_t offset;  // bytes from the start of the file
  std::int64_t got, expected;
};
std::string message_of(const Issue& issue);  // "expected …, got …, at byte N, track T"

struct Song {
  int format = 1;
  std::uint16_t division = 480;  // as in the header: ticks per quarter note, or SMPTE if the high bit is set
  Buffer<Note> notes;            // by track, then in the order in which they start
  Buffer<Event> events;          // by track, then in file order; without end-of-track events
  Buffer<std::uint8_t> payload;
  Buffer<std::int64_t> payload_ends;  // one for every event with status >= 0xF0
  Buffer<std::int64_t> track_ends;    // tick of every track's end
  std::vector<Chunk> chunks;          // point into the bytes given to parse()
  std::vector<Issue> issues;          // the first max_issues
  std::int64_t unlisted_issues = 0;
};

constexpr std::size_t max_issues = 10'000;         // a broken megabyte could have a million
constexpr std::int64_t max_delta = (1 << 28) - 1;  // four bytes of seven bits

// Throws MidiError: bytes that are no MIDI file in either mode, any deviation in strict mode. `poll` is called every
// few milliseconds and may throw.
using Poll = void (*)();
Song parse(const std::uint8_t* data, std::size_t size, bool strict, Poll poll);

struct SongView {
  int format;
  std::uint16_t division;
  const Note* notes;
  std::size_t num_notes;
  const Event* events;
  std::size_t num_events;
  const std::uint8_t* payload;
  const std::int64_t* payload_ends;
  std::size_t payload_size, num_payloads;
  const std::int64_t* track_ends;
  std::size_t num_tracks;
  std::vector<Chunk> chunks;
};

// Throws std::invalid_argument naming the first note, and its field, that a MIDI file cannot hold.
void check_notes(const Note* notes, std::size_t size);

// A file with running status. Notes and events must be sorted by track, then time; the order of equals is kept.
// Throws std::invalid_argument for anything that would not be read back as it was given.
Buffer<std::uint8_t> write(const SongView& song, Poll poll);

}  // namespace musicgen::midi
