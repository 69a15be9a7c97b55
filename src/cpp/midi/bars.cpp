#include "midi/bars.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "base/checked.h"
#include "midi/chords.h"
#include "midi/grid.h"
#include "midi/parts.h"

namespace musicgen::midi {
namespace {

constexpr std::int32_t bar = 0, drums = 128, num_programs = 129, num_pitches = 128;
constexpr int finest = 480;  // ticks per quarter note of what is decoded, at least
constexpr std::uint8_t tempo_type = 0x51, signature_type = 0x58;
constexpr std::int64_t default_tempo = 500'000;
constexpr int max_lengths = 1 << 16;  // steps of the longest duration or bar

// A note as a key. What an encoder sorts by, step, program, pitch, is above what decides between doubles, duration and
// velocity. A decoder sorts by program, then step.
constexpr unsigned velocity_bits = 7, duration_bits = 10, pitch_bits = 7, program_bits = 8, step_bits = 28;
constexpr unsigned duration_shift = velocity_bits, pitch_shift = duration_shift + duration_bits;
constexpr unsigned order_shift = pitch_shift + pitch_bits, step_shift = order_shift + program_bits;
constexpr unsigned program_shift = order_shift + step_bits;
static_assert(max_steps < std::int64_t{1} << step_bits && program_shift + program_bits <= 64);

constexpr std::uint64_t field(std::uint64_t key, unsigned shift, unsigned bits) {
  return key >> shift & ((std::uint64_t{1} << bits) - 1);
}

std::int64_t step_of(std::uint64_t key) { return static_cast<std::int64_t>(key >> step_shift); }

// The well-formed meta events of a type, in order of time, then track: take(time, payload).
template <typename Take>
void for_metas(const SongView& song, std::uint8_t type, std::int64_t wanted_size, Take&& take) {
  struct Meta {
    std::int64_t time;
    const std::uint8_t* payload;
  };
  std::vector<Meta> metas;
  const std::int32_t piece = song.format == 2 && song.num_notes > 0 ? song.notes[0].track : -1;
  std::size_t payload = 0;
  for (std::size_t i = 0; i < song.num_events; ++i) {
    const Event& event = song.events[i];
    if (event.status < 0xF0) continue;
    const std::int64_t begin = payload == 0 ? 0 : song.payload_ends[payload - 1];
    const std::int64_t size = song.payload_ends[payload++] - begin;
    if (event.status != 0xFF || event.data1 != type || size != wanted_size) continue;
    if (piece < 0 || event.track == piece) metas.push_back({event.time, song.payload + begin});
  }
  std::stable_sort(metas.begin(), metas.end(), [](const Meta& a, const Meta& b) { return a.time < b.time; });
  for (const Meta& meta : metas) take(meta.time, meta.payload);
}

}  // namespace

BarEncoder::BarEncoder(BarOptions options) : options_(std::move(options)) {
  expect("steps_per_beat", options_.steps_per_beat, 1, finest);
  expect("velocity_bins", options_.velocity_bins, 0, 127);
  expect("velocity", options_.velocity, 1, 127);
  expect("the number of time_signatures", static_cast<int>(options_.time_signatures.size()), 1, 256);
  expect("the number of tempos", static_cast<int>(options_.tempos.size()), 0, 256);
  expect("the number of durations", static_cast<int>(options_.durations.size()), 1, 1 << duration_bits);
  std::int32_t longest_bar = 0;
  for (const auto& [numerator, denominator] : options_.time_signatures) {
    expect("the numerator of a time signature", numerator, 1, 255);
    expect("the denominator of a time signature", denominator, 1, 128);
    const int steps = 4 * numerator * options_.steps_per_beat;
    if ((denominator & (denominator - 1)) != 0 || steps % denominator != 0) {
      throw std::invalid_argument("time_signatures: expected bars of whole steps, got " + std::to_string(numerator) +
                                  "/" + std::to_string(denominator));
    }
    if (numerator == 4 && denominator == 4) common_time_ = static_cast<std::int32_t>(bar_lengths_.size());
    bar_lengths_.push_back(steps / denominator);
    longest_bar = std::max(longest_bar, bar_lengths_.back());
  }
  if (common_time_ < 0) throw std::invalid_argument("time_signatures: expected 4/4 to be one of them");
  expect("the steps of a bar", longest_bar, 1, max_lengths);
  for (std::size_t i = 0; i < options_.tempos.size(); ++i) {
    expect("a tempo", options_.tempos[i], 1, i == 0 ? (1 << 24) - 1 : options_.tempos[i - 1] - 1);
  }
  for (std::size_t i = 0; i < options_.durations.size(); ++i) {
    const int shorter = i == 0 ? 0 : options_.durations[i - 1];
    expect("a duration", options_.durations[i], shorter + 1, i == 0 ? 1 : max_lengths);
  }
  nearest_duration_.resize(to_size(options_.durations.back()) + 1);
  for (std::size_t steps = 1, i = 0; steps < nearest_duration_.size(); ++steps) {
    const auto size = static_cast<std::int64_t>(steps);
    while (i + 1 < options_.durations.size() && 2 * size >= options_.durations[i] + options_.durations[i + 1]) ++i;
    nearest_duration_[steps] = static_cast<std::uint16_t>(i);
  }
  for (int velocity = 1; options_.velocity_bins > 0 && velocity < 128; ++velocity) {
    bins_[static_cast<std::size_t>(velocity)] =
        static_cast<std::uint8_t>(bin_of_velocity(velocity, options_.velocity_bins));
  }
  position_ = signature_ + static_cast<std::int32_t>(bar_lengths_.size());
  tempo_ = position_ + longest_bar;
  chord_ = tempo_ + static_cast<std::int32_t>(options_.tempos.size());
  program_ = chord_ + (options_.chords ? num_chords : 0);
  pitch_ = program_ + (options_.programs ? num_programs : 0);
  drum_pitch_ = pitch_ + num_pitches;
  velocity_ = drum_pitch_ + (options_.selection.drums ? num_pitches : 0);
  duration_ = velocity_ + options_.velocity_bins;
  end_ = duration_ + static_cast<std::int32_t>(options_.durations.size());
  vocabulary_ = end_ + (options_.end ? 1 : 0);
}

Encoded BarEncoder::encode(const SongView& song, Poll poll) const {
  refuse_several_pieces(song);
  Encoded encoded;
  const Buffer<std::uint64_t> notes = notes_of(song, encoded, poll);
  const std::int64_t last = notes.empty() ? -1 : step_of(notes[notes.size() - 1]);
  const std::vector<Mark> tempos = tempos_of(song, last, encoded);
  const std::vector<Mark> signatures = signatures_of(song, last, encoded);
  if (!notes.empty()) write(notes, tempos, signatures, encoded, poll);
  if (options_.end) encoded.tokens.push(end_);
  return encoded;
}

// In order, without doubles.
Buffer<std::uint64_t> BarEncoder::notes_of(const SongView& song, Encoded& encoded, Poll poll) const {
  const BeatGrid grid(song, options_.steps_per_beat);
  Changes programs(song, program_change, poll);
  const std::int64_t longest = options_.durations.back();
  Buffer<std::uint64_t> keys;
  keys.extend(song.num_notes);
  std::uint64_t* key = keys.data();
  std::int64_t moved = 0, shorter = 0, cut = 0, other = 0;
  for_chosen(song, options_.selection, encoded.issues, poll, [&](const Note& note) {
    const Step start = grid(note.start), end = grid(note.start + note.duration);
    moved += !(start.exact && end.exact);
    std::int64_t steps = end.number - start.number;
    shorter += steps < 1;
    cut += steps > longest;
    steps = std::clamp(steps, std::int64_t{1}, longest);
    const std::uint16_t duration = nearest_duration_[to_size(steps)];
    other += options_.durations[duration] != steps;
    std::uint64_t program = 0;
    if (note.channel == drum_channel) {
      program = drums;
    } else if (options_.programs) {
      const Change* const change = programs.at(note.track, note.channel, note.start);
      program = change == nullptr ? 0 : change->value;
    }
    *key++ = static_cast<std::uint64_t>(start.number) << step_shift | program << order_shift |
             std::uint64_t{note.pitch} << pitch_shift | std::uint64_t{duration} << duration_shift |
             bins_[note.velocity];
  });
  keys.set_size(static_cast<std::size_t>(key - keys.data()));
  sort_keys(keys, pitch_shift, poll);
  std::uint64_t* kept = keys.data();
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (kept != keys.data() && kept[-1] >> pitch_shift == keys[i] >> pitch_shift) {
      kept[-1] = std::max(kept[-1], keys[i]);
    } else {
      *kept++ = keys[i];
    }
  }
  const std::int64_t doubles = static_cast<std::int64_t>(keys.size()) - (kept - keys.data());
  keys.set_size(static_cast<std::size_t>(kept - keys.data()));
  add_issue(encoded.issues, moved, "{were} moved to the nearest step");
  add_issue(encoded.issues, shorter, "shorter than a step {were} made one long");
  add_issue(encoded.issues, cut, "longer than " + std::to_string(longest) + " steps {were} cut");
  add_issue(encoded.issues, other, "{were} given the nearest duration of the vocabulary");
  add_issue(encoded.issues, doubles, "{were} left out: one of their program and pitch begins with them");
  return keys;
}

