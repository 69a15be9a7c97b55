// audio: notes to sound.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cmath>
#include <cstddef>
#include <string>

#include "audio/synth.h"
#include "bindings/signals.h"

namespace py = pybind11;
using namespace pybind11::literals;
using namespace musicgen;

namespace {

const py::dtype& tone_dtype() {
  static const auto* dtype = [] {
    py::list names, formats, offsets;
    const auto field = [&](const char* name, const char* format, std::size_t offset) {
      names.append(name);
      formats.append(format);
      offsets.append(offset);
    };
    field("start", "=i8", offsetof(audio::Tone, start));
    field("length", "=i8", offsetof(audio::Tone, length));
    field("frequency", "=f8", offsetof(audio::Tone, frequency));
    field("velocity", "=f4", offsetof(audio::Tone, velocity));
    field("gain", "=f4", offsetof(audio::Tone, gain));
    field("pan", "=f4", offsetof(audio::Tone, pan));
    field("program", "=i2", offsetof(audio::Tone, program));
    field("key", "=i2", offsetof(audio::Tone, key));
    return new py::dtype(names, formats, offsets, static_cast<py::ssize_t>(sizeof(audio::Tone)));
  }();
  return *dtype;
}

constexpr std::int64_t max_samples = std::int64_t{1} << 40;  // of a start or a length: keeps every sum exact

const audio::Tone* checked(const py::array& tones, double sr, double room) {
  if (tones.ndim() != 1 || !tones.dtype().equal(tone_dtype()) || !(tones.flags() & py::array::c_style)) {
    throw py::type_error("tones: expected a contiguous 1-D array of tone_dtype, got " +
                         std::string(py::str(tones.dtype())));
  }
  if (!(sr >= 1 && sr <= 1e7)) throw std::invalid_argument("sr: expected 1 to 10000000 Hz, got " + std::to_string(sr));
  if (!(room >= 0 && room <= 1)) throw std::invalid_argument("room: expected 0 to 1, got " + std::to_string(room));
  const auto* rows = static_cast<const audio::Tone*>(tones.data());
  const auto check = [](py::ssize_t i, const char* field, double value, double low, double high) {
    if (value >= low && value <= high) return;  // false for NaN
    throw std::invalid_argument("tones[" + std::to_string(i) + "]." + field + ": expected " + std::to_string(low) +
                                " to " + std::to_string(high) + ", got " + std::to_string(value));
  };
  for (py::ssize_t i = 0; i < tones.size(); ++i) {
    const audio::Tone& t = rows[i];
    check(i, "start", static_cast<double>(t.start), 0, max_samples);
    check(i, "length", static_cast<double>(t.length), 0, max_samples);
    check(i, "frequency", t.frequency, 1e-3, 1e6);
    check(i, "velocity", t.velocity, 0, 1);
    check(i, "gain", t.gain, 0, 1e6);
    check(i, "pan", t.pan, -1, 1);
    check(i, "program", t.program, 0, audio::drum_program);
  }
  return rows;
}

py::array_t<float> synthesize(const py::array& tones, double sr, double room, std::int64_t max_bytes) {
  const audio::Tone* rows = checked(tones, sr, room);
  const auto count = static_cast<std::size_t>(tones.size());
  const std::int64_t length = audio::length_of(rows, count, sr);  // below 2^42
  const std::int64_t bytes = 2 * static_cast<std::int64_t>(sizeof(float)) * length;
  if (bytes > max_bytes) {
    const std::string message = "sound: expected at most " + std::to_string(max_bytes) + " bytes (" +
                                std::to_string(max_bytes / 8) + " stereo samples), got " + std::to_string(bytes);
    PyErr_SetString(PyExc_MemoryError, message.c_str());
    throw py::error_already_set();
  }
  py::array_t<float> out({py::ssize_t{2}, static_cast<py::ssize_t>(length)});
  float* left = out.mutable_data();
  float* right = left + length;
  without_lock([&] { audio::synthesize(rows, count, sr, room, left, right, poll_signals); });
  return out;
}

py::dict timbre(int program, double frequency, double velocity, double sr) {
  const audio::Timbre t = audio::timbre_of(program, frequency, velocity, sr);
  py::list partials;
  for (const audio::Partial& p : t.partials) partials.append(py::make_tuple(p.ratio, p.amplitude, p.decay, p.bright));
  return py::dict("partials"_a = partials, "attack"_a = t.attack, "bright_attack"_a = t.bright_attack,
                  "release"_a = t.release, "vibrato_cents"_a = t.vibrato_cents, "vibrato_rate"_a = t.vibrato_rate,
                  "vibrato_delay"_a = t.vibrato_delay, "num_voices"_a = t.num_voices, "detune_cents"_a = t.detune_cents,
                  "spread"_a = t.spread);
}

}  // namespace

void register_audio(py::module_& m) {
  m.attr("tone_dtype") = tone_dtype();
  m.attr("drum_program") = int{audio::drum_program};
  m.def("synthesize", &synthesize, py::arg("tones").noconvert(), "sr"_a, "room"_a = audio::room_level,
        "max_bytes"_a = std::int64_t{8} << 30);
  m.def("synth_timbre", &timbre, "program"_a, "frequency"_a, "velocity"_a, "sr"_a);
}
