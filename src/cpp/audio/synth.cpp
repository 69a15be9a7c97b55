#include "audio/synth.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/cpu.h"
#include "base/target.h"

#if defined(_MSC_VER)
#define MUSICGEN_RESTRICT __restrict
#else
#define MUSICGEN_RESTRICT __restrict__
#endif

namespace musicgen::audio {

namespace {

constexpr double pi = 3.14159265358979323846;
constexpr int table_size = 32;  // samples of a partial computed side by side
constexpr int max_partials = 32;
constexpr double inaudible = 1e-5;                             // -100 dB of a full tone
constexpr std::int64_t work_per_poll = std::int64_t{1} << 24;  // partials times samples: a few milliseconds

struct Formant {
  double frequency, width, level;
};

// Peaks of the vowel "ah" and of instrument bodies, as a factor on a partial's amplitude.
template <std::size_t N>
double formants(const Formant (&all)[N], double floor, double frequency) {
  double sum = floor;
  for (const Formant& f : all) {
    const double x = (frequency - f.frequency) / f.width;
    sum += f.level / (1 + x * x);
  }
  return sum;
}
constexpr Formant vowel_ah[] = {{660, 160, 1.0}, {1120, 180, 0.55}, {2750, 260, 0.16}, {3400, 350, 0.09}};
constexpr Formant reed_body[] = {{1050, 350, 1.0}, {2900, 600, 0.4}};
constexpr Formant violin_body[] = {{450, 250, 0.6}, {1100, 600, 0.6}, {2600, 900, 0.5}};

// A number in [0, 1) that depends on both arguments only: phases that are neither all equal nor different every time.
double scattered(std::uint32_t a, std::uint32_t b) {
  std::uint32_t x = a * 0x9E3779B1u ^ (b + 0x7F4A7C15u) * 0x85EBCA77u;
  x ^= x >> 15;
  x *= 0x2C1B3C6Du;
  x ^= x >> 12;
  x *= 0x297A2D39u;
  x ^= x >> 15;
  return x * (1.0 / 4294967296.0);
}

enum class Family {
  piano,
  electric_piano,
  harpsichord,
  bars,
  vibraphone,
  bells,
  organ,
  plucked,
  bass,
  solo_strings,
  timpani,
  strings,
  choir,
  brass,
  clarinet,
  double_reed,
  saxophone,
  pipe,
  lead,
  pad
};

Family family_of(int program) {
  if (program <= 3) return Family::piano;
  if (program <= 5) return Family::electric_piano;
  if (program <= 7) return Family::harpsichord;
  if (program == 11) return Family::vibraphone;
  if (program == 12 || program == 13) return Family::bars;
  if (program <= 14) return Family::bells;
  if (program == 15) return Family::plucked;
  if (program <= 23) return Family::organ;
  if (program <= 31) return Family::plucked;
  if (program <= 39) return Family::bass;
  if (program <= 44) return Family::solo_strings;
  if (program <= 46) return Family::plucked;
  if (program == 47) return Family::timpani;
  if (program <= 51 || program == 55) return Family::strings;
  if (program <= 54) return Family::choir;
  if (program <= 63) return Family::brass;
  if (program <= 67) return Family::saxophone;
  if (program <= 70) return Family::double_reed;
  if (program == 71) return Family::clarinet;
  if (program <= 79) return Family::pipe;
  if (program <= 87) return Family::lead;
  if (program == 91) return Family::choir;
  if (program <= 103) return Family::pad;
  if (program <= 108) return Family::plucked;
  if (program <= 111) return Family::double_reed;
  if (program <= 119) return Family::bars;
  return Family::pad;
}

// Overtones that are no whole multiples. Bars: N. Fletcher, T. Rossing, The Physics of Musical Instruments, ch. 19.
struct Overtone {
  double ratio, level;
};
constexpr Overtone bar_overtones[] = {{1, 1}, {3.93, 0.25}, {9.24, 0.06}};
constexpr Overtone vibraphone_overtones[] = {{1, 1}, {4, 0.22}, {10, 0.04}};
constexpr Overtone bell_overtones[] = {{1, 1}, {2.0, 0.4}, {2.76, 0.3}, {4.07, 0.2}, {5.4, 0.15}, {8.93, 0.06}};
constexpr Overtone timpani_overtones[] = {{1, 1}, {1.5, 0.6}, {1.98, 0.35}, {2.44, 0.2}, {2.89, 0.1}};
constexpr Overtone tine_overtones[] = {{1, 1}, {2, 0.28}, {3, 0.08}, {4, 0.03}, {7.1, 0.05}};
constexpr Overtone drawbars[] = {{1, 1},    {2, 0.75}, {3, 0.35},  {4, 0.45},  {5, 0.1},
                                 {6, 0.22}, {8, 0.25}, {10, 0.06}, {12, 0.08}, {16, 0.06}};

}  // namespace

Timbre timbre_of(int program, double frequency, double velocity, double sr) {
  Timbre t{{}, 0.004, 0.004, 0.12, 0, 5.2, 0.35, 1, 0, 0};
  // Softer is darker: every octave above the first partial loses up to this factor.
  double dark = 0.8;
  const auto harmonics = [&](auto&& amplitude, auto&& decay, double stiffness = 0) {
    for (int k = 1; k <= max_partials; ++k) {
      const double ratio = k * std::sqrt((1 + stiffness * k * k) / (1 + stiffness));
      t.partials.push_back({ratio, amplitude(k, ratio * frequency), decay(k), k > 2});
    }
  };
  const auto overtones = [&](const auto& table, double decay, double faster) {
    for (const Overtone& o : table) {
      t.partials.push_back({o.ratio, o.level, decay * (1 + faster * (o.ratio - 1)), o.ratio > 2});
    }
  };
  const auto steady = [](int) { return 0.0; };
  const double octaves_above_c4 = std::log2(frequency / 261.63);

  switch (family_of(program)) {
    case Family::piano: {
      // The hammer strikes at 1/8 of the string; decay and stiffness grow with pitch.
      const double decay = 0.75 * std::exp2(0.62 * octaves_above_c4);
      const double stiffness = 3.5e-4 * std::exp2(0.9 * octaves_above_c4);
      harmonics([](int k, double) { return std::pow(k, -1.15) * (0.25 + std::abs(std::sin(pi * k / 8))); },
                [=](int k) { return decay * (1 + 0.32 * (k - 1)); }, std::min(stiffness, 0.01));
      t.attack = t.bright_attack = 0.003, t.release = 0.16, dark = 1.6;
      break;
    }
    case Family::electric_piano:
      overtones(tine_overtones, 0.7 * std::exp2(0.4 * octaves_above_c4), 0.6);
      t.release = 0.15, dark = 1.4;
      break;
    case Family::harpsichord: {
      const double decay = 1.2 * std::exp2(0.5 * octaves_above_c4);
      harmonics([](int k, double) { return std::pow(k, -0.75) * (0.2 + std::abs(std::sin(pi * k / 7))); },
                [=](int k) { return decay * (1 + 0.12 * (k - 1)); }, 1e-4);
      t.attack = t.bright_attack = 0.001, t.release = 0.07, dark = 0.2;
      break;
    }
    case Family::bars:
      overtones(bar_overtones, 5.0 * std::exp2(0.6 * octaves_above_c4), 0.8);
      t.attack = t.bright_attack = 0.002, t.release = 0.3;
      break;
    case Family::vibraphone:
      overtones(vibraphone_overtones, 0.9 * std::exp2(0.4 * octaves_above_c4), 0.7);
      t.release = 0.4;
      break;
    case Family::bells:
      overtones(bell_overtones, 1.1 * std::exp2(0.3 * octaves_above_c4), 0.4);
      t.attack = t.bright_attack = 0.002, t.release = 0.6;
      break;
    case Family::organ:
      overtones(drawbars, 0, 0);
      t.attack = 0.018, t.bright_attack = 0.012, t.release = 0.09, dark = 0;
      break;
    case Family::plucked: {
      const double decay = 1.5 * std::exp2(0.5 * octaves_above_c4);
      harmonics([](int k, double) { return std::pow(k, -1.25) * (0.12 + std::abs(std::sin(pi * k / 5))); },
                [=](int k) { return decay * (1 + 0.3 * (k - 1)); }, 5e-5);
      t.attack = t.bright_attack = 0.002, t.release = 0.14, dark = 1.2;
      break;
    }
    case Family::bass:
      harmonics([](int k, double) { return std::pow(k, -1.5) * (0.2 + std::abs(std::sin(pi * k / 4))); },
                [](int k) { return 0.8 * (1 + 0.45 * (k - 1)); }, 5e-5);
      t.attack = t.bright_attack = 0.006, t.release = 0.1, dark = 1.2;
      break;
    case Family::solo_strings:
      harmonics([](int k, double f) { return std::pow(k, -0.9) * formants(violin_body, 0.12, f); }, steady);
      t.attack = 0.07, t.bright_attack = 0.13, t.release = 0.16, t.vibrato_cents = 11, t.vibrato_rate = 5.6;
      break;
    case Family::timpani:
      overtones(timpani_overtones, 1.8, 0.5);
      t.release = 0.5, dark = 1.5;
      break;
    case Family::strings:
      harmonics([](int k, double f) { return std::pow(k, -0.95) * formants(violin_body, 0.12, f); }, steady);
      t.attack = 0.09, t.bright_attack = 0.18, t.release = 0.24, t.vibrato_cents = 5, t.vibrato_rate = 5.3;
      t.num_voices = 2, t.detune_cents = 5, t.spread = 0.35;
      break;
    case Family::choir:
      // Glottal slope of -12 dB an octave, +6 for the lips; then the vowel.
      harmonics([](int k, double f) { return std::pow(k, -0.9) * formants(vowel_ah, 0.012, f); }, steady);
      t.attack = 0.09, t.bright_attack = 0.14, t.release = 0.22, t.vibrato_cents = 7, t.vibrato_rate = 4.9;
      t.num_voices = 3, t.detune_cents = 6, t.spread = 0.4, dark = 1.0;
      break;
    case Family::brass:
      harmonics([](int k, double) { return std::pow(k, -0.55) * std::exp(-0.10 * (k - 1)); }, steady);
      t.attack = 0.04, t.bright_attack = 0.10, t.release = 0.1, t.vibrato_cents = 3, dark = 2.2;
      break;
    case Family::clarinet:
      harmonics([](int k, double) { return std::pow(k, -0.8) * (k % 2 ? 1.0 : (k < 8 ? 0.07 : 0.4)); }, steady);
      t.attack = 0.045, t.bright_attack = 0.07, t.release = 0.09, dark = 1.3;
      break;
    case Family::double_reed:
      harmonics([](int k, double f) { return std::pow(k, -0.45) * formants(reed_body, 0.12, f); }, steady);
      t.attack = 0.035, t.bright_attack = 0.05, t.release = 0.08, t.vibrato_cents = 5, t.vibrato_rate = 5.4;
      break;
    case Family::saxophone:
      harmonics([](int k, double) { return std::pow(k, -0.7) * std::exp(-0.07 * (k - 1)); }, steady);
      t.attack = 0.04, t.bright_attack = 0.07, t.release = 0.09, t.vibrato_cents = 6, dark = 1.4;
      break;
    case Family::pipe:
      harmonics([](int k, double) { return std::pow(k, -1.2) * std::exp(-0.55 * (k - 1)); }, steady);
      t.attack = 0.05, t.bright_attack = 0.05, t.release = 0.12, t.vibrato_cents = 4, t.vibrato_rate = 4.8, dark = 0.9;
      break;
    case Family::lead:
      harmonics([](int k, double) { return 1.0 / k; }, steady);
      t.attack = 0.006, t.bright_attack = 0.006, t.release = 0.08, t.num_voices = 2, t.detune_cents = 7, t.spread = 0.3;
      break;
    case Family::pad:
      harmonics([](int k, double) { return std::pow(k, -1.4); }, steady);
      t.attack = 0.22, t.bright_attack = 0.6, t.release = 0.5, t.num_voices = 3, t.detune_cents = 8, t.spread = 0.7;
      break;
  }

  // Below half the sample rate even at the top of the vibrato of the sharpest voice; nothing that cannot be heard.
  const double sharpest = std::exp2((t.vibrato_cents + t.detune_cents) / 1200);
  double energy = 0;
  for (Partial& p : t.partials) {
    p.amplitude *= std::exp(-dark * (1 - velocity) * std::log2(std::max(p.ratio, 1.0)));
    energy += p.amplitude * p.amplitude;
  }
  const double scale = energy > 0 ? 1 / std::sqrt(energy) : 0;
  for (Partial& p : t.partials) p.amplitude *= scale;
  t.partials.erase(std::remove_if(t.partials.begin(), t.partials.end(),
                                  [&](const Partial& p) {
                                    return p.ratio * frequency * sharpest >= 0.5 * sr || p.amplitude < 8e-4;
                                  }),
                   t.partials.end());
  return t;
}

namespace {

struct Complex {
  double re, im;
};
Complex operator*(Complex a, Complex b) { return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }

// What a partial turns by: powers of its rotation (and damping) in one sample.
struct Steps {
  alignas(32) float re[table_size];
  alignas(32) float im[table_size];  // of the powers 0 to table_size - 1
  Complex table, block;              // the powers table_size and block_size

