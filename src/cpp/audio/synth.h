// A small synthesiser: notes to stereo sound, the same samples for the same notes.
//
// A tone is a sum of partials, each a damped rotation in the complex plane; none lies at or above half the sample rate,
// so nothing folds back. Its timbre (partials, their decays, envelope, vibrato, unison voices) comes from the General
// MIDI program, the frequency and the velocity; louder is brighter. Drums are swept sines and filtered noise. A small
// feedback delay network (J. Stautner and M. Puckette, Computer Music Journal 6(1), 1982) adds a room.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace musicgen::audio {

struct Tone {
  std::int64_t start, length;  // samples
  double frequency;            // Hz, of the first partial
  float velocity, gain, pan;   // 0 to 1; a factor; -1 left to 1 right
  std::int16_t program, key;   // 0 to 127 as in General MIDI, or drum_program; the key of a drum
};
static_assert(sizeof(Tone) == 40, "numpy sees this layout");

constexpr std::int16_t drum_program = 128;

struct Partial {
  double ratio;  // of the tone's frequency
  double amplitude;
  double decay;  // 1/s
  bool bright;   // comes in with the slower attack
};

struct Timbre {
  std::vector<Partial> partials;
  double attack, bright_attack, release;              // s
  double vibrato_cents, vibrato_rate, vibrato_delay;  // peak; Hz; s until it is fully there
  int num_voices;                                     // in unison
  double detune_cents;                                // of the outer voices
  double spread;                                      // how far apart the voices are panned
};

Timbre timbre_of(int program, double frequency, double velocity, double sr);

constexpr int block_size = 128;  // samples in which frequency is constant and envelopes are straight
constexpr double room_seconds = 1.1, room_level = 0.16, ceiling = 0.89;

// Samples of the result: to the end of the last release, and the room after it. 0 without tones.
std::int64_t length_of(const Tone* tones, std::size_t num_tones, double sr);

// Both outputs hold length_of() samples, their peak scaled to `ceiling`. `poll` is called every few milliseconds and
// may throw. `room` is the level of the reverberation, 0 for none.
void synthesize(const Tone* tones, std::size_t num_tones, double sr, double room, float* left, float* right,
                const std::function<void()>& poll);

}  // namespace musicgen::audio
