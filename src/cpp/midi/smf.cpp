#include "midi/smf.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <numeric>

#include "base/error.h"

namespace musicgen::midi {

namespace {

constexpr int num_keys = 16 * 128;                     // channel and pitch
constexpr std::uint8_t default_release_velocity = 64;  // of a note-on with velocity 0, by the specification
constexpr std::array<std::uint8_t, 4> pairing_hint = {0x7D, 'm', 'g', 'p'};
constexpr int max_hint = 127;
constexpr std::int64_t no_note = -1;
constexpr std::int64_t several = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t block_bytes = 8192;                     // between looks at how much room for notes is left
constexpr std::int64_t poll_bytes = 1 << 20;                   // some milliseconds
constexpr std::int64_t max_file_size = std::int64_t{1} << 35;  // keeps every sum of deltas below 2^63

namespace meta {
constexpr std::uint8_t end_of_track = 0x2F, tempo = 0x51, time_signature = 0x58, key_signature = 0x59, sequencer = 0x7F;
}

std::uint32_t big_endian(const std::uint8_t* p) {
  return std::uint32_t{p[0]} << 24 | std::uint32_t{p[1]} << 16 | std::uint32_t{p[2]} << 8 | p[3];
}

std::uint32_t little_endian(const std::uint8_t* p) {
  return std::uint32_t{p[3]} << 24 | std::uint32_t{p[2]} << 16 | std::uint32_t{p[1]} << 8 | p[0];
}

std::uint64_t little_endian_64(const std::uint8_t* p) {
  return little_endian(p) | std::uint64_t{little_endian(p + 4)} << 32;
}

std::array<char, 4> id_of(const std::uint8_t* p) {
  return {static_cast<char>(p[0]), static_cast<char>(p[1]), static_cast<char>(p[2]), static_cast<char>(p[3])};
}

bool is(const std::uint8_t* p, const char* id) { return std::memcmp(p, id, 4) == 0; }

bool is_printable(const std::uint8_t* p) {
  return std::all_of(p, p + 4, [](std::uint8_t c) { return c >= 0x20 && c <= 0x7E; });
}

// Of channel events: all but program changes and channel pressure.
bool has_two_data_bytes(std::uint32_t status) { return status >= 0x80 && status < 0xF0 && (status & 0xE0) != 0xC0; }

std::string hex(std::int64_t byte) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%02llX", static_cast<unsigned long long>(byte));
  return text;
}

std::string first_bytes(const std::uint8_t* data, std::size_t size) {
  std::string text = "'";
  for (std::size_t i = 0; i < std::min<std::size_t>(size, 8); ++i) {
    const bool plain = data[i] >= 0x20 && data[i] <= 0x7E && data[i] != '\\' && data[i] != '\'';
    char escaped[8];
    std::snprintf(escaped, sizeof escaped, plain ? "%c" : "\\x%02x", data[i]);
    text += escaped;
  }
  return text + "'";
}

std::string place_of(std::int64_t offset, std::int32_t track) {
  return ", at byte " + std::to_string(offset) + (track >= 0 ? ", track " + std::to_string(track) : "");
}

[[noreturn]] void fail(const std::string& message, std::int64_t offset, std::int32_t track = -1) {
  throw MidiError(message + place_of(offset, track), offset, track);
}

class Parser {
 public:
  Parser(const std::uint8_t* data, std::size_t size, bool strict, Poll poll, Listener* listener)
      : data_(data), size_(size), strict_(strict), poll_(poll), listener_(listener) {
    heads_.fill(no_note);
    starts_.fill(0);
  }

  Song parse() {
    unwrap_riff();
    const int declared = read_header();
    song_.notes.reserve(std::min((size_ - at_) / bytes_per_note, most_notes_at_first));
    while (at_ < size_) read_chunk();
    if (track_ != declared) deviation({Deviation::track_count, -1, header_ + 10, track_, declared});
    if (song_.format == 0 && track_ != 1) {
      deviation({Deviation::format_0_tracks, -1, header_ + 8, track_, 1});
      song_.format = 1;
    }
    return std::move(song_);
  }

 private:
  void deviation(const Issue& issue) {
    if (strict_) throw MidiError(message_of(issue), issue.offset, issue.track);
    if (song_.issues.size() < max_issues) {
      song_.issues.push_back(issue);
    } else {
      ++song_.unlisted_issues;
    }
  }

  std::int64_t offset_of(const std::uint8_t* p) const { return p - data_; }

  // A RIFF file of form RMID holds the MIDI file in its chunk "data"; lengths are little-endian and padded to even.
  void unwrap_riff() {
    if (size_ < 20 || !is(data_, "RIFF") || !is(data_ + 8, "RMID")) return;
    const std::size_t form = little_endian(data_ + 4);
    if (form + (form & 1) != size_ - 8 && form != size_ - 8) {
      deviation({Deviation::riff_length, -1, 4, to_signed(size_ - 8), to_signed(form)});
    }
    std::size_t at = 12;
    bool found = false;
    std::size_t begin = 0, end = 0;
    while (size_ - at >= 8) {
      const std::uint8_t* const p = data_ + at;
      const std::size_t claimed = little_endian(p + 4), left = size_ - at - 8;
      const std::size_t length = std::min(claimed, left);
      if (claimed > left) {
        deviation({Deviation::chunk_truncated, -1, to_signed(at), to_signed(left), to_signed(claimed)});
      }
      if (!found && is(p, "data")) {
        found = true;
        begin = at + 8, end = begin + length;
      } else {
        song_.chunks.push({found ? Chunk::after_data : Chunk::before_data, id_of(p), p + 8, length});
      }
      at += 8 + std::min(length + (length & 1), left);
    }
    if (at != size_) deviation({Deviation::not_a_chunk, -1, to_signed(at), to_signed(size_ - at), 0});
    if (!found) fail("expected a chunk 'data' with the MIDI file in the RIFF wrapper, got none", 12);
    at_ = begin;
    size_ = end;
  }

