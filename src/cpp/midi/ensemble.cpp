#include "midi/ensemble.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <utility>

namespace musicgen::midi {

namespace {

constexpr std::uint8_t sustain_pedal = 64;
constexpr std::size_t steps_per_poll = 1 << 17;
constexpr std::int64_t never = std::numeric_limits<std::int64_t>::max();

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
  notes.reserve(song.num_notes);
  const midi::Note *note = song.notes, *const notes_end = note + song.num_notes;
  const midi::Event *event = song.events, *const events_end = event + song.num_events;
  for (std::size_t index = 0; index < song.num_tracks; ++index) {
    const auto track = static_cast<std::int32_t>(index);
    Span span{note, note, event, event};
    bool overlap = false;
    youngest_.fill(0);  // here, where the last note of every key ends
    for (; note != notes_end && note->track == track; ++note) {
      std::int64_t& end = youngest_[static_cast<std::size_t>(note->channel << 7 | note->pitch)];
      overlap = overlap || note->start < end;
      end = note->start + note->duration;
    }
    while (event != events_end && event->track == track) ++event;
    span.notes_end = note;
    span.events_end = event;
    begin_track(track);
    if (overlap && !as_written) {
      play_in_order(span, poll);
    } else {
      play_apart(span, poll);
    }
  }
}

// Every event and both ends of every note, one after the other.
void Ensemble::play_in_order(const Span& span, Poll poll) {
  using Ending = std::pair<std::int64_t, const midi::Note*>;
  std::vector<Ending> sounding;  // a heap, the first to end on top
  const midi::Note* on = span.notes;
  const midi::Event* event = span.events;
  while (true) {
    if (++steps_ % steps_per_poll == 0) poll();
    const std::int64_t on_time = on != span.notes_end ? on->start : never;
    const std::int64_t off_time = sounding.empty() ? never : sounding.front().first;
    const std::int64_t event_time = event != span.events_end ? event->time : never;
    const std::int64_t now = std::min({on_time, off_time, event_time});
    if (on == span.notes_end && event == span.events_end && sounding.empty()) break;
    const bool on_now = on_time == now, off_now = off_time == now;
    const int place = event != span.events_end ? event->place : 0;
    if (event_time == now && (place == 0 || !off_now) && (place <= 1 || !on_now)) {
      if (event->status < 0xF0) channel_event(track_, now, event->status, event->data1, event->data2);
      ++event;
    } else if (off_now) {
      const midi::Note& note = *sounding.front().second;
      std::pop_heap(sounding.begin(), sounding.end(), std::greater<>());
      sounding.pop_back();
      note_off(note.channel << 7 | note.pitch, now);
    } else {
      sounding.emplace_back(on->start + on->duration, on);
      std::push_heap(sounding.begin(), sounding.end(), std::greater<>());
      note_on(on->channel << 7 | on->pitch, on->velocity, now);
      ++on;
    }
  }
}

// The same where every note ends by itself: its part follows from the program changes, and only the first end of every
// part has a place among the events. Half the time, because nothing has to be brought into the order of the ends.
void Ensemble::play_apart(const Span& span, Poll poll) {
  struct Program {
    std::int64_t time;
    bool after_offs;  // at its tick
    std::uint8_t program;
    bool is_before_off(std::int64_t end) const { return time < end || (time == end && !after_offs); }
  };
  std::array<std::vector<Program>, 16> changes;
  bool after_offs = false;
  for (const midi::Event* event = span.events; event != span.events_end; ++event) {
    after_offs = event->place > 0 || (after_offs && event != span.events && event->time == event[-1].time);
    if ((event->status & 0xF0) != 0xC0) continue;
    changes[event->status & 0x0F].push_back({event->time, after_offs, event->data1});
  }
  const auto key_of = [&](const midi::Note& note) {
    const std::vector<Program>& own = changes[note.channel];
    const std::int64_t end = note.start + note.duration;
    int program = 0;
    if (!own.empty() && own.back().is_before_off(end)) {
      program = own.back().program;
    } else if (!own.empty()) {
      const auto after = std::partition_point(own.begin(), own.end(),
                                              [end](const Program& change) { return change.is_before_off(end); });
      program = after == own.begin() ? 0 : (after - 1)->program;
    }
    return static_cast<std::size_t>(note.channel << 7 | program);
  };

  std::array<const midi::Note*, num_keys> first_to_end{};  // of every channel and program
  const auto end_of = [](const midi::Note* note) { return note->start + note->duration; };
  for (const midi::Note* note = span.notes; note != span.notes_end; ++note) {
    if (++steps_ % steps_per_poll == 0) poll();
    const midi::Note*& first = first_to_end[key_of(*note)];
    if (first == nullptr || end_of(note) < end_of(first)) first = note;
  }
  std::vector<const midi::Note*> firsts;
  for (const midi::Note* note : first_to_end) {
    if (note != nullptr) firsts.push_back(note);
  }
  std::sort(firsts.begin(), firsts.end(), [&](const midi::Note* a, const midi::Note* b) {
    return std::pair(end_of(a), a) < std::pair(end_of(b), b);
  });
  auto first = firsts.begin();
  after_offs = false;
  for (const midi::Event* event = span.events; event != span.events_end; ++event) {
    after_offs = event->place > 0 || (after_offs && event != span.events && event->time == event[-1].time);
    for (; first != firsts.end(); ++first) {
      const std::int64_t end = end_of(*first);
      if (end > event->time || (end == event->time && !after_offs)) break;
      part_of((*first)->channel, end);
    }
    if (event->status < 0xF0) channel_event(track_, event->time, event->status, event->data1, event->data2);
  }
  for (; first != firsts.end(); ++first) part_of((*first)->channel, end_of(*first));
  for (const midi::Note* note = span.notes; note != span.notes_end; ++note) {
    const std::int32_t part = parts_of_[key_of(*note)];
    std::int64_t& last = parts[static_cast<std::size_t>(part)].last;
    last = std::max(last, end_of(note));
    notes.push({note->start, end_of(note), part, note->pitch, note->velocity});
  }
}

}  // namespace musicgen::midi
