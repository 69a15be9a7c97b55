#include "midi/tokens.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace musicgen::midi {
namespace {

constexpr std::uint8_t meta_status = 0xFF, tempo_type = 0x51;

unsigned bit_width(std::uint64_t value) {
  unsigned width = 0;
  for (; value != 0; value >>= 1) ++width;
  return width;
}

}  // namespace

void sort_keys(Buffer<std::uint64_t>& keys, unsigned low_bit, Poll poll) {
  const std::size_t size = keys.size();
  std::uint64_t all = 0, before = 0;
  bool in_order = true;
  for (std::size_t i = 0; i < size; ++i) {
    if (i % poll_interval == 0) poll();
    in_order &= before >> low_bit <= keys[i] >> low_bit;
    before = keys[i];
    all |= before;
  }
  if (in_order) return;

  // Counters that fit into the first cache beside what is sorted, and no more of them than there are keys to count.
  constexpr unsigned widest = 11;
  const unsigned bits = bit_width(all) - low_bit;  // more than 0: otherwise they would all be equal, and in order
  const unsigned most = std::clamp(bit_width(size), 5u, widest);
  const unsigned passes = (bits + most - 1) / most, width = (bits + passes - 1) / passes;
  Buffer<std::uint64_t> other;
  other.extend(size);
  for (unsigned shift = low_bit; shift < low_bit + bits; shift += width) {
    const std::uint64_t mask = (std::uint64_t{1} << width) - 1;
    std::size_t places[std::size_t{1} << widest] = {};
    for (std::size_t i = 0; i < size; ++i) ++places[keys[i] >> shift & mask];
    std::size_t place = 0;
    for (std::size_t digit = 0; digit <= mask; ++digit) place += std::exchange(places[digit], place);
    for (std::size_t i = 0; i < size; ++i) {
      if (i % poll_interval == 0) poll();
      other[places[keys[i] >> shift & mask]++] = keys[i];
    }
    std::swap(keys, other);
  }
}

void add_issue(std::vector<std::string>& issues, std::int64_t count, const std::string& what) {
  if (count == 0) return;
  std::string text = std::to_string(count) + (count == 1 ? " note " : " notes ") + what;
  const std::string verb = "{were}";
  text.replace(text.find(verb), verb.size(), count == 1 ? "was" : "were");
  issues.push_back(std::move(text));
}

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

void add_tempo(Song& song, std::int64_t time, std::int32_t microseconds_per_quarter) {
  song.events.push({time, 0, meta_status, tempo_type, 0, 1});
  for (const int shift : {16, 8, 0}) song.payload.push(static_cast<std::uint8_t>(microseconds_per_quarter >> shift));
  song.payload_ends.push(static_cast<std::int64_t>(song.payload.size()));
}

}  // namespace musicgen::midi