  void poll_at(const std::uint8_t* p) {
    if (offset_of(p) - polled_ < poll_bytes) return;
    poll_();
    polled_ = offset_of(p);
  }

  static constexpr std::size_t bytes_per_note = 7;  // of most files: two events
  static constexpr std::size_t most_notes_at_first = (std::size_t{4} << 20) / sizeof(Note);

  static std::int64_t to_signed(std::size_t value) { return static_cast<std::int64_t>(value); }

  int read_header() {
    const std::uint8_t* p = data_ + at_;
    const std::size_t left = size_ - at_;
    if (left < 14) {
      fail("too short for a MIDI header: expected at least 14 bytes, got " + std::to_string(left) +
               (left == 0 ? "" : " (" + first_bytes(p, left) + ")"),
           to_signed(at_));
    }
    if (!is(p, "MThd")) fail("expected a MIDI file (first bytes 'MThd'), got " + first_bytes(p, left), to_signed(at_));
    const std::size_t length = big_endian(p + 4);
    if (length < 6 || length > left - 8) {
      fail("expected a MIDI header of 6 to " + std::to_string(left - 8) + " bytes, got a length of " +
               std::to_string(length),
           to_signed(at_ + 4));
    }
    header_ = to_signed(at_);
    song_.format = p[8] << 8 | p[9];
    if (song_.format > 2) fail("expected MIDI format 0, 1 or 2, got " + std::to_string(song_.format), header_ + 8);
    song_.division = static_cast<std::uint16_t>(p[12] << 8 | p[13]);
    if (song_.division == 0) fail("expected a division of at least 1 tick per quarter note, got 0", header_ + 12);
    if (song_.division & 0x8000) {
      const int fps = 256 - p[12];
      if ((fps != 24 && fps != 25 && fps != 29 && fps != 30) || p[13] == 0) {
        fail("expected an SMPTE division of 24, 25, 29 or 30 frames per second and at least 1 tick per frame, got " +
                 std::to_string(fps) + " and " + std::to_string(p[13]),
             header_ + 12);
      }
    }
    if (length > 6) song_.chunks.push({Chunk::in_header, id_of(p), p + 14, length - 6});
    at_ += 8 + length;
    return p[10] << 8 | p[11];
  }

  std::size_t find_track(std::size_t from) const {
    const char* id = "MTrk";
    return static_cast<std::size_t>(std::search(data_ + std::min(from, size_), data_ + size_, id, id + 4) - data_);
  }

  bool could_be_chunk(std::size_t at) const {
    if (at == size_) return true;
    if (size_ - at < 8) return false;
    if (is(data_ + at, "MTrk")) return true;
    return is_printable(data_ + at) && big_endian(data_ + at + 4) <= size_ - at - 8;
  }

  void read_chunk() {
    const std::uint8_t* p = data_ + at_;
    poll_at(p);
    if (could_be_chunk(at_)) {
      const std::size_t claimed = big_endian(p + 4), left = size_ - at_ - 8;
      if (is(p, "MTrk")) {
        if (claimed > left)
          deviation({Deviation::chunk_truncated, track_, to_signed(at_), to_signed(left), to_signed(claimed)});
        read_track(at_ + 8, at_ + 8 + std::min(claimed, left), claimed > left);
      } else {
        if (is(p, "MThd")) deviation({Deviation::second_header, -1, to_signed(at_), 0, 0});
        song_.chunks.push({track_, id_of(p), p + 8, claimed});
        at_ += 8 + claimed;
      }
    } else {
      const std::size_t next = find_track(at_ + 1);
      deviation({Deviation::not_a_chunk, -1, to_signed(at_), to_signed(next - at_), 0});
      at_ = next;
    }
  }

