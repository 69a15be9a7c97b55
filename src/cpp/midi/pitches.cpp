#include "midi/pitches.h"

#include <stdexcept>
#include <string>
#include <utility>

namespace musicgen::midi {
namespace {

constexpr std::uint16_t ticks_per_quarter = 480;
constexpr unsigned pitch_bits = 7;
constexpr std::int64_t last_start = (std::int64_t{1} << 56) - 1;
constexpr int max_duration = 1 << 20;  // over a thousand bars; rows times this stays far below 2^63

}  // namespace

PitchEncoder::PitchEncoder(PitchOptions options) : options_(std::move(options)) {
  expect("lowest", options_.lowest, 0, 127);
  expect("highest", options_.highest, options_.lowest, 127);
  expect("duration", options_.duration, 1, max_duration);
  expect("velocity", options_.velocity, 1, 127);
  check_selection(options_.selection);
  end_token_ = options_.highest - options_.lowest + 1;
  vocabulary_ = end_token_ + (options_.end ? 1 : 0);
}

Encoded PitchEncoder::encode(const SongView& song, Poll poll) const {
  refuse_several_pieces(song);
  Encoded encoded;
  Buffer<std::uint64_t> keys;
  std::int64_t outside = 0;
  for_chosen(song, options_.selection, encoded.issues, poll, [&](const Note& note) {
    if (note.start > last_start) {
      throw std::invalid_argument("score: expected notes that begin before tick 2^56, got tick " +
                                  std::to_string(note.start));
    }
    if (note.pitch < options_.lowest || note.pitch > options_.highest) {
      ++outside;
    } else {
      keys.push(static_cast<std::uint64_t>(note.start) << pitch_bits | note.pitch);
    }
  });
  add_issue(encoded.issues, outside,
            "outside the pitches " + std::to_string(options_.lowest) + " to " + std::to_string(options_.highest) +
                " {were} left out");
  sort_keys(keys, 0, poll);

  const bool highest = options_.polyphony == Polyphony::highest, all = options_.polyphony == Polyphony::all;
  const std::size_t size = keys.size();
  std::int32_t* out = encoded.tokens.extend(size + 1);
  const std::int32_t* const begin = out;
  for (std::size_t i = 0; i < size; ++i) {
    if (i % poll_interval == 0) poll();
    // Of notes that begin together, the highest comes last.
    const std::size_t neighbour = highest ? i + 1 : i - 1;
    if (!all && neighbour < size && keys[neighbour] >> pitch_bits == keys[i] >> pitch_bits) continue;
    *out++ = static_cast<std::int32_t>(keys[i] & ((1u << pitch_bits) - 1)) - options_.lowest;
  }
  add_issue(encoded.issues, static_cast<std::int64_t>(size) - (out - begin),
            std::string("{were} left out: a ") + (highest ? "higher" : "lower") + " one begins with them");
  if (options_.end) *out++ = end_token_;
  encoded.tokens.set_size(static_cast<std::size_t>(out - begin));
  return encoded;
}

Song PitchEncoder::decode(const std::int32_t* tokens, std::size_t rows, Poll poll) const {
  check_tokens(tokens, rows, vocabulary_, poll);
  const Span span = between_ends(tokens, rows, end_token_);
  const auto size = static_cast<std::size_t>(span.end - span.begin);
  Song song;
  song.division = ticks_per_quarter;
  Note* notes = song.notes.extend(size);
  std::int64_t time = 0;
  for (std::size_t i = 0; i < size; ++i, time += options_.duration) {
    if (i % poll_interval == 0) poll();
    notes[i] = {time,
                options_.duration,
                static_cast<std::uint8_t>(span.begin[i] + options_.lowest),
                static_cast<std::uint8_t>(options_.velocity),
                0,
                default_release_velocity,
                options_.selection.first_track()};
  }
  add_track(song, options_.selection.first_track(), time);
  return song;
}

}  // namespace musicgen::midi
