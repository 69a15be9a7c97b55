#include "midi/voices.h"

#include <algorithm>
#include <limits>
#include <map>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "midi/smf.h"

namespace musicgen::midi {

namespace {

constexpr std::uint8_t meta = 0xFF, drum_channel = 9;
constexpr std::uint8_t track_name = 0x03, marker = 0x06, tempo = 0x51, time_signature = 0x58, key_signature = 0x59;
constexpr std::string_view fermata_marker = "fermata";
constexpr int no_flag = 0, fermata_flag = 1, end_flag = 2, num_flags = 3;
constexpr std::size_t chords_per_poll = 1 << 10;

// ------------------------------------------------------------------------------------------------- voices in a song

// Text is bytes: only ASCII has cases and spaces here.
std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words(1);
  for (const char c : text) {
    if (c == ' ' || (c >= '\t' && c <= '\r')) {
      if (!words.back().empty()) words.emplace_back();
    } else {
      words.back() += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    }
  }
  if (words.back().empty()) words.pop_back();
  return words;
}

struct StepNote {
  std::int64_t start, end;  // sixteenths
  std::int64_t tick;
  std::int64_t off;  // how far the start was moved, times the ticks of a quarter
  int pitch, part;   // part: track and channel
  bool stretched;
};

using Part = std::vector<StepNote>;

class Finder {
 public:
  Finder(const SongView& song, const std::vector<Voice>& voices, Poll poll)
      : song_(song),
        voices_(voices),
        num_voices_(voices.size()),
        ticks_(ticks_per_quarter(song.division)),
        poll_(poll) {}

  FoundVoices find(bool melody) {
    if (read_notes()) {
      read_texts();
      std::vector<Part> chosen = melody ? highest() : all();
      if (found_.problem.empty()) fill(chosen);
    }
    return std::move(found_);
  }

