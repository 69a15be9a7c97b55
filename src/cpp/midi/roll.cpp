#include "midi/roll.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "base/checked.h"
#include "midi/tempo.h"

namespace musicgen::midi {

namespace {

constexpr std::uint8_t drum_channel = 9;
constexpr double bend_unit = 4096.0;             // a semitone, where the whole range is two
constexpr std::size_t bytes_per_poll = 1 << 23;  // some milliseconds
constexpr std::size_t notes_per_poll = 1 << 18;
constexpr std::size_t cells_per_poll = 1 << 25;
constexpr std::size_t cached_bytes = 8 << 20;

// int(seconds * fs), for products known to be below max_width.
std::uint32_t frame_of(double seconds, double fs) { return static_cast<std::uint32_t>(seconds * fs); }

// Ticks to steps, halves rounded up. The division is a multiplication by the inverse, put right: for numerators below
// 2^52 the product is off by less than one.
class StepClock {
 public:
  StepClock(std::int64_t steps_per_beat, std::uint16_t division)
      : numerator_(2 * steps_per_beat), half_(division), denominator_(2 * division), inverse_(1.0 / denominator_) {}

  double approximately(std::int64_t tick) const {
    return std::ceil(static_cast<double>(tick) * static_cast<double>(numerator_) * inverse_);
  }

  bool fits(std::int64_t tick) const { return approximately(tick) < Roll::max_width; }

  std::uint32_t step(std::int64_t tick) const {
    const std::int64_t numerator = tick * numerator_ + half_;
    auto quotient = static_cast<std::int64_t>(static_cast<double>(numerator) * inverse_);
    const std::int64_t rest = numerator - quotient * denominator_;
    quotient += rest >= denominator_;
    quotient -= rest < 0;
    return static_cast<std::uint32_t>(quotient);
  }

 private:
  std::int64_t numerator_, half_, denominator_;
  double inverse_;
};

template <typename T>
void add(T* cells, std::uint32_t begin, std::uint32_t end, double value) {
  const auto more = static_cast<T>(value);
  for (std::uint32_t i = begin; i < end; ++i) cells[i] += more;
}

template <>
void add(std::uint8_t* cells, std::uint32_t begin, std::uint32_t end, double value) {
  const auto more = static_cast<std::uint8_t>(std::min(value, 255.0));
  const auto room = static_cast<std::uint8_t>(255 - more);
  for (std::uint32_t i = begin; i < end; ++i) cells[i] = static_cast<std::uint8_t>(std::min(cells[i], room) + more);
}

template <typename T>
T rounded_down(double value) {
  if constexpr (std::is_same_v<T, std::uint8_t>) {
    return static_cast<T>(std::min(value, 255.0));
  } else {
    return static_cast<T>(value);
  }
}

void set_bits(std::uint8_t* bytes, std::uint32_t begin, std::uint32_t end) {
  if (begin >= end) return;
  const std::uint32_t first = begin / 8, last = (end - 1) / 8;
  const auto head = static_cast<std::uint8_t>(0xFF >> begin % 8);
  const auto tail = static_cast<std::uint8_t>(0xFF << (7 - (end - 1) % 8));
  if (first == last) {
    bytes[first] |= head & tail;
    return;
  }
  bytes[first] |= head;
  std::memset(bytes + first + 1, 0xFF, last - first - 1);
  bytes[last] |= tail;
}

// What a roll is drawn on: cleared, painted in any order, and finished row by row.

template <typename T>
struct Cells {
  T* out;
  std::size_t width;
  bool binary, zeroed;

  std::size_t row_bytes() const { return width * sizeof(T); }
  T* at(std::size_t row) const { return out + row * width; }
  void clear(std::size_t row, std::size_t rows) const {
    if (!zeroed) std::memset(at(row), 0, rows * row_bytes());
  }
  void paint(std::size_t row, std::uint32_t begin, std::uint32_t end, double value) const {
    T* const cells = at(row);
    if (binary) {
      std::fill(cells + begin, cells + std::max(begin, end), T(1));
    } else {
      add(cells, begin, end, value);
    }
  }
};

struct Bits {
  std::uint8_t* out;
  std::size_t row_size;
  bool zeroed;