  // The track's data is [begin, end). A track whose length is too short (its end is in the middle of things and no
  // chunk begins there) is read on, up to the next track. Leaves at_ behind the track.
  void read_track(std::size_t begin, std::size_t end_offset, bool truncated) {
    const std::uint8_t* p = data_ + begin;
    const std::uint8_t* end = data_ + end_offset;
    const std::int64_t claimed = to_signed(end_offset - begin);
    bool may_extend = !truncated && !could_be_chunk(end_offset);
    const auto extend = [&] {
      if (!may_extend) return false;
      may_extend = false;
      deviation({Deviation::past_claimed_length, track_, offset_of(end), claimed, 0});
      end = data_ + find_track(end_offset);
      return true;
    };

    time_ = stretched_end_ = 0;
    last_time_ = {-1, -1};
    hint_ = 0;
    std::uint8_t running = 0;
    bool cancelled = false, skipped = false, ended = false;

    while (!ended) {
      poll_at(p);
      if (!skipped && listener_ == nullptr) {
        p = read_plain_events(p, p + std::min<std::int64_t>(end - p, poll_bytes), running, cancelled);
      }
      const std::uint8_t* const event = p;
      const bool has_delta = !skipped;
      const auto again = [&] {
        p = event;
        skipped = !has_delta;
      };
      std::int64_t delta = 0;
      skipped = false;
      if (has_delta) {  // after skipped bytes a status comes at once: its delta cannot be told from the garbage
        if (p == end) {
          if (extend()) continue;
          break;
        }
        delta = *p++;
        if (delta & 0x80) {
          delta &= 0x7F;
          const Number number = read_number(p, end, delta);
          if (number == Number::too_long) fail_number(event);
          if (number == Number::cut) {
            if (extend()) {
              again();
              continue;
            }
            if (!truncated) fail_number(event);
            break;
          }
        }
      }

      const auto cut = [&](std::int64_t needed) {  // the event does not fit: read it again in a longer track, or end
        if (extend()) return again();
        if (!truncated) deviation({Deviation::event_truncated, track_, offset_of(event), end - event, needed});
        p = end;
        ended = true;
      };

      if (p == end) {
        cut(p - event + 1);
        continue;
      }

      std::uint8_t status = *p;
      const bool is_running = !(status & 0x80);
      if (!is_running) {
        ++p;
      } else if (running != 0) {
        status = running;
      } else {
        deviation({Deviation::no_running_status, track_, offset_of(p), status, 0});
        skip_to_status(p, end);
        skipped = p != end;
        advance(delta);
        continue;
      }

      if (status < 0xF0) {
        const int count = has_two_data_bytes(status) ? 2 : 1;
        if (end - p < count) {
          cut(p - event + count);
          continue;
        }
        if (is_running && cancelled) {
          deviation({Deviation::cancelled_running_status, track_, offset_of(p), p[0], running});
        }
        const std::uint8_t data1 = p[0], data2 = count == 2 ? p[1] : 0;
        advance(delta);
        running = status;
        cancelled = false;
        if ((data1 | data2) & 0x80) {
          const int high = (data1 & 0x80) ? 0 : 1;
          deviation({Deviation::high_data_byte, track_, offset_of(p + high), p[high], status});
          p += high;
          skipped = true;
          continue;
        }
        p += count;
        if (listener_ != nullptr) listener_->channel_event(track_, time_, status, data1, data2);
        const int key = (status & 0x0F) << 7 | data1;
        switch (status & 0xF0) {
          case 0x90:
            if (data2 != 0) {
              note_on(key, data2, time_);
              break;
            }
            note_off(key, default_release_velocity, event, time_);
            break;
          case 0x80:
            note_off(key, data2, event, time_);
            break;
          default:
            song_.events.push({time_, track_, status, data1, data2, place_at(time_)});
        }
        continue;
      }

      if (status != 0xFF && status != 0xF0 && status != 0xF7) {
        deviation({Deviation::bad_status, track_, offset_of(p - 1), status, 0});
        skip_to_status(p, end);
        skipped = p != end;
        advance(delta);
        continue;
      }

      // meta event or system exclusive: [type] length data
      if (end - p < (status == 0xFF ? 2 : 1)) {
        cut(p - event + (status == 0xFF ? 2 : 1));
        continue;
      }
      const std::uint8_t type = status == 0xFF ? *p++ : 0;
      const std::uint8_t* const length_at = p;
      std::int64_t length = *p++;
      if (length & 0x80) {
        length &= 0x7F;
        const Number number = read_number(p, end, length);
        if (number == Number::too_long) fail_number(length_at);
        if (number == Number::cut) {
          if (extend()) {
            again();
            continue;
          }
          if (!truncated) fail_number(length_at);
          break;
        }
      }
      if (length > end - p) {
        if (extend()) {
          again();
          continue;
        }
        deviation({Deviation::payload_truncated, track_, offset_of(event), end - p, length});
        p = end;
        break;
      }
      advance(delta);
      cancelled = running != 0;  // by the specification; a data byte after it is read as running status all the same
      if (status == 0xFF && type == meta::end_of_track) {
        if (length != 0) deviation({Deviation::end_of_track_length, track_, offset_of(event), length, 0});
        ended = true;
        p += length;
        finish_track(p);
        // A length that proved wrong does not say what follows: the next chunk may.
        if (!truncated && end == data_ + end_offset && p != end) {
          deviation({Deviation::after_end_of_track, track_, offset_of(p), end - p, 0});
          p = end;
        }
        at_ = static_cast<std::size_t>(p - data_);
        ++track_;
        return;
      }
      if (status == 0xFF && type == meta::sequencer && length == 5 &&
          std::equal(pairing_hint.begin(), pairing_hint.end(), p) && p[4] >= 1 && p[4] <= max_hint) {
        hint_ = p[4];
      } else {
        if (status == 0xFF) check_meta(type, p, length, event);
        song_.events.push({time_, track_, status, type, 0, place_at(time_)});
        song_.payload.append(p, static_cast<std::size_t>(length));
        song_.payload_ends.push(to_signed(song_.payload.size()));
      }
      p += length;
    }

    if (!truncated) deviation({Deviation::no_end_of_track, track_, offset_of(p), 0, 0});
    finish_track(p);
    at_ = static_cast<std::size_t>(p - data_);
    ++track_;
  }