// The nearest in equal ratios, the faster one of two.
std::int32_t BarEncoder::tempo_nearest(std::int64_t microseconds) const {
  std::size_t index = 0;
  while (index + 1 < options_.tempos.size() &&
         microseconds * microseconds <= std::int64_t{options_.tempos[index]} * options_.tempos[index + 1]) {
    ++index;
  }
  return static_cast<std::int32_t>(index);
}

// What the meta events of a type say, one for a step, the first at step 0, none after the last note. `read` makes an
// index of a payload, and says whether that is just what the payload holds; no index: it holds nothing.
template <typename Read>
std::vector<BarEncoder::Mark> BarEncoder::marks_of(const SongView& song, std::uint8_t type, std::int64_t size,
                                                   std::int64_t last, std::int32_t at_first, const std::string& thing,
                                                   const std::string& otherwise, Encoded& encoded, Read&& read) const {
  const BeatGrid grid(song, options_.steps_per_beat);
  std::vector<Mark> marks{{0, at_first}};
  std::int64_t moved = 0, other = 0, replaced = 0, late = 0;
  bool given = false;  // whether the last mark comes from the song
  for_metas(song, type, size, [&](std::int64_t time, const std::uint8_t* payload) {
    const auto [index, exact] = read(payload);
    if (index < 0) return;
    if (!grid.holds(time) || grid(time).number > last) {
      ++late;
      return;
    }
    const Step step = grid(time);
    moved += !step.exact;
    other += !exact;
    if (step.number == marks.back().step) {
      replaced += given && index != marks.back().index;
      marks.back().index = index;
    } else {
      marks.push_back({step.number, index});
    }
    given = true;
  });
  add_issue(encoded.issues, moved, "{were} moved to the nearest step", thing);
  add_issue(encoded.issues, other, otherwise, thing);
  add_issue(encoded.issues, replaced, "{were} left out: another one is at the same step", thing);
  add_issue(encoded.issues, late, "after the last note {were} left out", thing);
  return marks;
}