  std::size_t row_bytes() const { return row_size; }
  void clear(std::size_t row, std::size_t rows) const {
    if (!zeroed) std::memset(out + row * row_size, 0, rows * row_size);
  }
  void paint(std::size_t row, std::uint32_t begin, std::uint32_t end, double) const {
    set_bits(out + row * row_size, begin, end);
  }
};

struct RowSums {  // of one row
  double* cells;
  void paint(std::size_t, std::uint32_t begin, std::uint32_t end, double value) const { add(cells, begin, end, value); }
};

// Sums of what overlaps: the runs of one pitch, given as (begin, end, velocity), as runs that do not overlap.
template <typename Run, typename Note>
void add_up(Note* notes, std::size_t count, std::vector<Run>& runs) {
  const auto by_begin = [](const Note& a, const Note& b) { return a.begin < b.begin; };
  if (!std::is_sorted(notes, notes + count, by_begin)) std::sort(notes, notes + count, by_begin);
  std::vector<std::pair<std::uint32_t, std::int64_t>> changes;
  for (std::size_t i = 0; i < count;) {
    const std::size_t first = i;
    std::uint32_t end = notes[i].end;
    for (++i; i < count && notes[i].begin < end; ++i) end = std::max(end, notes[i].end);
    if (i == first + 1) {
      if (end > notes[first].begin) runs.push_back({notes[first].begin, end, double(notes[first].velocity)});
      continue;
    }
    changes.clear();
    for (std::size_t k = first; k < i; ++k) {
      changes.emplace_back(notes[k].begin, notes[k].velocity);
      changes.emplace_back(notes[k].end, -std::int64_t{notes[k].velocity});
    }
    std::sort(changes.begin(), changes.end());
    std::int64_t sum = 0;
    for (std::size_t k = 0; k + 1 < changes.size(); ++k) {
      sum += changes[k].second;
      if (sum > 0 && changes[k + 1].first > changes[k].first) {
        runs.push_back({changes[k].first, changes[k + 1].first, double(sum)});
      }
    }
  }
}

struct Window {
  std::uint32_t begin, end;
};

// From each pedal down to the next pedal up. The last one, if never lifted, counts for nothing.
std::vector<Window> windows_of(const std::vector<RollPart::Pedal>& pedals) {
  std::vector<Window> windows;
  bool down = false;
  std::uint32_t begin = 0;
  for (const RollPart::Pedal& pedal : pedals) {
    if (pedal.down && !down) begin = pedal.frame;
    if (!pedal.down && down && begin < pedal.frame) windows.push_back({begin, pedal.frame});
    down = pedal.down;
  }
  return windows;
}

bool has_bends(const RollPart& part) {
  return std::any_of(part.bends.begin(), part.bends.end(), [](const RollPart::Bend& bend) { return bend.value != 0; });
}

bool is_more_than_a_sum(const RollPart& part) { return has_bends(part) || !windows_of(part.pedals).empty(); }

// The running maximum inside each window, of runs [first, last) of one pitch; windows in order.
template <typename Run>
void hold(const Run* first, const Run* last, const Window* window, const Window* windows_end, std::vector<Run>& held) {
  const Run* run = first;
  std::uint32_t done = 0;  // what is before is in `held`
  const auto put = [&](std::uint32_t begin, std::uint32_t end, double value) {
    if (begin < end && value > 0) held.push_back({begin, end, value});
  };
  while (run != last) {
    while (window != windows_end && window->end <= std::max(run->begin, done)) ++window;
    const std::uint32_t until = window == windows_end ? std::numeric_limits<std::uint32_t>::max() : window->begin;
    if (run->end <= until) {
      put(std::max(run->begin, done), run->end, run->value);
      ++run;
      continue;
    }
    put(std::max(run->begin, done), until, run->value);
    double level = 0;
    std::uint32_t since = window->begin;
    for (; run != last && run->begin < window->end; ++run) {
      const std::uint32_t begin = std::max(run->begin, window->begin);
      if (run->value > level) {
        put(since, begin, level);
        level = run->value;
        since = begin;
      }
      if (run->end > window->end) break;  // the rest of it sounds on, behind the window
    }
    put(since, window->end, level);
    done = window->end;
    ++window;
  }
}

// How much of a note goes to `pitch`, which is `up` semitones above it, when it is bent by `semitones`: linear between
// the two pitches nearest to where it is bent to. At the end of the keyboard nothing is taken from a pitch for one that
// is not there.
double weight_at(int up, int pitch, double semitones) {
  if (semitones == 0) return up == 0 ? 1.0 : 0.0;
  const int direction = semitones > 0 ? 1 : -1, whole = static_cast<int>(std::abs(semitones));
  const double part = std::abs(semitones) - whole;
  if (up == direction * whole) return pitch == (direction > 0 ? 0 : 127) ? 1.0 : 1.0 - part;
  return up == direction * (whole + 1) ? part : 0.0;
}

}  // namespace

// ------------------------------------------------------------------------------------------------------- what it shows

Roll::Roll(const RollOptions& options, std::size_t num_tracks)
    : num_tracks_(options.per_track ? num_tracks : 1), per_track_(options.per_track), has_times_(options.has_times) {}

std::uint32_t Roll::row_of(std::int32_t track, std::uint8_t pitch) const {
  return static_cast<std::uint32_t>(per_track_ ? track : 0) * num_pitches + pitch;
}

// A counting sort.
Roll::Rows Roll::by_row(const Buffer<Note>& notes) const {
  Rows rows;
  rows.begins.assign(num_tracks_ * num_pitches + 2, 0);
  for (std::size_t i = 0; i < notes.size(); ++i) ++rows.begins[notes[i].row + 2];
  for (std::size_t row = 2; row < rows.begins.size(); ++row) rows.begins[row] += rows.begins[row - 1];
  Note* const sorted = rows.notes.extend(notes.size());
  for (std::size_t i = 0; i < notes.size(); ++i) sorted[rows.begins[notes[i].row + 1]++] = notes[i];
  return rows;
}

Roll Roll::in_steps(const SongView& song, const RollOptions& options, Poll poll) {
  if (song.division & 0x8000) {
    throw std::invalid_argument("steps_per_beat: expected a piece in ticks per quarter note, got SMPTE time (use fs)");
  }
  Roll roll(options, song.num_tracks);
  const StepClock clock(options.steps_per_beat, song.division);
  Note* drawn = roll.plain_.extend(song.num_notes);
  std::uint32_t width = 0;
  for (std::size_t i = 0; i < song.num_notes; ++i) {
    if (i % notes_per_poll == notes_per_poll - 1) poll();
    const midi::Note& note = song.notes[i];
    const std::int64_t last = note.start + note.duration;
    if (!clock.fits(last)) {
      roll.plain_.set_size(0);
      roll.width_ = clock.approximately(last);
      return roll;
    }
    const std::uint32_t begin = clock.step(note.start), end = std::max(clock.step(last), begin + 1);
    width = std::max(width, end);
    if (note.channel == drum_channel && !options.drums) continue;
    *drawn++ = {roll.row_of(note.track, note.pitch), begin, end, note.velocity};
  }
  roll.plain_.set_size(static_cast<std::size_t>(drawn - roll.plain_.data()));
  roll.width_ = width;
  return roll;
}

Roll Roll::of(const SongView& song, const Ensemble& ensemble, const RollOptions& options, Poll poll) {
  if (options.steps_per_beat > 0) {
    Buffer<midi::Note> notes;
    for (std::size_t i = 0; i < ensemble.notes.size(); ++i) {
      const Ensemble::Note& note = ensemble.notes[i];
      if (note.end < 0) continue;
      const Ensemble::Part& part = ensemble.parts[static_cast<std::size_t>(note.link)];
      notes.push({note.start, note.end - note.start, note.pitch, note.velocity, part.channel, 0, part.track});
    }
    SongView paired = song;
    paired.notes = notes.data();
    paired.num_notes = notes.size();
    return in_steps(paired, options, poll);
  }

  const TempoMap map(song, Seconds::pretty_midi);
  const double at_least = options.has_times ? options.times.back() : 0.0;
  std::vector<RollPart> parts(ensemble.parts.size());
  double width = 0.0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const Ensemble::Part& part = ensemble.parts[i];
    const Ensemble::Events& events = ensemble.events[part.events];
    TempoMap::Cursor clock(map, part.track);
    const double own = std::max(at_least, clock.seconds(std::max(part.last, events.last))) * options.fs;
    width = std::max(width, std::floor(own));
    if (!(own < max_width)) continue;
    parts[i].track = part.track;
    parts[i].width = static_cast<std::uint32_t>(own);
    if (options.pedal) {
      for (const Ensemble::Event& event : events.pedals) {
        parts[i].pedals.push_back(
            {frame_of(clock.seconds(event.time), options.fs), event.value >= options.pedal_threshold});
      }
    }
    for (const Ensemble::Event& event : events.bends) {
      parts[i].bends.push_back({frame_of(clock.seconds(event.time), options.fs), event.value});
    }
  }
  if (!(width < max_width)) {
    Roll roll(options, song.num_tracks);
    roll.width_ = width;
    return roll;
  }
  Buffer<PartNote> notes;
  PartNote* next = notes.extend(ensemble.notes.size());
  TempoMap::Cursor starts(map), ends(map);
  std::int32_t track = 0;
  for (std::size_t i = 0; i < ensemble.notes.size(); ++i) {
    if (i % notes_per_poll == notes_per_poll - 1) poll();
    const Ensemble::Note& note = ensemble.notes[i];
    if (note.end < 0) continue;
    const auto index = static_cast<std::size_t>(note.link);
    const Ensemble::Part& part = ensemble.parts[index];
    if (part.channel == drum_channel && !options.drums) continue;
    if (part.track != track) {
      track = part.track;
      starts = ends = TempoMap::Cursor(map, track);
    }
    *next++ = {static_cast<std::uint32_t>(index), frame_of(starts.seconds(note.start), options.fs),
               frame_of(ends.seconds(note.end), options.fs), note.velocity, note.pitch};
  }
  return in_frames(parts, notes.data(), static_cast<std::size_t>(next - notes.data()), song.num_tracks, options, poll);
}

