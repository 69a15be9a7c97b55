// Songs out of any bytes that can be read, and any tokens, to the encoders. Build and run: tests/fuzz/run encodings 60
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <typeinfo>
#include <vector>

#include "base/error.h"
#include "common.h"
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

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Song song;
  try {
    song = parse(data, size, false, poll);
  } catch (const MidiError&) {
    return 0;
  }
  for (const auto& encoder : encoders()) check_encoder(*encoder, song);
  return 0;
}