  // Most of any file: channel events with two data bytes. Reads from `at` while eight bytes are left before `end`,
  // stops before whatever is not that, and leaves it to the general loop, which checks every byte.
  //
  // Whether a delta has one byte or two, and whether a note goes on or off, cannot be predicted: a branch on either
  // would be wrong every few events and then cost as much as six of them. So every event writes both what an on would
  // (a new note, which the next one overwrites if this was an off) and what an off would.
  const std::uint8_t* read_plain_events(const std::uint8_t* at, const std::uint8_t* end, std::uint8_t& running,
                                        bool& cancelled) {
    if (hint_ > 0) return at;
    constexpr std::uint32_t no_status = 0xF0;
    std::uint32_t status = !cancelled && has_two_data_bytes(running) ? running : no_status;
    std::int64_t time = time_;
    bool plain = true;
    while (plain && end - at >= 8) {
      const std::uint8_t* const last = at + std::min<std::int64_t>(end - at - 8, block_bytes);
      song_.notes.reserve(static_cast<std::size_t>(last - at) / 3 + 2);  // an event has three bytes or more
      Note* const notes = song_.notes.data();
      std::uint64_t num_notes = song_.notes.size();
      while (at <= last) {
        const std::uint64_t word = little_endian_64(at);
        const std::uint64_t is_long = word >> 7 & 1;
        std::uint64_t delta = (word & 0x7F) << 7 & -is_long;  // without its last byte
        std::uint64_t event = word >> 8 * is_long;            // from there on
        std::uint64_t data = event >> 8, length = 3 + is_long;
        if ((event & 0x808080) != 0) {  // not the shortest form
          for (; (event & 0x80) != 0 && length < 6; ++length) {
            delta = (delta + (event & 0x7F)) << 7;
            event >>= 8;
          }
          const auto now = static_cast<std::uint32_t>(event >> 8 & 0xFF);
          if ((event & 0x80808080) == 0x8000 && has_two_data_bytes(now)) {
            status = now;
            data = event >> 16;
            ++length;
          } else if ((event & 0x808080) == 0) {
            data = event >> 8;
          } else {
            plain = false;
            break;
          }
        }
        const std::uint32_t data1 = data & 0x7F, data2 = data >> 8 & 0x7F;
        if ((status & 0x60) != 0) {  // no note
          if (status == no_status) {
            plain = false;
            break;
          }
          at += length;
          time += static_cast<std::int64_t>(delta + (event & 0x7F));
          song_.events.push({time, track_, static_cast<std::uint8_t>(status), static_cast<std::uint8_t>(data1),
                             static_cast<std::uint8_t>(data2), place_at(time)});
          continue;
        }
        const std::uint8_t* const begin = at;
        at += length;
        time += static_cast<std::int64_t>(delta + (event & 0x7F));
        const std::uint64_t is_on = status >> 4 & (data2 + 127) >> 7 & 1;
        const auto on_mask = -static_cast<std::int64_t>(is_on);
        const std::uint32_t key = (status & 0x0F) << 7 | data1;
        const std::uint32_t default_release = status << 2 & default_release_velocity;  // 64 for 0x90
        const std::uint32_t release_velocity = default_release != 0 ? default_release : data2;
        const std::int64_t head = heads_[key], duration = time - starts_[key];
        if (((head ^ on_mask) | ((duration - 1) & ~on_mask)) < 0) {
          // An on while the key sounds, or an off that does not simply end its one note.
          song_.notes.set_size(num_notes);
          if (is_on != 0) {
            note_on(static_cast<int>(key), static_cast<std::uint8_t>(data2), time);
          } else {
            note_off(static_cast<int>(key), static_cast<std::uint8_t>(release_velocity), begin, time);
          }
          num_notes = song_.notes.size();
          continue;
        }
        notes[num_notes].start = time;
        notes[num_notes].pitch = static_cast<std::uint8_t>(data1);
        notes[num_notes].velocity = static_cast<std::uint8_t>(data2);
        notes[num_notes].channel = static_cast<std::uint8_t>(status & 0x0F);
        notes[num_notes].track = track_;
        starts_[key] = time;
        Note& note = notes[num_notes ^ ((num_notes ^ static_cast<std::uint64_t>(head)) & (is_on - 1))];
        note.duration = duration | on_mask;
        note.release_velocity = static_cast<std::uint8_t>(release_velocity);
        heads_[key] = static_cast<std::int64_t>(num_notes | (is_on - 1));
        last_time_[is_on] = time;
        num_notes += is_on;
        num_sounding_ -= on_mask | 1;
      }
      song_.notes.set_size(num_notes);
    }
    if (status != no_status) running = static_cast<std::uint8_t>(status), cancelled = false;
    time_ = time;
    return at;
  }

  // Where an event at `time` lies among the notes of its tick.
  std::uint8_t place_at(std::int64_t time) const {
    return last_time_[on] == time ? 2 : last_time_[off] == time ? 1 : 0;
  }

  enum class Number { whole, cut, too_long };

  // The rest of a variable-length number whose first byte had the high bit set.
  static Number read_number(const std::uint8_t*& p, const std::uint8_t* end, std::int64_t& value) {
    for (int more = 0; more < 3; ++more) {
      if (p == end) return Number::cut;
      const std::uint8_t byte = *p++;
      value = value << 7 | (byte & 0x7F);
      if (!(byte & 0x80)) return Number::whole;
    }
    return Number::too_long;
  }

  [[noreturn]] void fail_number(const std::uint8_t* at) const {
    fail("expected a variable-length number of at most 4 bytes, got one without an end", offset_of(at), track_);
  }

  static void skip_to_status(const std::uint8_t*& p, const std::uint8_t* end) {
    while (p != end && !(*p & 0x80)) ++p;
  }

  void check_meta(std::uint8_t type, const std::uint8_t* p, std::int64_t length, const std::uint8_t* event) {
    const std::int64_t at = offset_of(event);
    if (type == meta::tempo) {
      if (length != 3 || (p[0] | p[1] | p[2]) == 0) deviation({Deviation::tempo, track_, at, length, 3});
    } else if (type == meta::time_signature) {
      if (length != 4 || p[0] == 0 || p[1] > max_denominator_power) {
        deviation({Deviation::time_signature, track_, at, length == 4 ? p[0] << 8 | p[1] : -length, 4});
      }
    } else if (type == meta::key_signature) {
      if (length != 2 || (p[0] > 7 && p[0] < 249) || p[1] > 1) {
        deviation({Deviation::key_signature, track_, at, length == 2 ? p[0] << 8 | p[1] : -length, 2});
      }
    }
  }

  void advance(std::int64_t delta) { time_ += delta; }