Roll Roll::in_frames(const std::vector<RollPart>& parts, const PartNote* notes, std::size_t num_notes,
                     std::size_t num_tracks, const RollOptions& options, Poll poll) {
  Roll roll(options, num_tracks);
  if (options.has_times) {
    roll.width_ = parts.empty() ? 0.0 : static_cast<double>(options.times.size());
    for (const double time : options.times) {
      roll.bins_.push_back(static_cast<std::uint32_t>(std::nearbyint(std::min(time * options.fs, max_width))));
    }
  } else {
    for (const RollPart& part : parts) roll.width_ = std::max(roll.width_, static_cast<double>(part.width));
  }

  // Notes of parts that are no more than their sums are done; those of each voice are brought together.
  std::vector<std::size_t> counts(parts.size() + 1, 0);
  std::vector<char> is_voice(parts.size());
  for (std::size_t i = 0; i < parts.size(); ++i) is_voice[i] = options.has_times || is_more_than_a_sum(parts[i]);
  Buffer<PartNote> of_voices;
  roll.plain_.reserve(num_notes);
  for (std::size_t i = 0; i < num_notes; ++i) {
    if (i % notes_per_poll == notes_per_poll - 1) poll();
    const PartNote& note = notes[i];
    const Note placed = {roll.row_of(parts[note.part].track, note.pitch), note.begin, note.end, note.velocity};
    if (!is_voice[note.part]) {
      roll.plain_.push(placed);
      continue;
    }
    roll.marks_.push(placed);
    of_voices.push(note);
    ++counts[note.part + 1];
  }
  for (std::size_t i = 1; i < counts.size(); ++i) counts[i] += counts[i - 1];
  const std::vector<std::size_t> begins = counts;
  Buffer<PartNote> grouped;
  PartNote* const group = grouped.extend(of_voices.size());
  for (std::size_t i = 0; i < of_voices.size(); ++i) group[counts[of_voices[i].part]++] = of_voices[i];
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (begins[i + 1] == begins[i]) continue;
    poll();
    roll.add_voice(parts[i], group + begins[i], begins[i + 1] - begins[i]);
  }
  return roll;
}