  void set(Complex step) {
    Complex power{1, 0};
    for (int j = 0; j < 4; ++j) {
      re[j] = static_cast<float>(power.re);
      im[j] = static_cast<float>(power.im);
      power = power * step;
    }
    for (int size = 4; size < table_size; size *= 2) {
      const auto c = static_cast<float>(power.re), s = static_cast<float>(power.im);
      for (int j = 0; j < size; ++j) {
        re[size + j] = re[j] * c - im[j] * s;
        im[size + j] = re[j] * s + im[j] * c;
      }
      power = power * power;
    }
    table = power;
    for (int n = table_size; n < block_size; n *= 2) power = power * power;
    block = power;
  }
};

// Adds the imaginary part of state * step^n to out[block_size]. Single precision, but only table_size samples away from
// a value in double precision: the pitch of a long note does not drift. Multiplications and additions sample by sample,
// nothing fused: the same bits at any vector width.
#define MUSICGEN_ADD_PARTIAL(name)                                                           \
  void name(const Steps& steps, Complex state, float* out) {                                 \
    for (int n = 0; n < block_size; n += table_size) {                                       \
      const float a = static_cast<float>(state.im), b = static_cast<float>(state.re);        \
      float* MUSICGEN_RESTRICT to = out + n;                                                 \
      for (int j = 0; j < table_size; ++j) to[j] += a * steps.re[j] + b * steps.im[j];       \
      const Complex t = steps.table;                                                         \
      state = Complex{state.re * t.re - state.im * t.im, state.re * t.im + state.im * t.re}; \
    }                                                                                        \
  }

MUSICGEN_ADD_PARTIAL(add_partial_baseline)
#if MUSICGEN_X86
MUSICGEN_BEGIN_AVX2
MUSICGEN_ADD_PARTIAL(add_partial_avx2)
MUSICGEN_END_TARGET
#endif
#undef MUSICGEN_ADD_PARTIAL

using AddPartial = void (*)(const Steps&, Complex, float*);
AddPartial add_partial_for(Isa isa) {
#if MUSICGEN_X86
  if (isa != Isa::baseline) return add_partial_avx2;
#endif
  (void)isa;
  return add_partial_baseline;
}

Complex turn(double angle) { return {std::cos(angle), std::sin(angle)}; }

double rise(double x) {  // 0 to 1 with level ends, while x goes from 0 to 1
  if (x >= 1) return 1;
  const double s = std::sin(0.5 * pi * std::max(x, 0.0));
  return s * s;
}

// Samples a tone sounds: to its end or until all its partials have died away, then the release.
std::int64_t sounding_length(const Tone& tone, const Timbre& timbre, double sr) {
  double slowest = timbre.partials.empty() ? 0 : timbre.partials.front().decay;
  for (const Partial& p : timbre.partials) slowest = std::min(slowest, p.decay);
  std::int64_t length = tone.length;
  if (slowest > 0) {
    const double seconds = -std::log(inaudible) / slowest;
    if (seconds * sr < static_cast<double>(length)) length = static_cast<std::int64_t>(seconds * sr);
  }
  return length + static_cast<std::int64_t>(std::ceil(timbre.release * sr));
}

struct Drum {
  double low, high, sweep;    // Hz the sine ends and begins at; 1/s from high to low
  double tone, tone_decay;    // level, 1/s
  double noise, noise_decay;  // level, 1/s
  int differences;            // how often the noise is differenced: 0 white, more is higher
};

Drum drum_of(int key) {
  switch (key) {
    case 35:
    case 36:
      return {47, 150, 35, 1.1, 7, 0.12, 90, 0};
    case 37:
    case 75:
    case 76:
    case 77:
      return {1100, 1300, 60, 0.5, 45, 0.15, 120, 1};
    case 38:
    case 40:
      return {175, 240, 50, 0.45, 16, 0.5, 14, 1};
    case 39:
      return {900, 900, 1, 0, 50, 0.6, 22, 1};
    case 42:
    case 44:
    case 69:
    case 70:
    case 82:
      return {300, 300, 1, 0, 50, 0.4, 45, 2};
    case 46:
      return {300, 300, 1, 0, 50, 0.4, 8, 2};
    case 49:
    case 52:
    case 55:
    case 57:
      return {300, 300, 1, 0, 50, 0.45, 2.6, 2};
    case 51:
    case 53:
    case 59:
      return {3100, 3100, 1, 0.12, 4, 0.3, 4.5, 2};
    case 54:
    case 56:
    case 80:
    case 81:
      return {2400, 2400, 1, 0.4, 14, 0.15, 20, 2};
    default: {
      const double f = 70 * std::exp2((std::clamp(key, 27, 87) - 41) / 14.0);  // toms and the rest: by key
      return {f, 1.7 * f, 22, 0.9, 8, 0.08, 60, 0};
    }
  }
}

std::int64_t drum_length(const Drum& drum, double sr) {
  const double slowest = std::min(drum.tone > 0 ? drum.tone_decay : 1e9, drum.noise > 0 ? drum.noise_decay : 1e9);
  return static_cast<std::int64_t>(-std::log(1e-4) / slowest * sr);
}

struct Gains {
  float left, right;
};

Gains panned(double gain, double pan) {  // constant power
  const double angle = 0.25 * pi * (std::clamp(pan, -1.0, 1.0) + 1);
  return {static_cast<float>(gain * std::cos(angle)), static_cast<float>(gain * std::sin(angle))};
}

class Renderer {
 public:
  Renderer(double sr, std::int64_t length, float* left, float* right, const std::function<void()>& poll)
      : sr_(sr), length_(length), left_(left), right_(right), poll_(poll) {}