 private:
  // For SMPTE time, which has no quarters: the ticks of half a second, rounded to even.
  static std::int64_t ticks_per_quarter(std::uint16_t division) {
    if (!(division & 0x8000)) return std::max<std::int64_t>(division, 1);
    const std::int64_t fps = 256 - (division >> 8), ticks = division & 0xFF;
    const std::int64_t above = (fps == 29 ? 30'000 : fps) * ticks, below = 2 * (fps == 29 ? 1001 : 1);
    const std::int64_t whole = above / below, twice_left = 2 * (above % below);
    return std::max<std::int64_t>(whole + (twice_left > below || (twice_left == below && whole % 2 == 1)), 1);
  }

  // To the nearest, halves up.
  std::int64_t step_of(std::int64_t tick) const {
    return steps_per_quarter * (tick / ticks_) + (2 * steps_per_quarter * (tick % ticks_) + ticks_) / (2 * ticks_);
  }

  bool fail(std::string problem, std::int64_t tick = -1) {
    found_.problem = std::move(problem);
    found_.problem_tick = tick;
    return false;
  }

  void say(std::string issue) { found_.issues.push_back(std::move(issue)); }

  // The notes by part, each in time order, from high to low where together; what another one doubles is left out.
  bool read_notes() {
    Part notes;
    const std::int64_t last_tick = std::numeric_limits<std::int64_t>::max() / (4 * steps_per_quarter);
    for (std::size_t i = 0; i < song_.num_notes; ++i) {
      const Note& note = song_.notes[i];
      if (note.channel == drum_channel) continue;
      const std::int64_t end_tick = note.start + note.duration;
      if (end_tick > last_tick) return fail("expected notes before tick " + std::to_string(last_tick), note.start);
      const std::int64_t start = step_of(note.start), end = step_of(end_tick);
      const std::int64_t part_start = start - steps_per_quarter * (note.start / ticks_);
      const std::int64_t off = part_start * ticks_ - steps_per_quarter * (note.start % ticks_);
      notes.push_back({start, std::max(end, start + 1), note.start, off < 0 ? -off : off, note.pitch,
                       note.track * 16 + note.channel, end <= start});
    }
    if (notes.empty()) return fail("expected notes of " + count_of_voices() + ", got none");
    std::stable_sort(notes.begin(), notes.end(), [](const StepNote& a, const StepNote& b) {
      if (a.part != b.part) return a.part < b.part;
      if (a.start != b.start) return a.start < b.start;
      if (a.pitch != b.pitch) return a.pitch > b.pitch;
      return a.end > b.end;
    });
    std::size_t doubled = 0;
    const StepNote* before = nullptr;
    for (const StepNote& note : notes) {
      if (before != nullptr && before->part == note.part && before->start == note.start &&
          before->pitch == note.pitch) {
        ++doubled;
        continue;
      }
      if (before == nullptr || before->part != note.part) parts_.emplace_back();
      parts_.back().push_back(note);
      before = &note;
    }
    if (doubled > 0) say(std::to_string(doubled) + " notes that another one doubles were left out");
    return true;
  }

  std::string count_of_voices() const {
    static const char* const names[] = {"one voice",   "two voices", "three voices", "four voices",
                                        "five voices", "six voices", "seven voices", "eight voices"};
    return names[num_voices_ - 1];
  }

  void read_texts() {
    const std::uint8_t* payload = song_.payload;
    std::int64_t begin = 0;
    std::size_t next = 0;
    for (std::size_t i = 0; i < song_.num_events; ++i) {
      const Event& event = song_.events[i];
      if (event.status < 0xF0) continue;
      const std::int64_t end = song_.payload_ends[next++];
      if (event.status == meta && (event.data1 == track_name || event.data1 == marker)) {
        const std::string_view text(reinterpret_cast<const char*>(payload) + begin,
                                    static_cast<std::size_t>(end - begin));
        if (event.data1 == track_name) {
          track_names_.emplace(event.track, text);
        } else if (const auto words = words_of(text); words.size() == 1 && words[0] == fermata_marker) {
          fermatas_.push_back(event.time);
        }
      }
      begin = end;
    }
  }

  // The part of every voice, where a track's name says which voice it is and no other part says the same.
  std::vector<const Part*> named() const {
    std::vector<const Part*> found(num_voices_, nullptr);
    std::vector<int> count(num_voices_, 0);
    for (const Part& part : parts_) {
      const auto name = track_names_.find(part[0].part / 16);
      if (name == track_names_.end()) continue;
      const std::vector<std::string> words = words_of(name->second);
      std::size_t best = 0, voice = 0;
      for (std::size_t v = 0; v < num_voices_; ++v) {
        for (const std::string& alias : voices_[v].aliases) {
          const std::vector<std::string> wanted = words_of(alias);
          if (wanted.size() > best && wanted.size() <= words.size() &&
              std::equal(wanted.begin(), wanted.end(), words.begin())) {
            best = wanted.size();
            voice = v;
          }
        }
      }
      if (best > 0 && count[voice]++ == 0) found[voice] = &part;
    }
    for (std::size_t v = 0; v < num_voices_; ++v) {
      if (count[v] != 1) found[v] = nullptr;
    }
    return found;
  }

  // Whether `part` plays one note at a time; what overlaps by no more than a sixteenth is cut, and counted.
  static bool make_melody(Part& part, std::size_t& cuts) {
    for (std::size_t i = 1; i < part.size(); ++i) {
      if (part[i].start == part[i - 1].start || part[i - 1].end - part[i].start > 1) return false;
    }
    for (std::size_t i = 1; i < part.size(); ++i) {
      if (part[i - 1].end > part[i].start) {
        part[i - 1].end = part[i].start;
        ++cuts;
      }
    }
    return true;
  }

  void say_cuts(std::size_t cuts) {
    if (cuts > 0) say(std::to_string(cuts) + " notes were cut where the next one of their voice begins");
  }

  static double mean_pitch(const Part& part) {
    double sum = 0, length = 0;
    for (const StepNote& note : part) {
      sum += static_cast<double>(note.pitch) * static_cast<double>(note.end - note.start);
      length += static_cast<double>(note.end - note.start);
    }
    return sum / length;
  }

  std::vector<Part> all() {
    const std::vector<const Part*> by_name = named();
    const bool all_named = std::find(by_name.begin(), by_name.end(), nullptr) == by_name.end();
    std::vector<Part> chosen;
    if (all_named) {
      for (const Part* part : by_name) chosen.push_back(*part);
    } else if (parts_.size() == num_voices_) {
      chosen = parts_;
    }
    std::size_t cuts = 0;
    for (Part& part : chosen) {
      if (!make_melody(part, cuts)) return shared();
    }
    if (chosen.empty()) return shared();
    if (all_named) {
      if (const std::size_t others = parts_.size() - num_voices_; others > 0) {
        say(std::to_string(others) + " of " + std::to_string(parts_.size()) +
            " parts were left out: they are not voices by name");
      }
    } else {
      std::stable_sort(chosen.begin(), chosen.end(),
                       [](const Part& a, const Part& b) { return mean_pitch(a) > mean_pitch(b); });
    }
    say_cuts(cuts);
    return chosen;
  }

  std::vector<Part> highest() {
    const Part* part = named()[0];
    if (part == nullptr) {
      part = &*std::max_element(parts_.begin(), parts_.end(),
                                [](const Part& a, const Part& b) { return mean_pitch(a) < mean_pitch(b); });
    }
    Part melody = *part;
    std::size_t cuts = 0;
    if (make_melody(melody, cuts)) {
      say_cuts(cuts);
      return {melody};
    }
    for (Part& voice : shared()) {
      if (!voice.empty()) return {std::move(voice)};
    }
    return {};
  }

  // All notes, shared out among the voices.
  std::vector<Part> shared() {
    Part notes;
    for (const Part& part : parts_) notes.insert(notes.end(), part.begin(), part.end());
    std::stable_sort(notes.begin(), notes.end(), [](const StepNote& a, const StepNote& b) {
      return a.start != b.start ? a.start < b.start : a.pitch > b.pitch;
    });
    std::vector<Part> given(num_voices_);
    State state[max_voices];
    for (std::size_t v = 0; v < num_voices_; ++v) state[v].last_twice = voices_[v].low + voices_[v].high;
    std::size_t chords = 0;
    for (std::size_t at = 0, upto = 0; at < notes.size(); at = upto) {
      if (++chords % chords_per_poll == 0) poll_();
      while (upto < notes.size() && notes[upto].start == notes[at].start) ++upto;
      const std::size_t count = upto - at, free = share_chord(&notes[at], count, state, given);
      if (count > free) {
        fail("expected at most " + std::to_string(num_voices_) + " notes at once, got " +
                 std::to_string(count + num_voices_ - free),
             notes[at].tick);
        return {};
      }
    }
    return given;
  }

  struct State {
    std::int64_t busy_until = 0;
    int sounding = 0;
    int last_twice = 0;  // twice the pitch it sang last, or where it waits for its first note
  };

  // Gives `count` notes of one time, from high to low, to voices that are free; their number is returned, and if it is
  // too small nothing is given.
  std::size_t share_chord(const StepNote* notes, std::size_t count, State* state, std::vector<Part>& given) const {
    const std::int64_t now = notes[0].start;
    unsigned free = 0;
    std::size_t num_free = 0;
    for (std::size_t v = 0; v < num_voices_; ++v) {
      if (state[v].busy_until <= now) {
        free |= 1u << v;
        ++num_free;
      }
    }
    if (count > num_free) return num_free;

    // Twice the cost of giving a note to a voice. A crossing costs more than any leap: with a note for every voice, the
    // order of pitch decides.
    constexpr int semitone = 2, out_of_range = 24, coming_in = 10, crossing = 2000;
    int cost[max_voices][max_voices];
    for (std::size_t i = 0; i < count; ++i) {
      const int pitch = notes[i].pitch;
      for (std::size_t v = 0; v < num_voices_; ++v) {
        if (!(free >> v & 1)) continue;
        const int leap = semitone * pitch - state[v].last_twice;
        cost[i][v] = (leap < 0 ? -leap : leap) +
                     out_of_range * std::max({0, voices_[v].low - pitch, pitch - voices_[v].high}) +
                     (state[v].busy_until != now ? coming_in : 0);  // rather a voice that goes on
        for (std::size_t w = 0; w < num_voices_; ++w) {
          if (free >> w & 1) continue;
          const int held = state[w].sounding;
          if ((held > pitch && w > v) || (held < pitch && w < v)) cost[i][v] += crossing;
        }
      }
    }
    // least[S]: the least cost of the notes after the first |S|, which the voices in S have. Among notes of one pitch,
    // the order of voices is free; taking the rising one lets S alone tell the crossings.
    int least[1 << max_voices];
    const auto added = [&](std::size_t i, std::size_t v, unsigned taken) {
      return cost[i][v] + crossing * popcount(taken >> (v + 1)) + least[taken | 1u << v];
    };
    for (int set = (1 << num_voices_) - 1; set >= 0; --set) {
      const auto taken = static_cast<unsigned>(set);
      const auto i = static_cast<std::size_t>(popcount(taken));
      if ((taken & ~free) != 0 || i > count) continue;
      least[taken] = i == count ? 0 : std::numeric_limits<int>::max();
      for (std::size_t v = 0; i < count && v < num_voices_; ++v) {
        if ((free & ~taken) >> v & 1) least[taken] = std::min(least[taken], added(i, v, taken));
      }
    }
    unsigned taken = 0;
    for (std::size_t i = 0; i < count; ++i) {
      std::size_t v = 0;
      while (!((free & ~taken) >> v & 1) || added(i, v, taken) != least[taken]) ++v;
      taken |= 1u << v;
      given[v].push_back(notes[i]);
      state[v] = {notes[i].end, notes[i].pitch, 2 * notes[i].pitch};
    }
    return num_free;
  }

  static int popcount(unsigned set) {
    int count = 0;
    for (; set != 0; set &= set - 1) ++count;
    return count;
  }

  // The grid of the voices' notes, from the first onset to the last end.
  void fill(const std::vector<Part>& voices) {
    std::size_t used = 0, moved = 0, stretched = 0;
    std::int64_t begin = std::numeric_limits<std::int64_t>::max(), end = 0, furthest = 0;
    for (const Part& voice : voices) {
      for (const StepNote& note : voice) {
        ++used;
        moved += note.off > 0;
        stretched += note.stretched;
        furthest = std::max(furthest, note.off);
        begin = std::min(begin, note.start);
        end = std::max(end, note.end);
      }
    }
    if (moved > 0) {
      say(std::to_string(moved) + " of " + std::to_string(used) +
          " notes do not begin on a sixteenth and were moved there, by at most 0." +
          std::to_string(100 + (200 * furthest + ticks_) / (2 * ticks_)).substr(1) + " of one");
    }
    if (stretched > 0) {
      say(std::to_string(stretched) + " of " + std::to_string(used) +
          " notes are shorter than a sixteenth and were made one long");
    }
    if (end - begin > max_steps) {
      fail("expected at most " + std::to_string(max_steps) + " sixteenths, got " + std::to_string(end - begin));
      return;
    }
    const auto frames = static_cast<std::size_t>(end - begin), width = voices.size();
    Grid& grid = found_.grid;
    grid.width = static_cast<int>(width);
    std::fill_n(grid.pitch.extend(frames * width), frames * width, rest);
    std::fill_n(grid.onset.extend(frames * width), frames * width, std::uint8_t{0});
    std::fill_n(grid.fermata.extend(frames), frames, std::uint8_t{0});
    for (std::size_t v = 0; v < width; ++v) {
      for (const StepNote& note : voices[v]) {
        const auto first = static_cast<std::size_t>(note.start - begin),
                   last = static_cast<std::size_t>(note.end - begin);
        for (std::size_t frame = first; frame < last; ++frame) grid.pitch[frame * width + v] = note.pitch;
        grid.onset[first * width + v] = 1;
      }
    }
    for (const std::int64_t time : fermatas_) {
      const std::int64_t frame = step_of(time) - begin;
      if (frame >= 0 && frame < end - begin) grid.fermata[static_cast<std::size_t>(frame)] = 1;
    }
    found_.first_step = begin;
  }

  const SongView& song_;
  const std::vector<Voice>& voices_;
  const std::size_t num_voices_;
  const std::int64_t ticks_;
  const Poll poll_;
  std::vector<Part> parts_;
  std::map<std::int32_t, std::string_view> track_names_;  // the first of every track
  std::vector<std::int64_t> fermatas_;
  FoundVoices found_;
};

}  // namespace

FoundVoices find_voices(const SongView& song, const std::vector<Voice>& voices, bool melody, Poll poll) {
  return Finder(song, voices, poll).find(melody);
}

// ----------------------------------------------------------------------------------------------------------- tokens

VoiceGrid::VoiceGrid(std::vector<Voice> voices, bool hold, int lowest_pitch, int num_pitches,
                     int microseconds_per_quarter, int program)
    : voices_(std::move(voices)),
      hold_(hold),
      lowest_pitch_(lowest_pitch),
      num_pitches_(num_pitches),
      microseconds_per_quarter_(microseconds_per_quarter),
      program_(program) {
  if (voices_.empty() || voices_.size() > max_voices) {
    throw std::invalid_argument("voices: expected 1 to " + std::to_string(max_voices) + ", got " +
                                std::to_string(voices_.size()));
  }
  if (lowest_pitch < 0 || num_pitches < 1 || num_pitches > 128 - lowest_pitch) {
    throw std::invalid_argument("num_pitches: expected pitches from 0 to 127, got " + std::to_string(num_pitches) +
                                " from " + std::to_string(lowest_pitch));
  }
  if (program < 0 || program > 127) {
    throw std::invalid_argument("program: expected 0 to 127, got " + std::to_string(program));
  }
  // The outer voices are drawn first, then what fits between them.
  order_.push_back(0);
  if (num_voices() > 1) order_.push_back(num_voices() - 1);
  for (int voice = 1; voice < num_voices() - 1; ++voice) order_.push_back(voice);
}

std::string VoiceGrid::name_of_slot(int slot) const {
  return slot < hold_ ? "flag" : voices_[static_cast<std::size_t>(order_[static_cast<std::size_t>(slot - hold_)])].name;
}

Encoded VoiceGrid::encode(const SongView& song, Poll poll) const {
  FoundVoices found = find_voices(song, voices_, false, poll);
  if (!found.problem.empty()) {
    const std::string where = found.problem_tick < 0 ? "" : "tick " + std::to_string(found.problem_tick) + ": ";
    throw std::invalid_argument(where + found.problem);
  }
  const Grid& grid = found.grid;
  return {tokens_of(grid.pitch.data(), grid.onset.data(), grid.fermata.data(), grid.frames(), true),
          std::move(found.issues)};
}

Buffer<std::int32_t> VoiceGrid::tokens_of(const std::int32_t* pitch, const std::uint8_t* onset,
                                          const std::uint8_t* fermata, std::size_t frames, bool end) const {
  const std::size_t count = voices_.size(), slots = static_cast<std::size_t>(width());
  const auto first_voice = static_cast<std::size_t>(hold_);
  const int highest = lowest_pitch_ + num_pitches_ - 1, first_pitch = 1 + hold_;
  Buffer<std::int32_t> tokens;
  std::int32_t* out = tokens.extend((frames + (hold_ && end)) * slots);
  for (std::size_t frame = 0; frame < frames; ++frame, out += slots) {
    const std::int32_t* now = pitch + frame * count;
    if (hold_) out[0] = fermata != nullptr && fermata[frame] ? fermata_flag : no_flag;
    for (std::size_t v = 0; v < count; ++v) {
      if (now[v] != rest && (now[v] < lowest_pitch_ || now[v] > highest)) {
        throw std::invalid_argument("pitch: expected " + std::to_string(lowest_pitch_) + " to " +
                                    std::to_string(highest) + " or -1 (rest), got " + std::to_string(now[v]) + " (" +
                                    voices_[v].name + ", frame " + std::to_string(frame) + ")");
      }
    }
    for (std::size_t slot = 0; slot < count; ++slot) {
      const auto v = static_cast<std::size_t>(order_[slot]);
      const bool sounds = now[v] != rest;
      const bool begins =
          frame == 0 || now[v] != (now - count)[v] || (sounds && onset != nullptr && onset[frame * count + v]);
      const int token = sounds ? now[v] - lowest_pitch_ + first_pitch : hold_;
      out[first_voice + slot] = begins || !hold_ ? token : 0;
    }
  }
  if (hold_ && end) {
    std::fill_n(out, slots, 0);
    out[0] = end_flag;
  }
  return tokens;
}

void VoiceGrid::check_tokens(const std::int32_t* tokens, std::size_t rows) const {
  const std::size_t slots = static_cast<std::size_t>(width());
  for (std::size_t frame = 0; frame < rows; ++frame) {
    for (std::size_t slot = 0; slot < slots; ++slot) {
      const int size = hold_ && slot == 0 ? num_flags : 1 + hold_ + num_pitches_, token = tokens[frame * slots + slot];
      if (token < 0 || token >= size) {
        throw std::invalid_argument("tokens: expected 0 to " + std::to_string(size - 1) + " for the " +
                                    name_of_slot(static_cast<int>(slot)) + ", got " + std::to_string(token) +
                                    " (frame " + std::to_string(frame) + ")");
      }
    }
  }
}

Grid VoiceGrid::grid_of(const std::int32_t* tokens, std::size_t rows) const {
  check_tokens(tokens, rows);
  const std::size_t count = voices_.size(), slots = static_cast<std::size_t>(width());
  const int first_pitch = 1 + hold_;
  std::size_t frames = 0;
  while (frames < rows && !(hold_ && tokens[frames * slots] == end_flag)) ++frames;
  Grid grid;
  grid.width = static_cast<int>(count);
  grid.ended = !hold_ || frames < rows;
  std::int32_t* pitch = grid.pitch.extend(frames * count);
  std::uint8_t* onset = grid.onset.extend(frames * count);
  std::uint8_t* fermata = grid.fermata.extend(frames);
  for (std::size_t frame = 0; frame < frames; ++frame) {
    const std::int32_t* row = tokens + frame * slots;
    fermata[frame] = hold_ && row[0] == fermata_flag;
    for (std::size_t slot = 0; slot < count; ++slot) {
      const auto v = static_cast<std::size_t>(order_[slot]);
      const std::size_t at = frame * count + v;
      const int token = row[static_cast<std::size_t>(hold_) + slot];
      const int before = frame == 0 ? rest : pitch[at - count];
      if (hold_ && token == 0) {  // a hold, of nothing if it comes first
        pitch[at] = before;
        onset[at] = 0;
      } else {
        pitch[at] = token == hold_ ? rest : token - first_pitch + lowest_pitch_;
        onset[at] = pitch[at] != rest && (hold_ || pitch[at] != before);
      }
    }
  }
  return grid;
}

// ----------------------------------------------------------------------------------------------------------- decoding

namespace {

constexpr int ticks_per_quarter = 480;
constexpr std::int64_t ticks_per_step = ticks_per_quarter / steps_per_quarter;

// The melody in front, the ground under it.
std::uint8_t velocity_of(std::size_t voice, std::size_t count) {
  if (voice == 0) return 88;
  return voice + 1 == count ? 82 : 76;
}

// Events in the order of their addition, then by track and time.
class EventTable {
 public:
  void add_meta(std::int64_t time, std::int32_t track, std::uint8_t type, std::string payload) {
    rows_.push_back({{time, track, meta, type, 0, 1}, std::move(payload)});
  }

