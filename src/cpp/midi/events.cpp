#include "midi/events.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "base/checked.h"
#include "midi/grid.h"
#include "midi/parts.h"
#include "midi/tempo.h"

namespace musicgen::midi {
namespace {

constexpr std::int32_t note_off = 128, first_shift = 256;
constexpr int finest = 480;  // ticks per quarter note of what is decoded, at least
constexpr std::int32_t tempo = 500'000;

// Events as keys, in their order: step, whether it is a note-on, pitch; a note-on also has its velocity and duration.
constexpr unsigned duration_bits = 21, velocity_bits = 7, pitch_bits = 7;
constexpr unsigned pitch_shift = duration_bits + velocity_bits, on_shift = pitch_shift + pitch_bits;
constexpr unsigned step_shift = on_shift + 1;
constexpr std::int64_t longest = (std::int64_t{1} << duration_bits) - 1;  // hours: longer ones need not be told apart
static_assert(max_steps < std::int64_t{1} << (64 - step_shift));

std::uint64_t key_of(std::int64_t step, bool on, unsigned pitch) {
  return static_cast<std::uint64_t>(step) << step_shift | static_cast<std::uint64_t>(on) << on_shift |
         static_cast<std::uint64_t>(pitch) << pitch_shift;
}

}  // namespace

EventEncoder::EventEncoder(EventOptions options) : options_(std::move(options)) {
  expect("steps_per_second", options_.steps_per_second, 1, max_rate);
  expect("steps_per_beat", options_.steps_per_beat, 0, max_rate);
  expect("max_shift", options_.max_shift, 1, max_rate);
  expect("velocity_bins", options_.velocity_bins, 0, 127);
  expect("velocity", options_.velocity, 1, 127);
  check_selection(options_.selection);
  first_velocity_ = first_shift + options_.max_shift;
  end_token_ = first_velocity_ + options_.velocity_bins;
  vocabulary_ = end_token_ + (options_.end ? 1 : 0);
  for (int velocity = 1; options_.velocity_bins > 0 && velocity < 128; ++velocity) {
    bins_[static_cast<std::size_t>(velocity)] =
        static_cast<std::uint8_t>(bin_of_velocity(velocity, options_.velocity_bins));
  }
  if (options_.steps_per_beat > 0) {
    ticks_per_step_ = (finest + options_.steps_per_beat - 1) / options_.steps_per_beat;
    division_ = static_cast<std::uint16_t>(ticks_per_step_ * options_.steps_per_beat);
  } else {  // two quarter notes a second
    ticks_per_step_ = (2 * finest + options_.steps_per_second - 1) / options_.steps_per_second;
    if (ticks_per_step_ % 2 == 1 && options_.steps_per_second % 2 == 1) ++ticks_per_step_;
    division_ = static_cast<std::uint16_t>(ticks_per_step_ * options_.steps_per_second / 2);
  }
}

Encoded EventEncoder::encode(const SongView& song, Poll poll) const {
  refuse_several_pieces(song);
  const bool smpte = song.division & 0x8000;  // two beats a second
  if (options_.steps_per_beat > 0 || smpte) {
    const BeatGrid grid(song, options_.steps_per_beat > 0 ? options_.steps_per_beat : options_.steps_per_second / 2.0);
    return encode_on(grid, grid, song, poll);
  }
  const TempoMap tempos(song);
  const std::int32_t track = song.num_notes > 0 ? song.notes[0].track : 0;
  const SecondGrid grid(tempos, track, options_.steps_per_second);
  return encode_on(grid, grid, song, poll);
}

template <typename Grid>
Encoded EventEncoder::encode_on(Grid start_grid, Grid end_grid, const SongView& song, Poll poll) const {
  Encoded encoded;
  Buffer<std::uint64_t> keys;
  keys.extend(song.num_notes * 2);
  const Buffer<std::int64_t> ends = options_.sustain ? pedalled_ends(song, poll) : Buffer<std::int64_t>();
  std::uint64_t* key = keys.data();
  std::int64_t moved = 0, shorter = 0;
  for_chosen(song, options_.selection, encoded.issues, poll, [&](const Note& note) {
    const Step start = start_grid(note.start);
    Step end = end_grid(ends.empty() ? note.start + note.duration : ends[static_cast<std::size_t>(&note - song.notes)]);
    moved += !(start.exact && end.exact);
    if (end.number <= start.number) {
      end.number = start.number + 1;
      ++shorter;
    }
    const auto duration = static_cast<std::uint64_t>(std::min(end.number - start.number, longest));
    const auto velocity = std::uint64_t{bins_[note.velocity]} << duration_bits;
    *key++ = key_of(start.number, true, note.pitch) | velocity | duration;
    *key++ = key_of(end.number, false, note.pitch);
  });
  keys.set_size(static_cast<std::size_t>(key - keys.data()));
  add_issue(encoded.issues, moved, "{were} moved to the nearest step");
  add_issue(encoded.issues, shorter, "shorter than a step {were} made one long");
  sort_keys(keys, pitch_shift, poll);
  write(keys, encoded, poll);
  return encoded;
}

void EventEncoder::write(const Buffer<std::uint64_t>& keys, Encoded& encoded, Poll poll) const {
  const std::size_t size = keys.size();
  const std::int64_t last = size == 0 ? 0 : static_cast<std::int64_t>(keys[size - 1] >> step_shift);
  // A shift before and a velocity with every event, the shifts that are longest, and the end.
  std::int32_t* out = encoded.tokens.extend(3 * size + to_size(last / options_.max_shift) + 1);
  const std::int32_t* const begin = out;
  const std::int64_t max_shift = options_.max_shift;
  const std::int32_t longest_shift = first_velocity_ - 1, before_velocities = first_velocity_ - 1;
  std::int64_t now = 0, exchanged = 0;
  std::array<std::int64_t, 128> latest_end{};
  std::int32_t current = 0;
  for (std::size_t i = 0; i < size; ++i) {
    if (i % poll_interval == 0) poll();
    const std::uint64_t key = keys[i];
    const auto step = static_cast<std::int64_t>(key >> step_shift);
    const auto pitch = static_cast<std::int32_t>(key >> pitch_shift & 127);
    const auto on = static_cast<std::int32_t>(key >> on_shift & 1);
    for (; step - now > max_shift; now += max_shift) *out++ = longest_shift;
    // No branches: whether time moves on, a note begins or the velocity changes cannot be predicted.
    *out = first_shift - 1 + static_cast<std::int32_t>(step - now);
    out += step > now;
    now = step;
    const std::int32_t change = (static_cast<std::int32_t>(key >> duration_bits & 127) - current) & -on;
    current += change;
    *out = before_velocities + current;
    out += change != 0;
    *out++ = pitch + note_off - on * note_off;
    const std::int64_t end = step + static_cast<std::int64_t>(key & longest);
    std::int64_t& latest = latest_end[static_cast<std::size_t>(pitch)];
    exchanged += on & static_cast<std::int32_t>(end < latest);
    latest = std::max(latest, end);
  }
  if (options_.end) *out++ = end_token_;
  encoded.tokens.set_size(static_cast<std::size_t>(out - begin));
  add_issue(encoded.issues, exchanged, "that ended before an older one of their pitch {were} given its end");
}

Song EventEncoder::decode(const std::int32_t* tokens, std::size_t rows, Poll poll) const {
  check_tokens(tokens, rows, vocabulary_, poll);
  const Span span = between_ends(tokens, rows, end_token_);
  Song song;
  song.division = division_;
  if (options_.steps_per_beat == 0) add_tempo(song, 0, tempo);

  const std::int32_t track = options_.selection.first_track();
  constexpr std::int64_t none = -1;
  std::array<std::int64_t, 128> oldest, youngest{};  // sounding notes of a pitch; each knows the next in its duration
  oldest.fill(none);
  std::int64_t now = 0, last = 0;
  int velocity = options_.velocity;
  const auto end_oldest = [&](std::size_t pitch) {
    Note& note = song.notes[to_size(oldest[pitch])];
    oldest[pitch] = note.duration;
    note.duration = std::max(now * ticks_per_step_ - note.start, std::int64_t{ticks_per_step_});
    last = std::max(last, note.start + note.duration);
  };
  for (const std::int32_t* at = span.begin; at != span.end; ++at) {
    if ((at - span.begin) % static_cast<std::ptrdiff_t>(poll_interval) == 0) poll();
    const std::int32_t token = *at;
    if (token < note_off) {
      const auto pitch = static_cast<std::size_t>(token);
      const auto index = static_cast<std::int64_t>(song.notes.size());
      (oldest[pitch] == none ? oldest[pitch] : song.notes[to_size(youngest[pitch])].duration) = index;
      youngest[pitch] = index;
      song.notes.push({now * ticks_per_step_, none, static_cast<std::uint8_t>(token),
                       static_cast<std::uint8_t>(velocity), 0, default_release_velocity, track});
    } else if (token < first_shift) {
      const auto pitch = static_cast<std::size_t>(token - note_off);
      if (oldest[pitch] != none) end_oldest(pitch);
    } else if (token < first_velocity_) {
      now += token - first_shift + 1;
      if (now >= max_steps) {
        throw std::invalid_argument("tokens[" + std::to_string(at - tokens) + "]: expected less than " +
                                    std::to_string(max_steps) + " steps of time, got " + std::to_string(now));
      }
    } else {
      velocity = velocity_of_bin(token - first_velocity_ + 1, options_.velocity_bins);
    }
  }
  for (std::size_t pitch = 0; pitch < oldest.size(); ++pitch) {
    while (oldest[pitch] != none) end_oldest(pitch);
  }
  add_track(song, track, last);
  return song;
}

}  // namespace musicgen::midi