  void render(const Tone& tone, std::uint32_t index) {
    if (tone.program == drum_program) {
      drum(tone, index);
      return;
    }
    const Timbre timbre = timbre_of(tone.program, tone.frequency, tone.velocity, sr_);
    if (timbre.partials.empty()) return;
    const double loudness =
        tone.gain * std::pow(tone.velocity, 1.6) / std::sqrt(static_cast<double>(timbre.num_voices));
    for (int voice = 0; voice < timbre.num_voices; ++voice) {
      const double side = timbre.num_voices == 1 ? 0 : 2.0 * voice / (timbre.num_voices - 1) - 1;  // -1 to 1
      sing(tone, timbre, voice, index, std::exp2(side * timbre.detune_cents / 1200),
           panned(loudness, tone.pan + side * timbre.spread));
    }
  }

 private:
  void sing(const Tone& tone, const Timbre& timbre, int voice, std::uint32_t index, double detune, Gains gains) {
    const std::size_t count = timbre.partials.size();
    const double angle = 2 * pi * tone.frequency * detune / sr_;
    for (std::size_t k = 0; k < count; ++k) {
      const Partial& partial = timbre.partials[k];
      const double phase = scattered(static_cast<std::uint32_t>(k), static_cast<std::uint32_t>(voice));
      state_[k] = turn(2 * pi * phase) * Complex{partial.amplitude, 0};
      steps_[k].set(turn(angle * partial.ratio) * Complex{std::exp(-partial.decay / sr_), 0});
    }
    const double vibrato_phase = scattered(index, static_cast<std::uint32_t>(voice) + 1000);
    const auto bend_all = [&](double bend) {  // a timbre with vibrato has whole ratios and no decay
      std::array<Complex, max_partials + 1> power;
      power[0] = {1, 0};
      power[1] = turn(angle * bend);
      for (std::size_t n = 2; n < power.size(); ++n) power[n] = power[n - 1] * power[1];
      for (std::size_t k = 0; k < count; ++k) steps_[k].set(power[static_cast<std::size_t>(timbre.partials[k].ratio)]);
    };

    const std::int64_t total = sounding_length(tone, timbre, sr_);
    const std::int64_t held = total - static_cast<std::int64_t>(std::ceil(timbre.release * sr_));
    const auto envelope = [&](double attack, std::int64_t n) {
      const double seconds = static_cast<double>(n) / sr_, end = static_cast<double>(held) / sr_;
      return rise(std::min(seconds, end) / attack) * (1 - rise((seconds - end) / timbre.release));
    };

    double plain_now = envelope(timbre.attack, 0), bright_now = envelope(timbre.bright_attack, 0);
    for (std::int64_t at = 0; at < total && tone.start + at < length_; at += block_size) {
      if (timbre.vibrato_cents != 0) {
        const double seconds = (static_cast<double>(at) + 0.5 * block_size) / sr_;
        const double depth = timbre.vibrato_cents * rise(seconds / timbre.vibrato_delay);
        bend_all(std::exp2(depth / 1200 * std::sin(2 * pi * (timbre.vibrato_rate * seconds + vibrato_phase))));
      }
      alignas(32) float plain[block_size] = {}, bright[block_size] = {};
      std::size_t active = 0;
      for (std::size_t k = 0; k < count; ++k) {
        const double level = std::abs(state_[k].re) + std::abs(state_[k].im);  // at least the magnitude
        if (level > inaudible) {
          add_(steps_[k], state_[k], timbre.partials[k].bright ? bright : plain);
          ++active;
        }
        state_[k] = state_[k] * steps_[k].block;
      }
      const double plain_next = envelope(timbre.attack, at + block_size);
      const double bright_next = envelope(timbre.bright_attack, at + block_size);
      const int size = static_cast<int>(std::min({std::int64_t{block_size}, total - at, length_ - tone.start - at}));
      float* left = left_ + tone.start + at;
      float* right = right_ + tone.start + at;
      const auto plain_begin = static_cast<float>(plain_now), bright_begin = static_cast<float>(bright_now);
      const auto plain_slope = static_cast<float>((plain_next - plain_now) / block_size);
      const auto bright_slope = static_cast<float>((bright_next - bright_now) / block_size);
      for (int n = 0; n < size; ++n) {
        const float x = plain[n] * (plain_begin + plain_slope * static_cast<float>(n)) +
                        bright[n] * (bright_begin + bright_slope * static_cast<float>(n));
        left[n] += gains.left * x;
        right[n] += gains.right * x;
      }
      plain_now = plain_next;
      bright_now = bright_next;
      worked(static_cast<std::int64_t>(active + 2) * block_size);
    }
  }