  void note_on(int key, std::uint8_t velocity, std::int64_t time) {
    const auto pitch = static_cast<std::uint8_t>(key & 127), channel = static_cast<std::uint8_t>(key >> 7);
    const std::int64_t note = to_signed(song_.notes.size());
    song_.notes.push({time, no_note, pitch, velocity, channel, default_release_velocity, track_});
    if (heads_[key] == no_note) {
      heads_[key] = note;
      starts_[key] = time;
    } else {
      song_.notes[starts_[key] == several ? tails_[key] : heads_[key]].duration = note;
      starts_[key] = several;
      tails_[key] = note;
    }
    last_time_[on] = time;
    ++num_sounding_;
  }

  void note_off(int key, std::uint8_t release_velocity, const std::uint8_t* event, std::int64_t time) {
    last_time_[off] = time;
    std::int64_t index = heads_[key], before = no_note;
    for (; hint_ > 0; --hint_) {
      if (index < 0) break;
      before = index;
      index = song_.notes[index].duration;
    }
    hint_ = 0;
    if (index < 0) {
      deviation({Deviation::lone_note_off, track_, offset_of(event), key & 127, key >> 7});
      return;
    }
    Note& note = song_.notes[index];
    const std::int64_t next = note.duration;
    if (before < 0) {
      heads_[key] = next;
    } else {
      song_.notes[before].duration = next;
    }
    if (next < 0) tails_[key] = before;
    if (heads_[key] >= 0 && song_.notes[heads_[key]].duration < 0) starts_[key] = song_.notes[heads_[key]].start;
    --num_sounding_;
    note.release_velocity = release_velocity;
    note.duration = time - note.start;
    if (note.duration == 0) {
      note.duration = 1;
      stretched_end_ = time + 1;
      deviation({Deviation::zero_length_note, track_, offset_of(event), key & 127, key >> 7});
    }
  }

  void finish_track(const std::uint8_t* p) {
    if (num_sounding_ > 0) {
      for (int key = 0; key < num_keys; ++key) {
        while (heads_[key] >= 0) {
          Note& note = song_.notes[heads_[key]];
          heads_[key] = note.duration;
          note.duration = std::max<std::int64_t>(1, time_ - note.start);
          stretched_end_ = std::max(stretched_end_, note.start + note.duration);
          deviation({Deviation::unended_note, track_, offset_of(p), key, note.start});
        }
      }
      num_sounding_ = 0;
    }
    song_.track_ends.push(std::max(time_, stretched_end_));
  }

 public:
  static constexpr int max_denominator_power = 7;  // a 128th

 private:
  const std::uint8_t* data_;
  std::size_t size_;  // where the MIDI file ends
  const bool strict_;
  const Poll poll_;
  Listener* const listener_;
  Song song_;
  std::size_t at_ = 0;
  std::int64_t header_ = 0, polled_ = 0;
  std::int32_t track_ = 0;

  std::int64_t time_ = 0, stretched_end_ = 0;  // the second: of notes that were made one tick long
  enum { off, on };
  std::array<std::int64_t, 2> last_time_ = {-1, -1};  // of a note-off and a note-on in this track
  int hint_ = 0;
  std::int64_t num_sounding_ = 0;
  std::array<std::int64_t, num_keys> heads_;   // oldest sounding note of every key, or no_note
  std::array<std::int64_t, num_keys> starts_;  // of the only sounding note, or several
  std::array<std::int64_t, num_keys> tails_;   // youngest; valid while there are several
};

}  // namespace

std::string message_of(const Issue& issue) {
  const std::string got = std::to_string(issue.got), expected = std::to_string(issue.expected);
  const auto pitch_of = [](std::int64_t pitch, std::int64_t channel) {
    return "pitch " + std::to_string(pitch) + " on channel " + std::to_string(channel);
  };
  const auto bytes = [](std::int64_t n) { return std::to_string(n) + (n == 1 ? " byte" : " bytes"); };
  std::string text;
  switch (issue.kind) {
    case Deviation::chunk_truncated:
      text =
          "expected a chunk of " + bytes(issue.expected) + ", got " + bytes(issue.got) + " before the end of the file";
      break;
    case Deviation::track_count:
      text = "expected " + expected + " tracks as the header says, got " + got;
      break;
    case Deviation::format_0_tracks:
      text = "expected 1 track in a file of format 0, got " + got + " (read as format 1)";
      break;
    case Deviation::event_truncated:
      text = "expected an event of at least " + bytes(issue.expected) + ", got " + bytes(issue.got) +
             " before the end of the track (event left out)";
      break;
    case Deviation::payload_truncated:
      text = "expected " + bytes(issue.expected) + " of data in a meta or system exclusive event, got " +
             bytes(issue.got) + " before the end of the track (event left out)";
      break;
    case Deviation::no_end_of_track:
      text = "expected an end-of-track event, got the end of the track's data";
      break;
    case Deviation::end_of_track_length:
      text = "expected an end-of-track event without data, got " + bytes(issue.got);
      break;
    case Deviation::after_end_of_track:
      text = "expected nothing after the end-of-track event, got " + bytes(issue.got) + " (left out)";
      break;
    case Deviation::past_claimed_length:
      text = "expected the track to end after the " + bytes(issue.got) + " of its length, got more events (read on)";
      break;
    case Deviation::no_running_status:
      text = "expected a status byte, got data byte " + hex(issue.got) +
             " without a running status (skipped to the next status)";
      break;
    case Deviation::cancelled_running_status:
      text = "expected a status byte after a meta or system exclusive event, got data byte " + hex(issue.got) +
             " (read with the earlier status " + hex(issue.expected) + ")";
      break;
    case Deviation::high_data_byte:
      text = "expected a data byte below 0x80 after status " + hex(issue.expected) + ", got " + hex(issue.got) +
             " (event left out)";
      break;
    case Deviation::bad_status:
      text = "expected a channel, meta or system exclusive status, got " + hex(issue.got) +
             " (skipped to the next status)";
      break;
    case Deviation::tempo:
      text = "expected a tempo of 3 bytes above 0, got " + (issue.got == 3 ? "0" : bytes(issue.got)) + " (ignored)";
      break;
    case Deviation::time_signature:
      text = "expected a time signature of 4 bytes with a numerator of at least 1 and a denominator of 1 to 128, got ";
      text += issue.got <= 0
                  ? bytes(-issue.got)
                  : std::to_string(issue.got >> 8) + " over 2 to the power of " + std::to_string(issue.got & 255);
      text += " (ignored)";
      break;
    case Deviation::key_signature:
      text = "expected a key signature of 2 bytes with -7 to 7 sharps and mode 0 or 1, got ";
      text += issue.got <= 0 ? bytes(-issue.got)
                             : std::to_string(static_cast<std::int8_t>(issue.got >> 8)) + " sharps, mode " +
                                   std::to_string(issue.got & 255);
      text += " (ignored)";
      break;
    case Deviation::unended_note:
      text = "expected a note-off for " + pitch_of(issue.got & 127, issue.got >> 7) + " begun at tick " + expected +
             ", got the end of the track (closed there)";
      break;
    case Deviation::lone_note_off:
      text = "expected a sounding note for the note-off of " + pitch_of(issue.got, issue.expected) +
             ", got none (left out)";
      break;
    case Deviation::zero_length_note:
      text = "expected a note of at least 1 tick, got 0 for " + pitch_of(issue.got, issue.expected) + " (made 1 tick)";
      break;
    case Deviation::not_a_chunk:
      text = "expected a chunk, got " + bytes(issue.got) + " that are none (left out)";
      break;
    case Deviation::second_header:
      text = "expected one header, got another 'MThd' (kept as an unknown chunk)";
      break;
    case Deviation::riff_length:
      text = "expected " + bytes(issue.expected) + " in the RIFF wrapper as its length says, got " + bytes(issue.got);
      break;
  }
  return text + place_of(issue.offset, issue.track);
}