// One for every change.
std::vector<BarEncoder::Mark> BarEncoder::tempos_of(const SongView& song, std::int64_t last, Encoded& encoded) const {
  if (options_.tempos.empty()) return {};
  const std::int32_t at_first = tempo_nearest(default_tempo);
  if (song.division & 0x8000) return {{0, at_first}};  // SMPTE time ignores tempos
  std::vector<Mark> marks =
      marks_of(song, tempo_type, 3, last, at_first, "tempo", "{were} given the nearest value of the vocabulary",
               encoded, [&](const std::uint8_t* payload) {
                 const std::int32_t microseconds = payload[0] << 16 | payload[1] << 8 | payload[2];
                 const std::int32_t index = microseconds == 0 ? -1 : tempo_nearest(microseconds);
                 return std::pair(index, index >= 0 && options_.tempos[to_size(index)] == microseconds);
               });
  const auto same = [](const Mark& a, const Mark& b) { return a.index == b.index; };
  marks.erase(std::unique(marks.begin(), marks.end(), same), marks.end());
  return marks;
}

// One for every change, and for one that begins a bar where there would be none.
std::vector<BarEncoder::Mark> BarEncoder::signatures_of(const SongView& song, std::int64_t last,
                                                        Encoded& encoded) const {
  const std::vector<Mark> marks = marks_of(
      song, signature_type, 4, last, common_time_, "time signature", "outside the vocabulary {were} written as 4/4",
      encoded, [&](const std::uint8_t* payload) {
        if (payload[0] == 0 || payload[1] > 7) return std::pair(-1, false);
        const auto& known = options_.time_signatures;
        const auto found = std::find(known.begin(), known.end(), std::pair<int, int>(payload[0], 1 << payload[1]));
        const bool exact = found != known.end();
        return std::pair(exact ? static_cast<std::int32_t>(found - known.begin()) : common_time_, exact);
      });
  std::vector<Mark> kept;
  for (const Mark& mark : marks) {
    const bool repeated = !kept.empty() && kept.back().index == mark.index;
    if (repeated && (mark.step - kept.back().step) % bar_lengths_[to_size(mark.index)] == 0) continue;
    kept.push_back(mark);
  }
  return kept;
}

