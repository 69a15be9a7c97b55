// Any bytes to the MIDI reader, and what can be read to the writer. Build and run: tests/fuzz/run midi 60
//
// Every finding goes into tests/fuzz/corpus/midi, which the tests read, too.
#include <cstdint>
#include <cstring>
#include <stdexcept>

#include "base/error.h"
#include "common.h"
#include "midi/smf.h"

using namespace musicgen;
using namespace musicgen::midi;

namespace {

bool same_events(const Song& a, const Song& b) {
  if (a.events.size() != b.events.size()) return false;
  for (std::size_t i = 0; i < a.events.size(); ++i) {
    Event one = a.events[i], two = b.events[i];
    one.place = two.place = 0;  // finer than what is promised
    if (std::memcmp(&one, &two, sizeof one) != 0) return false;
  }
  return same(a.payload, b.payload) && same(a.payload_ends, b.payload_ends);
}

bool same_chunks(const Song& a, const Song& b) {
  if (a.chunks.size() != b.chunks.size()) return false;
  for (std::size_t i = 0; i < a.chunks.size(); ++i) {
    const Chunk &one = a.chunks[i], &two = b.chunks[i];
    if (one.before_track != two.before_track || one.id != two.id || one.size != two.size) return false;
    if (one.size > 0 && std::memcmp(one.data, two.data, one.size) != 0) return false;
  }
  return true;
}

// What does not make sense, but is no reason not to save it again as it is.
bool is_kept(Deviation kind) {
  return kind == Deviation::tempo || kind == Deviation::time_signature || kind == Deviation::key_signature ||
         kind == Deviation::second_header;
}

// What was read is written, and reading that finds the same.
void check_writer(const Song& song) {
  Buffer<std::uint8_t> file;
  try {
    file = write(view_of(song), poll);
  } catch (const std::invalid_argument& error) {
    // What an event in between bridged when it was read is too far apart without it.
    require(std::strstr(error.what(), "ticks after the event before it") != nullptr, error.what());
    return;
  }
  const Song again = parse(file.data(), file.size(), false, poll);
  for (const Issue& issue : again.issues) require(is_kept(issue.kind), "written, but " + message_of(issue));
  require(song.format == again.format && song.division == again.division, "the header changes");
  require(same(song.notes, again.notes), "the notes change");
  require(same_events(song, again), "the events change");
  require(same(song.track_ends, again.track_ends), "the ends of the tracks change");
  require(same_chunks(song, again), "the unknown chunks change");
  require(same(file, write(view_of(again), poll)), "the file changes when it is written again");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Song song;
  bool read = true, read_strictly = true;
  try {
    song = parse(data, size, false, poll);
  } catch (const MidiError& error) {
    require(error.offset >= 0 && error.offset <= static_cast<std::int64_t>(size), error.what());
    read = false;
  }
  try {
    parse(data, size, true, poll);
  } catch (const MidiError&) {
    read_strictly = false;
  }
  require(read_strictly == (read && song.issues.empty()), "strict mode and the list of issues disagree");
  if (!read) return 0;
  for (const Issue& issue : song.issues) require(!message_of(issue).empty(), "an issue without a message");
  check_song(view_of(song));
  check_writer(song);
  return 0;
}