Song parse(const std::uint8_t* data, std::size_t size, bool strict, Poll poll, Listener* listener) {
  if (size > static_cast<std::size_t>(max_file_size)) {
    throw std::invalid_argument("MIDI data: expected at most " + std::to_string(max_file_size) + " bytes, got " +
                                std::to_string(size));
  }
  return Parser(data, size, strict, poll, listener).parse();
}

// ---------------------------------------------------------------------------------------------------------- writing

namespace {

[[noreturn]] void refuse(const char* table, std::size_t index, const char* field, const std::string& expected,
                         std::int64_t got) {
  throw std::invalid_argument(std::string(table) + "[" + std::to_string(index) + "]." + field + ": expected " +
                              expected + ", got " + std::to_string(got));
}

constexpr std::size_t events_per_poll = 1 << 17;

class Writer {
 public:
  Writer(const SongView& song, Poll poll) : song_(song), poll_(poll) {}

  Buffer<std::uint8_t> write() {
    const bool wrapped = std::any_of(song_.chunks, song_.chunks + song_.num_chunks,
                                     [](const Chunk& chunk) { return chunk.before_track < Chunk::in_header; });
    if (!wrapped) {
      write_file();
      return std::move(out_);
    }
    bytes("RIFF\0\0\0\0RMID", 12);
    riff_chunks(Chunk::before_data);
    Writer inside(song_, poll_);
    inside.write_file();
    riff_chunk({'d', 'a', 't', 'a'}, inside.out_.data(), inside.out_.size());
    riff_chunks(Chunk::after_data);
    const std::uint32_t length = checked_length(out_.size() - 8);
    for (std::size_t i = 0; i < 4; ++i) out_[4 + i] = static_cast<std::uint8_t>(length >> 8 * i);
    return std::move(out_);
  }

 private:
  void write_file() {
    const auto size_in_header = [](std::size_t size, const Chunk& chunk) {
      return size + (chunk.before_track == Chunk::in_header ? chunk.size : 0);
    };
    const Chunk* chunk = song_.chunks;
    const Chunk* const last_chunk = song_.chunks + song_.num_chunks;
    bytes("MThd", 4);
    number(checked_length(std::accumulate(song_.chunks, last_chunk, std::size_t{6}, size_in_header)), 4);
    number(static_cast<std::uint32_t>(song_.format), 2);
    number(static_cast<std::uint32_t>(song_.num_tracks), 2);
    number(song_.division, 2);
    for (const Chunk* extra = chunk; extra != last_chunk; ++extra) {
      if (extra->before_track == Chunk::in_header) bytes(extra->data, extra->size);
    }
    for (std::size_t track = 0; track <= song_.num_tracks; ++track) {
      for (; chunk != last_chunk && (track == song_.num_tracks || chunk->before_track <= std::int64_t(track));
           ++chunk) {
        if (chunk->before_track < 0) continue;
        bytes(chunk->id.data(), 4);
        number(checked_length(chunk->size), 4);
        bytes(chunk->data, chunk->size);
      }
      if (track < song_.num_tracks) write_track(static_cast<std::int32_t>(track));
    }
  }

  void riff_chunks(std::int32_t place) {
    for (std::size_t i = 0; i < song_.num_chunks; ++i) {
      const Chunk& chunk = song_.chunks[i];
      if (chunk.before_track == place) riff_chunk(chunk.id, chunk.data, chunk.size);
    }
  }