void BarEncoder::write(const Buffer<std::uint64_t>& notes, const std::vector<Mark>& tempos,
                       const std::vector<Mark>& signatures, Encoded& encoded, Poll poll) const {
  const std::size_t size = notes.size();
  const std::int64_t last = step_of(notes[size - 1]);
  ChordFinder chords;
  std::size_t note = 0, in_chords = 0, tempo = 0, polled = 0;
  std::int32_t chord = -1, written_signature = -1;
  struct At {
    std::int64_t step;
    std::int32_t chord;
  };
  std::vector<At> chords_of_bar;
  for (std::size_t i = 0; i < signatures.size(); ++i) {
    const std::int32_t signature = signatures[i].index;
    const std::int64_t length = bar_lengths_[to_size(signature)];
    const std::int64_t until = i + 1 < signatures.size() ? signatures[i + 1].step : last + 1;
    for (std::int64_t begin = signatures[i].step; begin < until; begin += length) {
      const bool cut = i + 1 < signatures.size() && until < begin + length;
      const std::int64_t end = cut ? until : begin + length;
      chords_of_bar.clear();
      for (std::int64_t beat = begin; options_.chords && beat < end && beat <= last; beat += options_.steps_per_beat) {
        const std::int64_t next = std::min(beat + options_.steps_per_beat, end);
        for (; in_chords < size && step_of(notes[in_chords]) < next; ++in_chords) {
          const std::uint64_t key = notes[in_chords];
          if (field(key, order_shift, program_bits) == drums) continue;
          const std::int64_t start = step_of(key);
          const std::int32_t duration = options_.durations[field(key, duration_shift, duration_bits)];
          chords.add(start, start + duration, static_cast<int>(field(key, pitch_shift, pitch_bits)));
        }
        const std::int32_t found = chords.find(beat, next);
        if (found >= 0 && found != chord) chords_of_bar.push_back({beat, chord = found});
      }
      // The notes of this bar, five tokens each at most, and what else there is room for.
      std::size_t notes_end = note, tempos_end = tempo;
      while (notes_end < size && step_of(notes[notes_end]) < end) ++notes_end;
      while (tempos_end < tempos.size() && tempos[tempos_end].step < end) ++tempos_end;
      const std::size_t room = 3 + 5 * (notes_end - note) + 2 * (tempos_end - tempo) + 2 * chords_of_bar.size();
      const std::size_t before = encoded.tokens.size();
      std::int32_t* out = encoded.tokens.extend(room);
      const std::int32_t* const first = out;
      *out++ = bar;
      if (signature != written_signature) *out++ = signature_ + (written_signature = signature);
      std::int64_t here = -1;  // the step of the last position
      const auto go_to = [&](std::int64_t step) {
        if (step == here) return;
        *out++ = position_ + static_cast<std::int32_t>(step - begin);
        here = step;
      };
      auto next_chord = chords_of_bar.begin();
      std::uint64_t program = num_programs;
      const auto write_marks = [&](std::int64_t upto) {  // in order of time, a tempo before a chord
        for (;;) {
          const bool a = tempo < tempos_end && tempos[tempo].step <= upto;
          const bool b = next_chord != chords_of_bar.end() && next_chord->step <= upto;
          if (a && !(b && next_chord->step < tempos[tempo].step)) {
            go_to(tempos[tempo].step);
            *out++ = tempo_ + tempos[tempo++].index;
          } else if (b) {
            go_to(next_chord->step);
            *out++ = chord_ + next_chord++->chord;
          } else {
            return;
          }
        }
      };
      for (; note < notes_end; ++note) {
        if (note % poll_interval == 0) poll();
        const std::uint64_t key = notes[note];
        const std::int64_t step = step_of(key);
        if (note == 0 || step != step_of(notes[note - 1])) {
          write_marks(step);
          go_to(step);
          program = num_programs;
        }
        const std::uint64_t own = field(key, order_shift, program_bits);
        if (options_.programs && own != program) *out++ = program_ + static_cast<std::int32_t>(program = own);
        *out++ = (own == drums ? drum_pitch_ : pitch_) + static_cast<std::int32_t>(field(key, pitch_shift, pitch_bits));
        if (options_.velocity_bins > 0) {
          *out++ = velocity_ - 1 + static_cast<std::int32_t>(field(key, 0, velocity_bits));
        }
        *out++ = duration_ + static_cast<std::int32_t>(field(key, duration_shift, duration_bits));
      }
      write_marks(end);
      if (cut) go_to(end);
      encoded.tokens.set_size(before + static_cast<std::size_t>(out - first));
      if (++polled % poll_interval == 0) poll();
    }
  }
}

