#include "midi/tempo.h"

#include <algorithm>
#include <tuple>

namespace musicgen::midi {

namespace {

constexpr std::uint8_t meta_event = 0xFF, tempo_type = 0x51;
constexpr std::int64_t tempo_size = 3;
constexpr double default_tempo = 500'000;  // microseconds per quarter note
constexpr int ntsc = 29;                   // frames per second, nominally

struct Tempo {
  std::size_t timeline;
  std::int64_t time;
  double microseconds;
};

// By timeline, then time; of one tick, in the order of tracks, then of the file.
std::vector<Tempo> tempos_of(const SongView& song) {
  std::vector<Tempo> tempos;
  std::size_t payload = 0;
  for (std::size_t i = 0; i < song.num_events; ++i) {
    const Event& event = song.events[i];
    if (event.status < 0xF0) continue;
    const std::int64_t begin = payload == 0 ? 0 : song.payload_ends[payload - 1];
    const std::int64_t size = song.payload_ends[payload++] - begin;
    if (event.status != meta_event || event.data1 != tempo_type || size != tempo_size) continue;
    const std::uint8_t* p = song.payload + begin;
    const int microseconds = p[0] << 16 | p[1] << 8 | p[2];
    if (microseconds == 0) continue;
    tempos.push_back({song.format == 2 ? static_cast<std::size_t>(event.track) : 0, event.time, double(microseconds)});
  }
  std::stable_sort(tempos.begin(), tempos.end(), [](const Tempo& a, const Tempo& b) {
    return std::tie(a.timeline, a.time) < std::tie(b.timeline, b.time);
  });
  return tempos;
}

}  // namespace

TempoMap::TempoMap(const SongView& song, Seconds order) {
  if (song.division & 0x8000) {
    const int fps = 256 - (song.division >> 8), ticks = song.division & 0xFF;
    divisor_ = 1 / (fps == ntsc ? 1001 / (30'000.0 * ticks) : 1 / (1.0 * fps * ticks));
    segments_ = {{0, 0.0, 1.0}};
    begins_ = {0, 1};
    return;
  }
  const double division = song.division;
  const bool exact = order == Seconds::exact;
  if (exact) divisor_ = 1e6 * division;
  const auto rate_of = [&](double microseconds) {
    return exact ? microseconds : 60.0 / ((6e7 / microseconds) * division);
  };
  const std::vector<Tempo> tempos = tempos_of(song);
  auto tempo = tempos.begin();
  const std::size_t timelines = song.format == 2 ? std::max<std::size_t>(song.num_tracks, 1) : 1;
  for (std::size_t timeline = 0; timeline < timelines; ++timeline) {
    begins_.push_back(segments_.size());
    segments_.push_back({0, 0.0, rate_of(default_tempo)});
    for (; tempo != tempos.end() && tempo->timeline == timeline; ++tempo) {
      const Segment last = segments_.back();
      const double rate = rate_of(tempo->microseconds);
      if (tempo->time == 0 || (exact && tempo->time == last.begin)) {
        segments_.back().rate = rate;           // of several at one tick, the last counts
      } else if (exact || rate != last.rate) {  // pretty_midi begins none, and rounds no time anew, for one repeated
        segments_.push_back({tempo->time, last.sum + static_cast<double>(tempo->time - last.begin) * last.rate, rate});
      }
    }
  }
  begins_.push_back(segments_.size());
}

TempoMap::Cursor::Cursor(const TempoMap& map, std::int32_t track) : map_(&map) {
  const std::size_t timelines = map.begins_.size() - 1, wanted = static_cast<std::size_t>(track);
  const std::size_t timeline = wanted < timelines ? wanted : 0;
  at_ = begin_ = map.begins_[timeline];
  end_ = map.begins_[timeline + 1];
}

void TempoMap::Cursor::seek(std::int64_t tick) {
  const Segment* const segments = map_->segments_.data();
  const auto* const after =
      std::upper_bound(segments + begin_ + 1, segments + end_, tick,
                       [](std::int64_t time, const Segment& segment) { return time < segment.begin; });
  at_ = static_cast<std::size_t>(after - segments) - 1;
}

double duration_of(const SongView& song) {
  std::vector<std::int64_t> last(song.format == 2 ? std::max<std::size_t>(song.num_tracks, 1) : 1, 0);
  const auto count = [&](std::int32_t track, std::int64_t time) {
    std::int64_t& latest = last[song.format == 2 ? static_cast<std::size_t>(track) : 0];
    latest = std::max(latest, time);
  };
  for (std::size_t i = 0; i < song.num_notes; ++i) {
    count(song.notes[i].track, song.notes[i].start + song.notes[i].duration);
  }
  for (std::size_t i = 0; i < song.num_events; ++i) count(song.events[i].track, song.events[i].time);
  const TempoMap map(song);
  double longest = 0.0;
  for (std::size_t track = 0; track < last.size(); ++track) {
    longest = std::max(longest, map.seconds(last[track], static_cast<std::int32_t>(track)));
  }
  return longest;
}

}  // namespace musicgen::midi