  void riff_chunk(const std::array<char, 4>& id, const std::uint8_t* data, std::size_t size) {
    const std::uint32_t length = checked_length(size);
    bytes(id.data(), 4);
    for (int i = 0; i < 4; ++i) out_.push(static_cast<std::uint8_t>(length >> 8 * i));
    bytes(data, size);
    if (size & 1) out_.push(0);
  }

  static std::uint32_t checked_length(std::size_t size) {
    if (size > 0xFFFFFFFFu) {
      throw std::invalid_argument("MIDI chunk: expected at most 4294967295 bytes, got " + std::to_string(size));
    }
    return static_cast<std::uint32_t>(size);
  }

  void bytes(const void* data, std::size_t size) { out_.append(static_cast<const std::uint8_t*>(data), size); }

  void number(std::uint32_t value, int size) {
    std::uint8_t* p = out_.extend(static_cast<std::size_t>(size));
    for (int i = 0; i < size; ++i) p[i] = static_cast<std::uint8_t>(value >> 8 * (size - 1 - i));
  }

  void variable_length(std::uint32_t value) {
    std::uint8_t digits[4];
    int count = 0;
    do {
      digits[count++] = static_cast<std::uint8_t>(value & 0x7F);
      value >>= 7;
    } while (value != 0);
    while (count-- > 0) out_.push(static_cast<std::uint8_t>(digits[count] | (count > 0 ? 0x80 : 0)));
  }

  void delta_to(std::int64_t time, const char* table, std::size_t index, const char* field) {
    const std::int64_t delta = time - time_;
    if (delta > max_delta) {
      refuse(table, index, field,
             "at most " + std::to_string(max_delta) + " ticks after the event before it (tick " +
                 std::to_string(time_) + "), which is all that a MIDI file can hold",
             time);
    }
    variable_length(static_cast<std::uint32_t>(delta));
    time_ = time;
  }

  void channel_status(std::uint8_t status) {
    if (status != running_) out_.push(running_ = status);
  }