Song BarEncoder::decode(const std::int32_t* tokens, std::size_t rows, Poll poll) const {
  check_tokens(tokens, rows, vocabulary_, poll);
  const Span span = between_ends(tokens, rows, end_);
  Buffer<std::uint64_t> notes;
  std::vector<Mark> tempos, signatures;
  std::int64_t begin = 0, now = 0;
  std::int32_t signature = common_time_;
  std::uint64_t program = 0;
  bool in_bar = false;
  std::size_t quarter = 0;
  while (quarter + 1 < options_.durations.size() && options_.durations[quarter] < options_.steps_per_beat) ++quarter;
  const auto plain = std::uint64_t{quarter} << duration_shift | static_cast<std::uint64_t>(options_.velocity);
  const auto set_signature = [&] {
    if (!signatures.empty() && signatures.back().step == begin) signatures.pop_back();
    signatures.push_back({begin, signature});
  };
  for (const std::int32_t* at = span.begin; at != span.end; ++at) {
    if ((at - span.begin) % static_cast<std::ptrdiff_t>(poll_interval) == 0) poll();
    const std::int32_t token = *at;
    if (token == bar) {
      const bool cut = in_bar && at[-1] > position_ && at[-1] < tempo_;
      if (in_bar) begin = cut ? now : begin + bar_lengths_[to_size(signature)];
      now = begin;
      in_bar = true;
      if (cut) set_signature();
    } else if (token < position_) {
      signature = token - signature_;
      set_signature();
    } else if (token < tempo_) {
      now = begin + token - position_;
    } else if (token < chord_) {
      tempos.push_back({now, token - tempo_});
    } else if (token < program_) {
      // A chord is what its notes say.
    } else if (token < pitch_) {
      if (token - program_ != drums) program = static_cast<std::uint64_t>(token - program_);
    } else if (token < velocity_) {
      const bool is_drum = token >= drum_pitch_;
      const auto pitch = static_cast<std::uint64_t>(token - (is_drum ? drum_pitch_ : pitch_));
      notes.push((is_drum ? std::uint64_t{drums} : program) << program_shift |
                 static_cast<std::uint64_t>(now) << order_shift | pitch << pitch_shift | plain);
    } else if (!notes.empty()) {
      std::uint64_t& note = notes[notes.size() - 1];
      if (token < duration_) {
        const int velocity = velocity_of_bin(token - velocity_ + 1, options_.velocity_bins);
        note = (note & ~std::uint64_t{127}) | static_cast<std::uint64_t>(velocity);
      } else {
        const std::uint64_t mask = ((std::uint64_t{1} << duration_bits) - 1) << duration_shift;
        note = (note & ~mask) | static_cast<std::uint64_t>(token - duration_) << duration_shift;
      }
    }
    if (now >= max_steps - max_lengths) {
      throw std::invalid_argument("tokens[" + std::to_string(at - tokens) + "]: expected less than " +
                                  std::to_string(max_steps - max_lengths) + " steps of time, got " +
                                  std::to_string(now));
    }
  }
  return song_of(notes, tempos, signatures, poll);
}

