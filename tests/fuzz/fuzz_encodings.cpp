// Songs out of any bytes that can be read, and any tokens, to the encoders. Build and run: tests/fuzz/run encodings 60
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <typeinfo>
#include <vector>

#include "base/error.h"
#include "common.h"
#include "midi/bars.h"
#include "midi/events.h"
#include "midi/pitches.h"
#include "midi/smf.h"
#include "midi/voices.h"

using namespace musicgen;
using namespace musicgen::midi;

namespace {

// One of every kind and grid. A new encoder needs a line here.
const std::vector<std::unique_ptr<Encoder>>& encoders() {
  static const auto* all = [] {
    auto* made = new std::vector<std::unique_ptr<Encoder>>;
    made->push_back(std::make_unique<PitchEncoder>(PitchOptions{}));
    made->push_back(std::make_unique<EventEncoder>(EventOptions{}));
    EventOptions beats;
    beats.steps_per_beat = 12;
    beats.selection.drums = true;
    made->push_back(std::make_unique<EventEncoder>(beats));
    for (const bool chords : {false, true}) {
      BarOptions bars;
      bars.time_signatures = {{4, 4}, {3, 4}, {6, 8}, {1, 8}};
      if (chords) bars.tempos = {1'000'000, 500'000, 250'000};
      bars.durations = {1, 2, 3, 4, 6, 8, 12, 24, 48};
      bars.chords = bars.selection.drums = chords;
      bars.programs = !chords;
      made->push_back(std::make_unique<BarEncoder>(bars));
    }
    std::vector<Voice> voices(4);
    for (std::size_t i = 0; i < voices.size(); ++i) voices[i].aliases = {voices[i].name = "voice " + std::to_string(i)};
    made->push_back(std::make_unique<VoiceGrid>(voices, true, 21, 88, 600'000));
    return made;
  }();
  return *all;
}

// Tokens mean a song that a file can hold, and that song is said in the same tokens.
void check_encoder(const Encoder& encoder, const Song& song) {
  try {
    const Encoded encoded = encoder.encode(view_of(song), poll);
    const std::size_t rows = encoded.tokens.size() / static_cast<std::size_t>(encoder.width());
    const Song decoded = encoder.decode(encoded.tokens.data(), rows, poll);
    check_song(view_of(decoded));
    require(same(encoded.tokens, encoder.encode(view_of(decoded), poll).tokens),
            std::string("the tokens change: ") + typeid(encoder).name());
  } catch (const std::invalid_argument&) {  // a song that this encoding cannot say
  }
}

// Any tokens are a song that a file can hold, or are refused.
void check_tokens(const Encoder& encoder, const std::vector<std::int32_t>& tokens) {
  Song decoded;
  try {
    decoded = encoder.decode(tokens.data(), tokens.size() / static_cast<std::size_t>(encoder.width()), poll);
  } catch (const std::invalid_argument&) {
    return;
  }
  check_song(view_of(decoded));
  check_encoder(encoder, decoded);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::vector<std::int32_t> tokens;
  for (std::size_t i = 0; i + 1 < size; i += 2) tokens.push_back(data[i] | (data[i + 1] & 1) << 8);
  for (const auto& encoder : encoders()) check_tokens(*encoder, tokens);
  Song song;
  try {
    song = parse(data, size, false, poll);
  } catch (const MidiError&) {
    return 0;
  }
  for (const auto& encoder : encoders()) check_encoder(*encoder, song);
  return 0;
}