  void write_track(std::int32_t track) {
    const std::size_t first = next_note_;
    while (next_note_ < song_.num_notes && song_.notes[next_note_].track == track) ++next_note_;
    const std::size_t last = next_note_;
    ends_.resize(last - first);
    std::iota(ends_.begin(), ends_.end(), first);
    const auto end_of = [this](std::size_t i) { return song_.notes[i].start + song_.notes[i].duration; };
    std::stable_sort(ends_.begin(), ends_.end(), [&](std::size_t a, std::size_t b) { return end_of(a) < end_of(b); });
    younger_.resize(last - first);
    heads_.assign(num_keys, -1);
    tails_.assign(num_keys, -1);

    bytes("MTrk", 4);
    const std::size_t length_at = out_.size();
    number(0, 4);
    time_ = 0;
    running_ = 0;
    std::size_t on = first;
    auto off = ends_.begin();
    constexpr std::int64_t never = std::numeric_limits<std::int64_t>::max();
    while (true) {
      if (++steps_ % events_per_poll == 0) poll_();
      const bool has_event = next_event_ < song_.num_events && song_.events[next_event_].track == track;
      const std::int64_t on_time = on < last ? song_.notes[on].start : never;
      const std::int64_t off_time = off != ends_.end() ? end_of(*off) : never;
      const std::int64_t event_time = has_event ? song_.events[next_event_].time : never;
      const std::int64_t now = std::min({on_time, off_time, event_time});
      if (now == never) break;
      const int place = has_event ? song_.events[next_event_].place : 0;
      const bool off_now = off_time == now, on_now = on_time == now;
      if (event_time == now && (place == 0 || !off_now) && (place <= 1 || !on_now)) {
        write_event(next_event_++);
      } else if (off_now) {
        write_off(*off++, first);
      } else {
        write_on(on++, first);
      }
    }
    delta_to(std::max(time_, song_.track_ends[track]), "track_ends", static_cast<std::size_t>(track), "time");
    bytes("\xFF\x2F\x00", 3);
    const std::uint32_t length = checked_length(out_.size() - length_at - 4);
    for (int i = 0; i < 4; ++i)
      out_[length_at + static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(length >> (24 - 8 * i));
  }

  void write_on(std::size_t index, std::size_t first) {
    const Note& note = song_.notes[index];
    delta_to(note.start, "notes", index, "start");
    channel_status(static_cast<std::uint8_t>(0x90 | note.channel));
    out_.push(note.pitch);
    out_.push(note.velocity);
    const int key = note.channel << 7 | note.pitch;
    younger_[index - first] = -1;
    (heads_[key] < 0 ? heads_[key] : younger_[static_cast<std::size_t>(tails_[key]) - first]) =
        static_cast<std::int64_t>(index);
    tails_[key] = static_cast<std::int64_t>(index);
  }

  void write_off(std::size_t index, std::size_t first) {
    const Note& note = song_.notes[index];
    const int key = note.channel << 7 | note.pitch;
    const auto wanted = static_cast<std::int64_t>(index);
    std::int64_t older = -1, at = heads_[key];
    int hint = 0;
    for (; at != wanted; ++hint) {
      if (hint == max_hint)
        refuse("notes", index, "pitch", "at most 127 older notes of its pitch and channel sounding when it ends",
               note.pitch);
      older = at;
      at = younger_[static_cast<std::size_t>(at) - first];
    }
    const std::int64_t next = younger_[index - first];
    (older < 0 ? heads_[key] : younger_[static_cast<std::size_t>(older) - first]) = next;
    if (next < 0) tails_[key] = older;

    delta_to(note.start + note.duration, "notes", index, "duration");
    if (hint > 0) {
      const std::uint8_t event[] = {0xFF,
                                    meta::sequencer,
                                    5,
                                    pairing_hint[0],
                                    pairing_hint[1],
                                    pairing_hint[2],
                                    pairing_hint[3],
                                    static_cast<std::uint8_t>(hint)};
      bytes(event, sizeof event);
      out_.push(0);  // the note-off follows at the same tick
      running_ = 0;
    }
    const bool as_on = note.release_velocity == default_release_velocity;
    channel_status(static_cast<std::uint8_t>((as_on ? 0x90 : 0x80) | note.channel));
    out_.push(note.pitch);
    out_.push(as_on ? 0 : note.release_velocity);
  }

  void write_event(std::size_t index) {
    const Event& event = song_.events[index];
    delta_to(event.time, "events", index, "time");
    if (event.status < 0xF0) {
      channel_status(event.status);
      out_.push(event.data1);
      if ((event.status & 0xE0) != 0xC0) out_.push(event.data2);
      return;
    }
    running_ = 0;
    out_.push(event.status);
    if (event.status == 0xFF) out_.push(event.data1);
    const std::int64_t begin = next_payload_ == 0 ? 0 : song_.payload_ends[next_payload_ - 1];
    const std::int64_t length = song_.payload_ends[next_payload_++] - begin;
    variable_length(static_cast<std::uint32_t>(length));
    bytes(song_.payload + begin, static_cast<std::size_t>(length));
  }

  const SongView& song_;
  const Poll poll_;
  Buffer<std::uint8_t> out_;
  std::size_t next_note_ = 0, next_event_ = 0, next_payload_ = 0, steps_ = 0;
  std::int64_t time_ = 0;
  std::uint8_t running_ = 0;
  std::vector<std::size_t> ends_;                      // the track's notes in the order in which they end
  std::vector<std::int64_t> younger_, heads_, tails_;  // the reader's queues of sounding notes
};

void check_events(const SongView& song) {
  std::size_t payload = 0;
  std::int64_t end = 0;
  for (std::size_t i = 0; i < song.num_events; ++i) {
    const Event& event = song.events[i];
    if (event.time < 0) refuse("events", i, "time", "at least 0 ticks", event.time);
    if (event.track < 0 || static_cast<std::size_t>(event.track) >= song.num_tracks) {
      refuse("events", i, "track", "0 to " + std::to_string(song.num_tracks - 1), event.track);
    }
    if (i > 0) {
      const Event& before = song.events[i - 1];
      if (event.track < before.track || (event.track == before.track && event.time < before.time)) {
        refuse("events", i, "time", "order by track, then time", event.time);
      }
    }
    const bool has_payload = event.status == 0xF0 || event.status == 0xF7 || event.status == 0xFF;
    if (!has_payload && (event.status < 0xA0 || event.status >= 0xF0)) {
      refuse("events", i, "status", "0xA0 to 0xEF, 0xF0, 0xF7 or 0xFF", event.status);
    }
    if (event.status == 0xFF && event.data1 == meta::end_of_track) {
      refuse("events", i, "data1", "any meta event but end of track, which is written by itself", event.data1);
    }
    if (event.status < 0xF0 && event.data1 > 127) refuse("events", i, "data1", "0 to 127", event.data1);
    if (event.status < 0xF0 && event.data2 > 127) refuse("events", i, "data2", "0 to 127", event.data2);
    if (has_payload) {
      if (payload == song.num_payloads) refuse("events", i, "status", "a payload for every meta event", event.status);
      const std::int64_t next = song.payload_ends[payload++];
      if (next < end || next > static_cast<std::int64_t>(song.payload_size) || next - end > max_delta) {
        refuse("payload_ends", payload - 1, "end", std::to_string(end) + " to " + std::to_string(song.payload_size),
               next);
      }
      end = next;
    }
  }
}

}  // namespace

void check_notes(const Note* notes, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i) {
    const Note& note = notes[i];
    if (note.start < 0) refuse("notes", i, "start", "at least 0 ticks", note.start);
    if (note.duration <= 0) refuse("notes", i, "duration", "at least 1 tick (an end after the start)", note.duration);
    if (note.duration > std::numeric_limits<std::int64_t>::max() - note.start) {
      refuse("notes", i, "duration", "an end below 2^63 ticks", note.duration);
    }
    if (note.pitch > 127) refuse("notes", i, "pitch", "0 to 127", note.pitch);
    if (note.velocity < 1 || note.velocity > 127) refuse("notes", i, "velocity", "1 to 127", note.velocity);
    if (note.release_velocity > 127) refuse("notes", i, "release_velocity", "0 to 127", note.release_velocity);
    if (note.channel > 15) refuse("notes", i, "channel", "0 to 15", note.channel);
    if (note.track < 0) refuse("notes", i, "track", "at least 0", note.track);
    if (note.track >= 0xFFFF) refuse("notes", i, "track", "at most 65534", note.track);
  }
}

void check_song(const SongView& song) {
  if (song.num_tracks > 0xFFFF) {
    throw std::invalid_argument("tracks: expected at most 65535, got " + std::to_string(song.num_tracks));
  }
  check_notes(song.notes, song.num_notes);
  for (std::size_t i = 0; i < song.num_notes; ++i) {
    const Note& note = song.notes[i];
    if (static_cast<std::size_t>(note.track) >= song.num_tracks) {
      refuse("notes", i, "track", "below the number of tracks, " + std::to_string(song.num_tracks), note.track);
    }
    if (i > 0) {
      const Note& before = song.notes[i - 1];
      if (note.track < before.track || (note.track == before.track && note.start < before.start)) {
        refuse("notes", i, "start", "order by track, then start", note.start);
      }
    }
  }
  check_events(song);
}

Buffer<std::uint8_t> write(const SongView& song, Poll poll) {
  check_song(song);
  return Writer(song, poll).write();
}

}  // namespace musicgen::midi