Song BarEncoder::song_of(Buffer<std::uint64_t>& notes, std::vector<Mark>& tempos, const std::vector<Mark>& signatures,
                         Poll poll) const {
  const int ticks_per_step = (finest + options_.steps_per_beat - 1) / options_.steps_per_beat;
  Song song;
  song.division = static_cast<std::uint16_t>(ticks_per_step * options_.steps_per_beat);
  sort_keys(notes, order_shift, poll);

  // A track for every program, in their order; the drums come last.
  std::array<std::int32_t, num_programs> tracks;
  tracks.fill(-1);
  std::vector<std::uint8_t> programs;
  for (std::size_t i = 0; i < notes.size(); ++i) {
    const std::uint64_t program = notes[i] >> program_shift;
    if (tracks[program] >= 0) continue;
    tracks[program] = static_cast<std::int32_t>(programs.size());
    programs.push_back(static_cast<std::uint8_t>(program));
  }
  const auto channel_of = [](std::int32_t track, std::uint64_t program) {
    const std::int32_t channel = track % 15;
    return static_cast<std::uint8_t>(program == drums ? drum_channel : channel + (channel >= drum_channel));
  };
  const auto program_events = [&](std::size_t from, std::size_t upto) {
    for (std::size_t i = from; i < std::min(upto, programs.size()); ++i) {
      const auto track = static_cast<std::int32_t>(i);
      const auto status = static_cast<std::uint8_t>(program_change | channel_of(track, programs[i]));
      if (programs[i] != drums && options_.programs) song.events.push({0, track, status, programs[i], 0, 1});
    }
  };

  program_events(0, 1);
  std::stable_sort(tempos.begin(), tempos.end(), [](const Mark& a, const Mark& b) { return a.step < b.step; });
  std::size_t tempo = 0;
  const auto add_tempos = [&](std::int64_t upto) {
    for (; tempo < tempos.size() && tempos[tempo].step <= upto; ++tempo) {
      add_tempo(song, tempos[tempo].step * ticks_per_step, options_.tempos[to_size(tempos[tempo].index)]);
    }
  };
  for (const Mark& mark : signatures) {
    add_tempos(mark.step);
    const auto [numerator, denominator] = options_.time_signatures[to_size(mark.index)];
    add_time_signature(song, mark.step * ticks_per_step, numerator, denominator);
  }
  add_tempos(max_steps);
  program_events(1, programs.size());

  song.track_ends.extend(std::max<std::size_t>(programs.size(), 1));
  std::fill(song.track_ends.begin(), song.track_ends.end(), 0);
  Note* const out = song.notes.extend(notes.size());
  for (std::size_t i = 0; i < notes.size(); ++i) {
    if (i % poll_interval == 0) poll();
    const std::uint64_t key = notes[i], program = key >> program_shift;
    const std::int32_t track = tracks[program];
    const auto start = static_cast<std::int64_t>(field(key, order_shift, step_bits)) * ticks_per_step;
    const std::int64_t steps = options_.durations[field(key, duration_shift, duration_bits)];
    out[i] = {start,
              steps * ticks_per_step,
              static_cast<std::uint8_t>(field(key, pitch_shift, pitch_bits)),
              static_cast<std::uint8_t>(field(key, 0, velocity_bits)),
              channel_of(track, program),
              default_release_velocity,
              track};
    std::int64_t& end = song.track_ends[to_size(track)];
    end = std::max(end, start + steps * ticks_per_step);
  }
  return song;
}

}  // namespace musicgen::midi
