#include "midi/parts.h"

#include <algorithm>
#include <limits>

#include "midi/tokens.h"

namespace musicgen::midi {

Changes::Changes(const SongView& song, std::uint8_t status, Poll poll) {
  for (std::size_t i = 0; i < song.num_events; ++i) {
    if (i % poll_interval == 0) poll();
    const Event& event = song.events[i];
    if ((event.status & 0xF0) != status || (status == control_change && event.data1 != sustain_pedal)) continue;
    const std::uint8_t value = status == control_change ? event.data2 : event.data1;
    by_track_[event.status & 15].push_back({event.time, 0, event.track, value});
    none_ = false;
  }
  constexpr std::int64_t never = std::numeric_limits<std::int64_t>::max();
  const auto hold = [](std::vector<Change>& changes, bool any_track) {
    std::int64_t next_up = never;
    for (std::size_t i = changes.size(); i-- > 0;) {
      if (!any_track && i + 1 < changes.size() && changes[i + 1].track != changes[i].track) next_up = never;
      const bool down = changes[i].value >= pedal_down;
      changes[i].held_until = down ? next_up : 0;
      if (!down) next_up = changes[i].time;
    }
  };
  for (std::size_t channel = 0; channel < by_track_.size(); ++channel) {
    std::vector<Change>& by_time = by_time_[channel];
    by_time = by_track_[channel];
    std::stable_sort(by_time.begin(), by_time.end(), [](const Change& a, const Change& b) { return a.time < b.time; });
    if (status != control_change) continue;
    hold(by_track_[channel], false);
    hold(by_time, true);
  }
}

void Changes::enter(std::int32_t track) {
  for (std::size_t channel = 0; channel < by_track_.size(); ++channel) {
    const std::vector<Change>& all = by_track_[channel];
    const Change* const end = all.data() + all.size();
    Range& range = ranges_[channel];
    const auto before = [](const Change& change, std::int32_t wanted) { return change.track < wanted; };
    range.begin = std::lower_bound(all.data(), end, track, before);
    range.end = std::lower_bound(range.begin, end, track + 1, before);
    if (range.begin == range.end)
      range = {by_time_[channel].data(), by_time_[channel].data() + by_time_[channel].size()};
    found_[channel] = range.begin;
  }
  track_ = track;
}

const Change* Changes::first_after(const Range& range, std::int64_t tick) {
  return std::upper_bound(range.begin, range.end, tick,
                          [](std::int64_t time, const Change& change) { return time < change.time; });
}

Buffer<std::int64_t> pedalled_ends(const SongView& song, Poll poll) {
  Buffer<std::int64_t> ends;
  Changes pedals(song, control_change, poll);
  if (pedals.empty()) return ends;
  std::int64_t* const end = ends.extend(song.num_notes);
  std::int64_t last = 0;
  for (std::size_t i = 0; i < song.num_events; ++i) last = std::max(last, song.events[i].time);
  for (std::size_t i = 0; i < song.num_notes; ++i) {
    last = std::max(last, song.notes[i].start + song.notes[i].duration);
  }
  struct Struck {
    std::int32_t track;
    std::int64_t start;
  };
  std::vector<Struck> next(16 * 128, Struck{-1, 0});  // of every channel and pitch: the note after
  for (std::size_t i = song.num_notes; i-- > 0;) {
    if (i % poll_interval == 0) poll();
    const Note& note = song.notes[i];
    Struck& struck = next[note.channel * std::size_t{128} + note.pitch];
    const std::int64_t again = struck.track == note.track ? struck.start : last;
    const std::int64_t ended = note.start + note.duration;
    const Change* const pedal = pedals.at(note.track, note.channel, ended);
    const std::int64_t held_until = pedal == nullptr ? 0 : pedal->held_until;
    end[i] = std::max(ended, std::min(held_until, again));
    struck = {note.track, note.start};
  }
  return ends;
}

}  // namespace musicgen::midi
