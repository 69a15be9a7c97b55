// encodings: songs to whole numbers and back.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstddef>
#include <cstdint>

#include "bindings/midi_arrays.h"
#include "bindings/signals.h"
#include "midi/encoder.h"
#include "midi/smf.h"
#include "midi/tempo.h"

using namespace pybind11::literals;
using namespace musicgen;

namespace {

using Tokens = py::array_t<std::int32_t, py::array::c_style>;

// Rows of tokens, shape (n,) where a row is one token, else (n, width).
py::array tokens_of(midi::Encoded& encoded, int width) {
  py::array flat = array_of(encoded.tokens, plain<std::int32_t>());
  return width == 1 ? flat : flat.reshape({py::ssize_t{-1}, py::ssize_t{width}});
}

py::tuple encode(const midi::Encoder& encoder, int format, std::uint16_t division, const py::array& notes,
                 const py::array& events, const py::array& payload, const py::array& payload_ends,
                 const py::array& track_ends) {
  const midi::SongView song = view_of(format, division, notes, events, payload, payload_ends, track_ends);
  midi::Encoded encoded;
  without_lock([&] {
    midi::check_song(song);
    encoded = encoder.encode(song, poll_signals);
  });
  return py::make_tuple(tokens_of(encoded, encoder.width()), encoded.issues);
}

py::tuple decode(const midi::Encoder& encoder, const Tokens& tokens) {
  const py::ssize_t width = encoder.width();
  if (tokens.ndim() != (width == 1 ? 1 : 2) || (width > 1 && tokens.shape(1) != width)) {
    throw std::invalid_argument("tokens: expected shape " +
                                (width == 1 ? std::string("(n,)") : "(n, " + std::to_string(width) + ")") +
                                ", got one of " + std::to_string(tokens.ndim()) + " dimensions and " +
                                std::to_string(tokens.size()) + " values");
  }
  midi::Song song;
  const std::int32_t* values = tokens.data();
  const auto rows = static_cast<std::size_t>(tokens.shape(0));
  without_lock([&] { song = encoder.decode(values, rows, poll_signals); });
  return tables_of(song);
}

// Times in seconds of ticks of one track.
py::array_t<double> seconds_of(int format, std::uint16_t division, const py::array& notes, const py::array& events,
                               const py::array& payload, const py::array& payload_ends, const py::array& track_ends,
                               const py::array& ticks, std::int32_t track, bool as_pretty_midi) {
  const midi::SongView song = view_of(format, division, notes, events, payload, payload_ends, track_ends);
  const auto* times = rows_of<std::int64_t>(ticks, plain<std::int64_t>(), "ticks");
  py::array_t<double> result(ticks.size());
  double* out = result.mutable_data();
  const auto size = static_cast<std::size_t>(ticks.size());
  without_lock([&] {
    midi::check_song(song);
    const midi::TempoMap map(song, as_pretty_midi ? midi::Seconds::pretty_midi : midi::Seconds::exact);
    midi::TempoMap::Cursor cursor(map, track);
    for (std::size_t i = 0; i < size; ++i) out[i] = cursor.seconds(times[i]);
  });
  return result;
}

double duration_of(int format, std::uint16_t division, const py::array& notes, const py::array& events,
                   const py::array& payload, const py::array& payload_ends, const py::array& track_ends) {
  const midi::SongView song = view_of(format, division, notes, events, payload, payload_ends, track_ends);
  midi::check_song(song);
  return midi::duration_of(song);
}

}  // namespace

void register_encodings(py::module_& m) {
  m.def("midi_seconds", &seconds_of, "format"_a, "division"_a, py::arg("notes").noconvert(),
        py::arg("events").noconvert(), py::arg("payload").noconvert(), py::arg("payload_ends").noconvert(),
        py::arg("track_ends").noconvert(), py::arg("ticks").noconvert(), "track"_a, "as_pretty_midi"_a);
  m.def("midi_duration", &duration_of, "format"_a, "division"_a, py::arg("notes").noconvert(),
        py::arg("events").noconvert(), py::arg("payload").noconvert(), py::arg("payload_ends").noconvert(),
        py::arg("track_ends").noconvert());
  py::class_<midi::Encoder>(m, "Encoder")
      .def_property_readonly("width", &midi::Encoder::width)
      .def("encode", &encode, "format"_a, "division"_a, py::arg("notes").noconvert(), py::arg("events").noconvert(),
           py::arg("payload").noconvert(), py::arg("payload_ends").noconvert(), py::arg("track_ends").noconvert())
      .def("decode", &decode, py::arg("tokens").noconvert());
}
