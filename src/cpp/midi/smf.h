// Standard MIDI Files: bytes to columns and back. Time is 64-bit ticks, never seconds.
//
// Reading keeps two tables: notes, and every other event in file order (meta and system exclusive payloads lie end to
// end in one byte array). Nothing is allocated from a length that a file claims: the tables begin with the size of the
// file and grow with the events read.
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
#include "midi/song.h"

namespace musicgen::midi {

std::string message_of(const Issue& issue);  // "expected …, got …, at byte N, track T"

constexpr std::size_t max_issues = 10'000;         // a broken megabyte could have a million
constexpr std::int64_t max_delta = (1 << 28) - 1;  // four bytes of seven bits

// Hears every channel event of a file in the order of its bytes: finer than what a song keeps, which is the place of an
// event among the notes of its tick.
class Listener {
 public:
  virtual void channel_event(std::int32_t track, std::int64_t time, std::uint8_t status, std::uint8_t data1,
                             std::uint8_t data2) = 0;

 protected:
  ~Listener() = default;
};

// Throws MidiError: bytes that are no MIDI file in either mode, any deviation in strict mode.
Song parse(const std::uint8_t* data, std::size_t size, bool strict, Poll poll, Listener* listener = nullptr);

// Throws std::invalid_argument naming the first note, and its field, that a MIDI file cannot hold.
void check_notes(const Note* notes, std::size_t size);

// Throws std::invalid_argument naming the first row, and its field, that is out of range, out of order (by track, then
// time), of a track that is not there, or without its payload.
void check_song(const SongView& song);

// A file with running status, of a song that passes check_song; the order of equals is kept. Throws
// std::invalid_argument for anything that would not be read back as it was given.
Buffer<std::uint8_t> write(const SongView& song, Poll poll);

}  // namespace musicgen::midi