  void add_program(std::int32_t track, int channel, std::uint8_t program) {
    rows_.push_back({{0, track, static_cast<std::uint8_t>(0xC0 | channel), program, 0, 1}, {}});
  }

  void add_time_signature(std::int64_t time, int numerator, int denominator) {
    int power = 0;
    while (1 << power < denominator && power < 7) ++power;
    if (numerator < 1 || numerator > 255 || 1 << power != denominator) {
      throw std::invalid_argument("meter: expected 1 to 255 over a power of two up to 128, got " +
                                  std::to_string(numerator) + "/" + std::to_string(denominator));
    }
    add_meta(time, 0, time_signature, {static_cast<char>(numerator), static_cast<char>(power), 24, 8});
  }

  void write(Song& song) {
    std::stable_sort(rows_.begin(), rows_.end(), [](const Row& a, const Row& b) {
      return a.event.track != b.event.track ? a.event.track < b.event.track : a.event.time < b.event.time;
    });
    for (const Row& row : rows_) {
      song.events.push(row.event);
      if (row.event.status < 0xF0) continue;
      song.payload.append(reinterpret_cast<const std::uint8_t*>(row.payload.data()), row.payload.size());
      song.payload_ends.push(static_cast<std::int64_t>(song.payload.size()));
    }
  }

