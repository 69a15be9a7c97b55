// voices: scores to grids of voices, grids to tokens, and back.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/midi_arrays.h"
#include "bindings/signals.h"
#include "bindings/tokens.h"
#include "midi/encoder.h"
#include "midi/smf.h"
#include "midi/voices.h"

using namespace pybind11::literals;
using namespace musicgen;

namespace {

using Bools = py::array_t<bool, py::array::c_style>;

py::tuple arrays_of(midi::Grid& grid) {
  const std::array<py::ssize_t, 2> shape{static_cast<py::ssize_t>(grid.frames()), grid.width};
  return py::make_tuple(array_of(grid.pitch, plain<std::int32_t>()).reshape(shape),
                        array_of(grid.onset, plain<bool>()).reshape(shape), array_of(grid.fermata, plain<bool>()),
                        grid.ended);
}

const std::uint8_t* bytes_or_null(const std::optional<Bools>& array, py::ssize_t size, const char* name) {
  if (!array) return nullptr;
  if (array->size() != size) {
    throw std::invalid_argument(std::string(name) + ": expected " + std::to_string(size) + " values, got " +
                                std::to_string(array->size()));
  }
  return reinterpret_cast<const std::uint8_t*>(array->data());
}

py::array voice_tokens(const midi::VoiceGrid& grid, const Tokens& pitch, const std::optional<Bools>& onset,
                       const std::optional<Bools>& fermata, bool end) {
  const auto voices = static_cast<py::ssize_t>(grid.voices().size());
  if (pitch.ndim() != 2 || pitch.shape(1) != voices) {
    throw std::invalid_argument("pitch: expected shape (T, " + std::to_string(voices) + "), got another");
  }
  const std::int32_t* pitches = pitch.data();
  const std::uint8_t* onsets = bytes_or_null(onset, pitch.size(), "onset");
  const std::uint8_t* fermatas = bytes_or_null(fermata, pitch.shape(0), "fermata");
  const auto frames = static_cast<std::size_t>(pitch.shape(0));
  Buffer<std::int32_t> made;
  without_lock([&] { made = grid.tokens_of(pitches, onsets, fermatas, frames, end); });
  return array_of(made, plain<std::int32_t>()).reshape({py::ssize_t{-1}, py::ssize_t{grid.width()}});
}

py::tuple voice_grid(const midi::VoiceGrid& encoder, const Tokens& tokens) {
  const std::int32_t* values = tokens.data();
  const std::size_t rows = count_rows(tokens, encoder.width());
  midi::Grid grid;
  without_lock([&] { grid = encoder.grid_of(values, rows); });
  return arrays_of(grid);
}

py::tuple voice_decode(const midi::VoiceGrid& encoder, const Tokens& tokens, int numerator, int denominator, int pickup,
                       int microseconds_per_quarter, const std::optional<std::array<int, 2>>& key, int transpose) {
  const std::int32_t* values = tokens.data();
  const std::size_t rows = count_rows(tokens, encoder.width());
  const midi::Notation notation{numerator, denominator, pickup, microseconds_per_quarter, key, transpose};
  midi::Song song;
  without_lock([&] { song = encoder.decode(values, rows, notation); });
  return tables_of(song);
}

// (pitch, onset, fermata, first step, issues), or the problem: (words, tick or None).
py::tuple find_voices(const midi::VoiceGrid& encoder, bool melody, int format, std::uint16_t division,
                      const py::array& notes, const py::array& events, const py::array& payload,
                      const py::array& payload_ends, const py::array& track_ends) {
  const midi::SongView song = view_of(format, division, notes, events, payload, payload_ends, track_ends);
  midi::FoundVoices found;
  without_lock([&] {
    midi::check_song(song);
    found = midi::find_voices(song, encoder.voices(), melody, poll_signals);
  });
  if (!found.problem.empty()) {
    return py::make_tuple(found.problem,
                          found.problem_tick < 0 ? py::object(py::none()) : py::int_(found.problem_tick));
  }
  const py::tuple grid = arrays_of(found.grid);
  return py::make_tuple(grid[0], grid[1], grid[2], found.first_step, found.issues);
}

}  // namespace

void register_voices(py::module_& m) {
  py::class_<midi::VoiceGrid, midi::Encoder>(m, "VoiceGrid")
      .def(py::init([](const std::vector<std::tuple<std::string, std::vector<std::string>, int, int>>& voices,
                       bool hold, int lowest_pitch, int num_pitches, int microseconds_per_quarter, int program) {
             std::vector<midi::Voice> made;
             for (const auto& [name, aliases, low, high] : voices) made.push_back({name, aliases, low, high});
             return std::make_unique<midi::VoiceGrid>(std::move(made), hold, lowest_pitch, num_pitches,
                                                      microseconds_per_quarter, program);
           }),
           "voices"_a, "hold"_a, "lowest_pitch"_a, "num_pitches"_a, "microseconds_per_quarter"_a, "program"_a)
      .def("tokens", &voice_tokens, py::arg("pitch").noconvert(), py::arg("onset").noconvert(),
           py::arg("fermata").noconvert(), "end"_a)
      .def(
          "check",
          [](const midi::VoiceGrid& encoder, const Tokens& tokens) {
            encoder.check_tokens(tokens.data(), count_rows(tokens, encoder.width()));
          },
          py::arg("tokens").noconvert())
      .def("grid", &voice_grid, py::arg("tokens").noconvert())
      .def("decode_as", &voice_decode, py::arg("tokens").noconvert(), "numerator"_a, "denominator"_a, "pickup"_a,
           "microseconds_per_quarter"_a, "key"_a, "transpose"_a)
      .def("find", &find_voices, "melody"_a, "format"_a, "division"_a, py::arg("notes").noconvert(),
           py::arg("events").noconvert(), py::arg("payload").noconvert(), py::arg("payload_ends").noconvert(),
           py::arg("track_ends").noconvert());
}
