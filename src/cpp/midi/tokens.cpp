#include "midi/tokens.h"

#include <algorithm>
#include <initializer_list>
#include <limits>
#include <new>
#include <stdexcept>
#include <utility>

namespace musicgen::midi {
namespace {

constexpr std::uint8_t meta_status = 0xFF, tempo_type = 0x51, time_signature_type = 0x58;

unsigned bit_width(std::uint64_t value) {
  unsigned width = 0;
  for (; value != 0; value >>= 1) ++width;
  return width;
}

void add_meta(Song& song, std::int64_t time, std::uint8_t type, std::initializer_list<int> payload) {
  song.events.push({time, 0, meta_status, type, 0, 1});
  for (const int value : payload) song.payload.push(static_cast<std::uint8_t>(value));
  song.payload_ends.push(static_cast<std::int64_t>(song.payload.size()));
}

int size_of_bin(int bins) { return (127 + bins - 1) / bins; }

}  // namespace

void sort_keys(Buffer<std::uint64_t>& keys, unsigned low_bit, Poll poll) {
  const std::size_t size = keys.size();
  std::uint64_t all = 0, before = 0;
  bool in_order = true;
  for (std::size_t i = 0; i < size; ++i) {
    in_order &= before >> low_bit <= keys[i] >> low_bit;
    before = keys[i];
    all |= before;
  }
  if (in_order) return;
  if (size > std::numeric_limits<std::uint32_t>::max()) throw std::bad_alloc();

  // The counters of a digit fit into half of the first cache, and are not many more than there are keys to count.
  constexpr unsigned widest = 12;
  const unsigned bits = bit_width(all) - low_bit;  // more than 0: otherwise all would be equal, and in order
  const unsigned most = std::clamp(bit_width(size), 8u, widest);
  const unsigned passes = (bits + most - 1) / most, width = (bits + passes - 1) / passes;
  const std::uint64_t mask = (std::uint64_t{1} << width) - 1;
  std::vector<std::uint32_t> places(mask + 1);
  Buffer<std::uint64_t> other;
  other.extend(size);
  for (unsigned shift = low_bit; shift < low_bit + bits; shift += width) {
    std::fill(places.begin(), places.end(), 0u);
    for (std::size_t i = 0; i < size; ++i) ++places[keys[i] >> shift & mask];
    std::uint32_t place = 0;
    for (std::uint32_t& digit : places) place += std::exchange(digit, place);
    for (std::size_t begin = 0; begin < size; begin += poll_interval) {
      poll();
      const std::size_t end = std::min(begin + poll_interval, size);
      for (std::size_t i = begin; i < end; ++i) other[places[keys[i] >> shift & mask]++] = keys[i];
    }
    std::swap(keys, other);
  }
}

void add_issue(std::vector<std::string>& issues, std::int64_t count, const std::string& what,
               const std::string& thing) {
  if (count == 0) return;
  std::string text = std::to_string(count) + " " + thing + (count == 1 ? " " : "s ") + what;
  const std::string verb = "{were}";
  text.replace(text.find(verb), verb.size(), count == 1 ? "was" : "were");
  issues.push_back(std::move(text));
}

void expect(const char* name, int value, int low, int high) {
  if (value >= low && value <= high) return;
  throw std::invalid_argument(std::string(name) + ": expected " + std::to_string(low) + " to " + std::to_string(high) +
                              ", got " + std::to_string(value));
}

void check_selection(const Selection& selection) {
  if (selection.all_tracks) return;
  if (selection.tracks.empty()) throw std::invalid_argument("tracks: expected at least one, got none");
  std::int32_t least = 0;
  for (const std::int32_t track : selection.tracks) {
    expect("a track", track, least, 0xFFFE);
    least = track + 1;
  }
}

int bin_of_velocity(int velocity, int bins) { return (velocity - 1) / size_of_bin(bins) + 1; }

// The last bins may lie beyond the loudest velocity.
int velocity_of_bin(int bin, int bins) { return std::min(1 + (bin - 1) * size_of_bin(bins), 127); }

void check_tokens(const std::int32_t* tokens, std::size_t count, std::int32_t size, Poll poll) {
  for (std::size_t i = 0; i < count; ++i) {
    if (i % poll_interval == 0) poll();
    if (tokens[i] < 0 || tokens[i] >= size) {
      throw std::invalid_argument("tokens[" + std::to_string(i) + "]: expected 0 to " + std::to_string(size - 1) +
                                  ", got " + std::to_string(tokens[i]));
    }
  }
}

Span between_ends(const std::int32_t* tokens, std::size_t count, std::int32_t end_token) {
  const std::int32_t* end = tokens + count;
  tokens = std::find_if(tokens, end, [&](std::int32_t token) { return token != end_token; });
  return {tokens, std::find(tokens, end, end_token)};
}

void refuse_several_pieces(const SongView& song) {
  if (song.format != 2 || song.num_notes == 0) return;
  const std::int32_t first = song.notes[0].track, last = song.notes[song.num_notes - 1].track;
  if (first != last) {
    throw std::invalid_argument(
        "score: expected one piece, got a file of format 2 with pieces of their own on tracks " +
        std::to_string(first) + " to " + std::to_string(last));
  }
}

void add_track(Song& song, std::int32_t track, std::int64_t end) {
  for (std::int32_t i = 0; i < track; ++i) song.track_ends.push(0);
  song.track_ends.push(end);
}

void add_tempo(Song& song, std::int64_t time, std::int32_t microseconds_per_quarter) {
  add_meta(song, time, tempo_type,
           {microseconds_per_quarter >> 16, microseconds_per_quarter >> 8, microseconds_per_quarter});
}

void add_time_signature(Song& song, std::int64_t time, int numerator, int denominator) {
  int power = 0;
  while (1 << power < denominator) ++power;
  add_meta(song, time, time_signature_type, {numerator, power, 24, 8});  // a click per quarter note of 8 32nds
}

}  // namespace musicgen::midi
