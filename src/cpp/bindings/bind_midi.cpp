// midi: bytes to numpy columns and back.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "bindings/midi_arrays.h"
#include "bindings/signals.h"
#include "midi/smf.h"

using namespace pybind11::literals;
using namespace musicgen;

namespace {

py::tuple parse_midi(const py::bytes& data, bool strict) {
  const std::string_view bytes = data;
  midi::Song song;
  without_lock([&] {
    song = midi::parse(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size(), strict, poll_signals);
  });
  py::list issues, chunks;
  for (const midi::Issue& issue : song.issues) {
    issues.append(py::make_tuple(midi::message_of(issue), issue.offset, issue.track));
  }
  for (const midi::Chunk& chunk : song.chunks) {
    chunks.append(py::make_tuple(chunk.before_track, py::bytes(chunk.id),
                                 py::bytes(reinterpret_cast<const char*>(chunk.data), chunk.size)));
  }
  return py::make_tuple(tables_of(song), chunks, issues, song.unlisted_issues);
}

py::bytes write_midi(int format, std::uint16_t division, const py::array& notes, const py::array& events,
                     const py::array& payload, const py::array& payload_ends, const py::array& track_ends,
                     const std::vector<std::tuple<std::int32_t, py::bytes, py::bytes>>& chunks) {
  midi::SongView song = view_of(format, division, notes, events, payload, payload_ends, track_ends);
  for (const auto& [before_track, id, data] : chunks) {
    const std::string_view bytes = data;
    if (std::string_view(id).size() != 4) {
      throw std::invalid_argument("chunks: expected an id of 4 bytes, got " + std::string(id));
    }
    song.chunks.push_back({before_track, id, reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()});
  }
  Buffer<std::uint8_t> file;
  without_lock([&] { file = midi::write(song, poll_signals); });
  return py::bytes(reinterpret_cast<const char*>(file.data()), file.size());
}

}  // namespace

void register_midi(py::module_& m) {
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const MidiError& error) {
      const py::object type = py::module_::import("musicgen_ext.errors").attr("MidiError");
      const py::object raised = type(error.what(), "offset"_a = error.offset,
                                     "track"_a = error.track < 0 ? py::object(py::none()) : py::int_(error.track));
      PyErr_SetObject(type.ptr(), raised.ptr());
    }
  });

  m.attr("note_dtype") = note_dtype();
  m.attr("event_dtype") = event_dtype();
  m.def("midi_parse", &parse_midi, "data"_a, "strict"_a);
  m.def("midi_write", &write_midi, "format"_a, "division"_a, py::arg("notes").noconvert(),
        py::arg("events").noconvert(), py::arg("payload").noconvert(), py::arg("payload_ends").noconvert(),
        py::arg("track_ends").noconvert(), "chunks"_a);
  m.def(
      "midi_check_notes",
      [](const py::array& notes) {
        const auto* rows = rows_of<midi::Note>(notes, note_dtype(), "notes");
        const auto size = static_cast<std::size_t>(notes.size());
        without_lock([&] { midi::check_notes(rows, size); });
      },
      py::arg("notes").noconvert());
}