  void drum(const Tone& tone, std::uint32_t index) {
    const Drum drum = drum_of(tone.key);
    const Gains gains = panned(tone.gain * std::pow(tone.velocity, 1.4), tone.pan);
    const std::int64_t total = std::min(drum_length(drum, sr_), length_ - tone.start);
    const double tone_damping = std::exp(-drum.tone_decay / sr_), noise_damping = std::exp(-drum.noise_decay / sr_);
    const double sweep_damping = std::exp(-drum.sweep / sr_);
    double tone_level = drum.tone, noise_level = drum.noise, above = drum.high - drum.low, phase = 0;
    std::uint32_t random = index * 2654435761u + 88172645u;
    float before[2] = {0, 0};
    for (std::int64_t n = 0; n < total; ++n) {
      random ^= random << 13;
      random ^= random >> 17;
      random ^= random << 5;
      float noise = static_cast<float>(static_cast<std::int32_t>(random)) * 4.6566129e-10f;
      for (int d = 0; d < drum.differences; ++d) {
        const float high = 0.5f * (noise - before[d]);
        before[d] = noise;
        noise = high;
      }
      // A tone too high for this sample rate is left out.
      const double frequency = drum.low + above;
      double x = noise * noise_level;
      if (tone_level > 1e-6 && frequency < 0.5 * sr_) x += std::sin(phase) * tone_level;
      x *= std::min(1.0, static_cast<double>(n + 1) / (0.001 * sr_));
      left_[tone.start + n] += gains.left * static_cast<float>(x);
      right_[tone.start + n] += gains.right * static_cast<float>(x);
      phase += 2 * pi * frequency / sr_;
      above *= sweep_damping;
      tone_level *= tone_damping;
      noise_level *= noise_damping;
    }
    worked(total * 4);
  }

