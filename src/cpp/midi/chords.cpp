#include "midi/chords.h"

#include <algorithm>

namespace musicgen::midi {

std::int32_t ChordFinder::find(std::int64_t begin, std::int64_t end) {
  const auto is_over = [&](const Sounding& note) { return note.end <= begin; };
  sounding_.erase(std::remove_if(sounding_.begin(), sounding_.end(), is_over), sounding_.end());
  if (sounding_.empty()) return -1;  // a long rest should cost nothing
  std::array<std::int64_t, 12> weights{};
  int lowest = 128;
  std::uint32_t present = 0;
  for (const Sounding& note : sounding_) {
    const int pitch_class = note.pitch % 12;
    weights[static_cast<std::size_t>(pitch_class)] += std::min(end, note.end) - std::max(begin, note.begin);
    present |= 1u << pitch_class;
    lowest = std::min(lowest, note.pitch);
  }
  std::int32_t best = -1;
  std::int64_t most = 0;
  for (int root = 0; root < 12; ++root) {
    const std::uint32_t above = (present >> root | present << (12 - root)) & 0xFFF;
    for (std::size_t quality = 0; quality < chord_qualities.size(); ++quality) {
      if ((above & chord_qualities[quality]) != chord_qualities[quality]) continue;
      std::int64_t weight = 0;
      for (int tone = 0; tone < 12; ++tone) {
        if (chord_qualities[quality] >> tone & 1) weight += weights[static_cast<std::size_t>((root + tone) % 12)];
      }
      weight = 2 * weight + (root == lowest % 12);  // the lowest note decides between equals
      if (weight > most) {
        most = weight;
        best = root * static_cast<std::int32_t>(chord_qualities.size()) + static_cast<std::int32_t>(quality);
      }
    }
  }
  return best;
}

}  // namespace musicgen::midi
