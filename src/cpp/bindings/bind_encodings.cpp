// encodings: songs to whole numbers and back.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstddef>
#include <cstdint>

#include "bindings/midi_arrays.h"
#include "bindings/signals.h"
#include "bindings/tokens.h"
#include "midi/encoder.h"
#include "midi/smf.h"

using namespace pybind11::literals;
using namespace musicgen;

namespace {

py::tuple encode(const midi::Encoder& encoder, int format, std::uint16_t division, const py::array& notes,
                 const py::array& events, const py::array& payload, const py::array& payload_ends,
                 const py::array& track_ends) {
  const midi::SongView song = view_of(format, division, notes, events, payload, payload_ends, track_ends);
  midi::Encoded encoded;
  without_lock([&] {
    midi::check_song(song);
    encoded = encoder.encode(song, poll_signals);
  });
  return py::make_tuple(rows_of_width(encoded.tokens, encoder.width()), encoded.issues);
}

py::tuple decode(const midi::Encoder& encoder, const Tokens& tokens) {
  midi::Song song;
  const std::int32_t* values = tokens.data();
  const std::size_t rows = count_rows(tokens, encoder.width());
  without_lock([&] { song = encoder.decode(values, rows, poll_signals); });
  return tables_of(song);
}

}  // namespace

void register_encodings(py::module_& m) {
  py::class_<midi::Encoder>(m, "Encoder")
      .def_property_readonly("width", &midi::Encoder::width)
      .def("encode", &encode, "format"_a, "division"_a, py::arg("notes").noconvert(), py::arg("events").noconvert(),
           py::arg("payload").noconvert(), py::arg("payload_ends").noconvert(), py::arg("track_ends").noconvert())
      .def("decode", &decode, py::arg("tokens").noconvert());
}