 private:
  struct Row {
    Event event;
    std::string payload;
  };
  std::vector<Row> rows_;
};

std::string capitalized(std::string name) {
  if (!name.empty() && name[0] >= 'a' && name[0] <= 'z') name[0] = static_cast<char>(name[0] - 'a' + 'A');
  return name;
}

}  // namespace

Song VoiceGrid::decode(const std::int32_t* tokens, std::size_t rows, Poll) const {
  Notation notation;
  notation.microseconds_per_quarter = microseconds_per_quarter_;
  return decode(tokens, rows, notation);
}

Song VoiceGrid::decode(const std::int32_t* tokens, std::size_t rows, const Notation& notation) const {
  const Grid grid = grid_of(tokens, rows);
  const std::size_t count = voices_.size(), frames = grid.frames();
  Song song;
  song.division = ticks_per_quarter;
  for (std::size_t v = 0; v < count; ++v) {
    for (std::size_t frame = 0; frame < frames; ++frame) {
      if (!grid.onset[frame * count + v]) continue;
      std::size_t end = frame + 1;
      while (end < frames && !grid.onset[end * count + v] && grid.pitch[end * count + v] != rest) ++end;
      const int pitch = grid.pitch[frame * count + v] + notation.transpose;
      if (pitch < 0 || pitch > 127) {
        throw std::invalid_argument("notes[" + std::to_string(song.notes.size()) + "].pitch: expected 0 to 127, got " +
                                    std::to_string(pitch));
      }
      song.notes.push({static_cast<std::int64_t>(frame) * ticks_per_step,
                       static_cast<std::int64_t>(end - frame) * ticks_per_step, static_cast<std::uint8_t>(pitch),
                       velocity_of(v, count), static_cast<std::uint8_t>(v), 64, static_cast<std::int32_t>(v)});
      frame = end - 1;
    }
  }

  EventTable events;
  for (std::size_t v = 0; v < count; ++v) {
    const auto track = static_cast<std::int32_t>(v);
    events.add_meta(0, track, track_name, capitalized(voices_[v].name));
    events.add_program(track, static_cast<int>(v), static_cast<std::uint8_t>(program_));
    song.track_ends.push(0);
  }
  const int us = notation.microseconds_per_quarter;
  if (us < 1 || us >= 1 << 24) {
    throw std::invalid_argument("tempo: expected 1 to 16777215 microseconds a quarter, got " + std::to_string(us));
  }
  events.add_meta(0, 0, tempo, {static_cast<char>(us >> 16), static_cast<char>(us >> 8), static_cast<char>(us)});
  int upbeat = notation.pickup, unit = 16;  // a pickup is a first bar of its own length
  for (; upbeat > 0 && upbeat % 2 == 0 && unit > 4; upbeat /= 2) unit /= 2;
  const bool has_pickup = 0 < upbeat && upbeat <= 255;  // a time signature cannot say more
  if (has_pickup) events.add_time_signature(0, upbeat, unit);
  events.add_time_signature(has_pickup ? notation.pickup * ticks_per_step : 0, notation.numerator,
                            notation.denominator);
  if (notation.key) {
    const auto [sharps, minor] = *notation.key;
    events.add_meta(0, 0, key_signature, {static_cast<char>(sharps), static_cast<char>(minor)});
  }
  for (std::size_t frame = 0; frame < frames; ++frame) {
    if (grid.fermata[frame]) {
      events.add_meta(static_cast<std::int64_t>(frame) * ticks_per_step, 0, marker, std::string(fermata_marker));
    }
  }
  events.write(song);
  return song;
}

}  // namespace musicgen::midi