void Roll::add_voice(const RollPart& part, const PartNote* notes, std::size_t num_notes) {
  std::array<std::size_t, num_pitches + 1> ends{};
  for (std::size_t i = 0; i < num_notes; ++i) ++ends[notes[i].pitch + std::size_t{1}];
  for (std::size_t pitch = 0; pitch < num_pitches; ++pitch) ends[pitch + 1] += ends[pitch];
  Buffer<PartNote> sorted;
  PartNote* const by_pitch = sorted.extend(num_notes);
  for (std::size_t i = 0; i < num_notes; ++i) by_pitch[ends[notes[i].pitch]++] = notes[i];

  const std::vector<Window> windows = windows_of(part.pedals);
  Voice voice{per_track_ ? part.track : 0, part.width, {}, {}};
  if (has_bends(part)) {
    voice.bends = part.bends;
    is_whole_ = false;
  }
  std::vector<Run> runs, held;
  std::size_t first = 0;
  for (std::size_t pitch = 0; pitch < num_pitches; first = ends[pitch++]) {
    if (first == ends[pitch]) continue;
    runs.clear();
    add_up(by_pitch + first, ends[pitch] - first, runs);
    // Windows out of order take effect one after the other, each on what those before it have left.
    for (auto window = windows.begin(); window != windows.end();) {
      auto stop = window + 1;
      while (stop != windows.end() && stop->begin >= (stop - 1)->end) ++stop;
      held.clear();
      hold(runs.data(), runs.data() + runs.size(), &*window, &*window + (stop - window), held);
      runs.swap(held);
      window = stop;
    }
    const std::size_t begin = runs_.size();
    runs_.append(runs.data(), runs.size());
    if (!runs.empty()) voice.stretches.push_back({static_cast<std::uint8_t>(pitch), begin, runs_.size()});
  }
  voices_.push_back(std::move(voice));
}

