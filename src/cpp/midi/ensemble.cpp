#include "midi/ensemble.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <utility>

namespace musicgen::midi {

namespace {

constexpr std::uint8_t sustain_pedal = 64;
constexpr std::size_t steps_per_poll = 1 << 17;

}  // namespace

void Ensemble::begin_track(std::int32_t track) {
  track_ = track;
  programs_.fill(0);
  waiting_.fill(none);
  parts_of_.fill(none);
  youngest_.fill(none);
}

std::size_t Ensemble::part_of(int channel, std::int64_t end) {
  std::int32_t& part = parts_of_[static_cast<std::size_t>(channel << 7 | programs_[static_cast<std::size_t>(channel)])];
  if (part == none) {
    std::int32_t shared = waiting_[static_cast<std::size_t>(channel)];
    if (shared == none) {
      shared = static_cast<std::int32_t>(events.size());
      events.emplace_back();
    }
    part = static_cast<std::int32_t>(parts.size());
    parts.push_back({track_, static_cast<std::uint8_t>(channel), static_cast<std::size_t>(shared), 0});
  }
  const auto index = static_cast<std::size_t>(part);
  parts[index].last = std::max(parts[index].last, end);
  return index;
}

Ensemble::Events& Ensemble::events_of(int channel) {
  const auto at = static_cast<std::size_t>(channel);
  const std::int32_t part = parts_of_[at << 7 | programs_[at]];
  if (part != none) return events[parts[static_cast<std::size_t>(part)].events];
  if (waiting_[at] == none) {
    waiting_[at] = static_cast<std::int32_t>(events.size());
    events.emplace_back();
  }
  return events[static_cast<std::size_t>(waiting_[at])];
}

void Ensemble::note_on(int key, std::uint8_t velocity, std::int64_t time) {
  std::int64_t& youngest = youngest_[static_cast<std::size_t>(key)];
  const auto index = static_cast<std::int64_t>(notes.size());
  notes.push({time, none, youngest, static_cast<std::uint8_t>(key & 127), velocity});
  youngest = index;
}

void Ensemble::note_off(int key, std::int64_t time) {
  std::int64_t& youngest = youngest_[static_cast<std::size_t>(key)];
  std::int64_t at = youngest, kept = none;
  while (at != none && notes[static_cast<std::size_t>(at)].start == time) {  // the last to begin come first
    kept = at;
    at = notes[static_cast<std::size_t>(at)].link;
  }
  if (at == none) {
    youngest = none;  // nothing sounds, or only what began at this tick: a note of no length
    return;
  }
  if (kept == none) {
    youngest = none;
  } else {
    notes[static_cast<std::size_t>(kept)].link = none;
  }
  const std::size_t part = part_of(key >> 7, time);
  while (at != none) {
    Note& note = notes[static_cast<std::size_t>(at)];
    at = note.link;
    note.end = time;
    note.link = static_cast<std::int64_t>(part);
  }
}

void Ensemble::whole_note(const midi::Note& note) {
  const std::int64_t end = note.start + note.duration;
  const auto part = static_cast<std::int64_t>(part_of(note.channel, end));
  notes.push({note.start, end, part, note.pitch, note.velocity});
}

void Ensemble::channel_event(std::int32_t track, std::int64_t time, std::uint8_t status, std::uint8_t data1,
                             std::uint8_t data2) {
  if (track != track_) begin_track(track);
  const int channel = status & 0x0F;
  switch (status & 0xF0) {
    case 0x80:
      note_off(channel << 7 | data1, time);
      break;
    case 0x90:
      if (data2 == 0) {
        note_off(channel << 7 | data1, time);
      } else {
        note_on(channel << 7 | data1, data2, time);
      }
      break;
    case 0xB0: {
      Events& own = events_of(channel);
      own.last = time;
      if (data1 == sustain_pedal) own.pedals.push_back({time, data2});
      break;
    }
    case 0xC0:
      programs_[static_cast<std::size_t>(channel)] = data1;
      break;
    case 0xE0: {
      Events& own = events_of(channel);
      own.last = time;
      own.bends.push_back({time, (data1 | data2 << 7) - 8192});
      break;
    }
    default:  // pressure: no part of pretty_midi's
      break;
  }
}

void Ensemble::play(const SongView& song, bool as_written, Poll poll) {
  constexpr std::int64_t never = std::numeric_limits<std::int64_t>::max();
  using Ending = std::pair<std::int64_t, std::size_t>;  // tick, note
  std::vector<Ending> sounding;                         // a heap, the first to end on top
  std::size_t on = 0, next = 0, steps = 0;
  for (std::size_t index = 0; index < song.num_tracks; ++index) {
    const auto track = static_cast<std::int32_t>(index);
    begin_track(track);
    while (true) {
      if (++steps % steps_per_poll == 0) poll();
      const bool has_note = on < song.num_notes && song.notes[on].track == track;
      const bool has_event = next < song.num_events && song.events[next].track == track;
      const std::int64_t on_time = has_note ? song.notes[on].start : never;
      const std::int64_t off_time = sounding.empty() ? never : sounding.front().first;
      const std::int64_t event_time = has_event ? song.events[next].time : never;
      if (!has_note && !has_event && sounding.empty()) break;
      const std::int64_t now = std::min({on_time, off_time, event_time});
      const bool on_now = on_time == now, off_now = off_time == now;
      const int place = has_event ? song.events[next].place : 0;
      if (event_time == now && (place == 0 || !off_now) && (place <= 1 || !on_now)) {
        const midi::Event& event = song.events[next++];
        if (event.status < 0xF0) channel_event(track, now, event.status, event.data1, event.data2);
      } else if (off_now) {
        const midi::Note& note = song.notes[sounding.front().second];
        std::pop_heap(sounding.begin(), sounding.end(), std::greater<>());
        sounding.pop_back();
        if (as_written) {
          whole_note(note);
        } else {
          note_off(note.channel << 7 | note.pitch, now);
        }
      } else {
        const midi::Note& note = song.notes[on];
        sounding.emplace_back(note.start + note.duration, on++);
        std::push_heap(sounding.begin(), sounding.end(), std::greater<>());
        if (!as_written) note_on(note.channel << 7 | note.pitch, note.velocity, now);
      }
    }
  }
}

}  // namespace musicgen::midi