  void worked(std::int64_t amount) {
    work_ += amount;
    if (work_ < work_per_poll) return;
    work_ = 0;
    poll_();
  }

  const double sr_;
  const std::int64_t length_;
  float *left_, *right_;
  const std::function<void()>& poll_;
  const AddPartial add_ = add_partial_for(isa_in_use());
  std::int64_t work_ = 0;
  std::array<Complex, max_partials> state_;
  std::array<Steps, max_partials> steps_;
};

// Four delay lines fed back through a Householder matrix (energy is kept, then each line loses its share), with a
// gentle loss of treble.
void add_room(double sr, double level, float* left, float* right, std::int64_t length,
              const std::function<void()>& poll) {
  constexpr double seconds[4] = {0.0297, 0.0371, 0.0411, 0.0437};
  std::array<std::vector<float>, 4> lines;
  std::array<std::size_t, 4> at{};
  std::array<float, 4> gain, treble{};
  for (std::size_t i = 0; i < 4; ++i) {
    lines[i].assign(static_cast<std::size_t>(std::max(1.0, std::round(seconds[i] * sr))), 0.0f);
    gain[i] = static_cast<float>(std::pow(10.0, -3.0 * static_cast<double>(lines[i].size()) / sr / room_seconds));
  }
  const auto keep = static_cast<float>(std::exp(-2 * pi * 4500 / sr));  // a one-pole low-pass at 4.5 kHz
  const auto wet = static_cast<float>(level);
  for (std::int64_t n = 0; n < length; ++n) {
    if ((n & 0xFFFFF) == 0xFFFFF) poll();
    std::array<float, 4> out;
    float sum = 0;
    for (std::size_t i = 0; i < 4; ++i) {
      const float x = lines[i][at[i]];
      treble[i] = x + keep * (treble[i] - x);
      out[i] = treble[i] * gain[i];
      sum += out[i];
    }
    const float half = 0.5f * sum;
    const float in[2] = {left[n], right[n]};
    for (std::size_t i = 0; i < 4; ++i) {
      lines[i][at[i]] = in[i & 1] + out[i] - half + 1e-20f;  // never so small that arithmetic becomes slow
      if (++at[i] == lines[i].size()) at[i] = 0;
    }
    left[n] += wet * (out[0] + out[2]);
    right[n] += wet * (out[1] + out[3]);
  }
}

}  // namespace

std::int64_t length_of(const Tone* tones, std::size_t num_tones, double sr) {
  std::int64_t end = 0;
  for (std::size_t i = 0; i < num_tones; ++i) {
    const Tone& tone = tones[i];
    const std::int64_t length =
        tone.program == drum_program
            ? drum_length(drum_of(tone.key), sr)
            : sounding_length(tone, timbre_of(tone.program, tone.frequency, tone.velocity, sr), sr);
    end = std::max(end, tone.start + length);
  }
  return end == 0 ? 0 : end + static_cast<std::int64_t>(room_seconds * sr);
}

void synthesize(const Tone* tones, std::size_t num_tones, double sr, double room, float* left, float* right,
                const std::function<void()>& poll) {
  const std::int64_t length = length_of(tones, num_tones, sr);
  std::memset(left, 0, static_cast<std::size_t>(length) * sizeof(float));
  std::memset(right, 0, static_cast<std::size_t>(length) * sizeof(float));
  Renderer renderer(sr, length, left, right, poll);
  for (std::size_t i = 0; i < num_tones; ++i) renderer.render(tones[i], static_cast<std::uint32_t>(i));
  if (room > 0) add_room(sr, room, left, right, length, poll);
  float peak = 0;
  for (std::int64_t n = 0; n < length; ++n) peak = std::max({peak, std::abs(left[n]), std::abs(right[n])});
  if (peak == 0) return;
  const auto scale = static_cast<float>(ceiling / peak);
  for (std::int64_t n = 0; n < length; ++n) {
    left[n] *= scale;
    right[n] *= scale;
  }
}

}  // namespace musicgen::audio