// ------------------------------------------------------------------------------------------------------------ drawing

// What sounds at `pitch`, where bends carry it from up to two semitones away.
template <typename Emit>
void Roll::for_each_run(const Voice& voice, int pitch, const Emit& emit) const {
  const int reach = voice.bends.empty() ? 0 : 2;
  auto at = std::lower_bound(voice.stretches.begin(), voice.stretches.end(), pitch - reach,
                             [](const Stretch& stretch, int p) { return stretch.pitch < p; });
  for (; at != voice.stretches.end() && at->pitch <= pitch + reach; ++at) {
    for (std::size_t i = at->begin; i < at->end; ++i) {
      const Run& run = runs_[i];
      if (reach == 0) {
        emit(run.begin, run.end, run.value);
        continue;
      }
      auto bend = std::upper_bound(voice.bends.begin(), voice.bends.end(), run.begin,
                                   [](std::uint32_t frame, const RollPart::Bend& b) { return frame < b.frame; });
      for (std::uint32_t begin = run.begin; begin < run.end; ++bend) {
        const std::uint32_t end = bend == voice.bends.end() ? run.end : std::min(run.end, bend->frame);
        const double semitones = bend == voice.bends.begin() ? 0.0 : (bend - 1)->value / bend_unit;
        const double weight = weight_at(pitch - at->pitch, pitch, semitones);
        if (weight > 0 && begin < end) emit(begin, end, weight * run.value);
        begin = std::max(begin, end);
      }
    }
  }
}

std::pair<const Roll::Voice*, const Roll::Voice*> Roll::voices_of(std::size_t row) const {
  const Voice* const first = voices_.data();
  const auto track = static_cast<std::int32_t>(row / num_pitches);
  const Voice* const end = first + voices_.size();
  const Voice* const begin =
      std::lower_bound(first, end, track, [](const Voice& v, std::int32_t t) { return v.track < t; });
  return {begin, std::upper_bound(begin, end, track, [](std::int32_t t, const Voice& v) { return t < v.track; })};
}

template <typename Canvas>
void Roll::draw_notes(const Note* notes, std::size_t count, Channel channel, const Canvas& canvas, Poll poll) const {
  if (channel == Channel::frame) {
    std::size_t since_poll = 0;
    for (const Note* note = notes; note != notes + count; ++note) {
      canvas.paint(note->row, note->begin, note->end, note->velocity);
      since_poll += note->end - note->begin + 8;
      if (since_poll > cells_per_poll) {
        poll();
        since_poll = 0;
      }
    }
    return;
  }
  const auto last = static_cast<std::uint32_t>(width_) - 1;
  for (const Note* note = notes; note != notes + count; ++note) {
    const std::uint32_t wanted = channel == Channel::onset ? note->begin : std::max(note->end, note->begin + 1) - 1;
    const std::uint32_t cell = std::min(wanted, last);
    canvas.paint(note->row, cell, cell + 1, note->velocity);
  }
}

template <typename Canvas>
void Roll::draw_voices(std::size_t row, const Canvas& canvas) const {
  const auto [first, end] = voices_of(row);
  for (const Voice* voice = first; voice != end; ++voice) {
    for_each_run(*voice, static_cast<int>(row % num_pitches),
                 [&](std::uint32_t begin, std::uint32_t stop, double value) { canvas.paint(row, begin, stop, value); });
  }
}

// A small picture is cleared and painted in the order of the notes: while it stays in the cache, sorting them would
// only cost. A large one is drawn row by row.
template <typename Canvas>
void Roll::draw_on(const Canvas& canvas, Channel channel, Poll poll) const {
  if (width_ == 0) return;
  const std::size_t rows = num_tracks_ * num_pitches;
  const bool row_by_row = rows * canvas.row_bytes() > cached_bytes;
  const bool marks = channel != Channel::frame;
  Rows plain, others;
  if (row_by_row) {
    plain = by_row(plain_);
    if (marks) others = by_row(marks_);
  } else {
    canvas.clear(0, rows);
    draw_notes(plain_.data(), plain_.size(), channel, canvas, poll);
    if (marks) draw_notes(marks_.data(), marks_.size(), channel, canvas, poll);
    if (marks || voices_.empty()) return;
  }
  const auto draw_row_of = [&](const Rows& sorted, std::size_t row) {
    draw_notes(sorted.notes.data() + sorted.begins[row], sorted.begins[row + 1] - sorted.begins[row], channel, canvas,
               poll);
  };
  std::size_t since_poll = 0;
  for (std::size_t row = 0; row < rows; ++row) {
    if (row_by_row) {
      canvas.clear(row, 1);
      draw_row_of(plain, row);
      if (marks) draw_row_of(others, row);
    }
    if (!marks) draw_voices(row, canvas);
    since_poll += canvas.row_bytes() + 64;
    if (since_poll > bytes_per_poll) {
      poll();
      since_poll = 0;
    }
  }
}

// The sum over voices of each one's mean over the frames of a column; the last column stays empty. `sums`: zeros, and
// zeros again afterwards.
void Roll::draw_means(std::size_t row, double* sums, double* out) const {
  const std::size_t count = bins_.size() - 1;
  const auto end_of = [&](std::size_t bin) { return std::max(bins_[bin + 1], bins_[bin] + 1); };
  const auto [first_voice, end_voice] = voices_of(row);
  for (const Voice* voice = first_voice; voice != end_voice; ++voice) {
    std::size_t low = count, high = 0;
    for_each_run(*voice, static_cast<int>(row % num_pitches),
                 [&](std::uint32_t begin, std::uint32_t end, double value) {
                   std::size_t bin = 0;
                   for (std::size_t left = count; left > 0;) {  // the first that ends behind `begin`
                     const std::size_t half = left / 2;
                     if (end_of(bin + half) <= begin) {
                       bin += half + 1;
                       left -= half + 1;
                     } else {
                       left = half;
                     }
                   }
                   low = std::min(low, bin);
                   for (; bin < count && bins_[bin] < end; ++bin) {
                     sums[bin] += value * (std::min(end, end_of(bin)) - std::max(begin, bins_[bin]));
                   }
                   high = std::max(high, bin);
                 });
    for (std::size_t bin = low; bin < high; ++bin) {
      if (sums[bin] == 0) continue;
      out[bin] += sums[bin] / (std::min(end_of(bin), voice->width) - bins_[bin]);
      sums[bin] = 0;
    }
  }
}

template <typename T>
void Roll::draw(Channel channel, bool binary, bool zeroed, T* out, Poll poll) const {
  const auto width = static_cast<std::size_t>(width_);
  const bool means = has_times_ && channel == Channel::frame;
  const bool fractions = !is_whole_ && !binary && channel == Channel::frame && !std::is_same_v<T, double>;
  if (!means && !fractions) {
    const Cells<T> cells{out, width, binary, zeroed};
    return draw_on(cells, channel, poll);
  }
  // Through exact sums of one row, rounded at the end.
  const Rows plain = by_row(plain_);
  std::vector<double> exact(width), sums(means ? width : 0);
  std::size_t since_poll = 0;
  for (std::size_t row = 0; row < num_tracks_ * num_pitches; ++row) {
    std::fill(exact.begin(), exact.end(), 0.0);
    if (means) {
      draw_means(row, sums.data(), exact.data());
    } else {
      const RowSums canvas{exact.data()};
      draw_notes(plain.notes.data() + plain.begins[row], plain.begins[row + 1] - plain.begins[row], channel, canvas,
                 poll);
      draw_voices(row, canvas);
    }
    T* const cells = out + row * width;
    for (std::size_t i = 0; i < width; ++i) cells[i] = binary ? T(exact[i] != 0) : rounded_down<T>(exact[i]);
    since_poll += width;
    if (since_poll > bytes_per_poll / sizeof(double)) {
      poll();
      since_poll = 0;
    }
  }
}

template void Roll::draw(Channel, bool, bool, double*, Poll) const;
template void Roll::draw(Channel, bool, bool, float*, Poll) const;
template void Roll::draw(Channel, bool, bool, std::uint8_t*, Poll) const;

void Roll::draw_bits(Channel channel, bool zeroed, std::uint8_t* out, Poll poll) const {
  const Bits bits{out, (static_cast<std::size_t>(width_) + 7) / 8, zeroed};
  draw_on(bits, channel, poll);
}

}  // namespace musicgen::midi
