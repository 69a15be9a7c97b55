// midi: bytes to numpy columns and back.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstddef>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "bindings/signals.h"
#include "midi/smf.h"

namespace py = pybind11;
using namespace pybind11::literals;
using namespace musicgen;

namespace {

struct Field {
  const char* name;
  const char* format;
  std::size_t offset;
};

py::dtype record(std::initializer_list<Field> fields, std::size_t size) {
  py::list names, formats, offsets;
  for (const Field& field : fields) {
    names.append(field.name);
    formats.append(field.format);
    offsets.append(field.offset);
  }
  return py::dtype(names, formats, offsets, static_cast<py::ssize_t>(size));
}

const py::dtype& note_dtype() {
  static const auto* dtype = new py::dtype(record({{"start", "=i8", offsetof(midi::Note, start)},
                                                   {"duration", "=i8", offsetof(midi::Note, duration)},
                                                   {"pitch", "u1", offsetof(midi::Note, pitch)},
                                                   {"velocity", "u1", offsetof(midi::Note, velocity)},
                                                   {"track", "=i4", offsetof(midi::Note, track)},
                                                   {"channel", "u1", offsetof(midi::Note, channel)},
                                                   {"release_velocity", "u1", offsetof(midi::Note, release_velocity)}},
                                                  sizeof(midi::Note)));
  return *dtype;
}

const py::dtype& event_dtype() {
  static const auto* dtype = new py::dtype(record({{"time", "=i8", offsetof(midi::Event, time)},
                                                   {"track", "=i4", offsetof(midi::Event, track)},
                                                   {"status", "u1", offsetof(midi::Event, status)},
                                                   {"data1", "u1", offsetof(midi::Event, data1)},
                                                   {"data2", "u1", offsetof(midi::Event, data2)},
                                                   {"place", "u1", offsetof(midi::Event, place)}},
                                                  sizeof(midi::Event)));
  return *dtype;
}

template <typename T>
py::array array_of(Buffer<T>& buffer, const py::dtype& dtype) {
  const auto size = static_cast<py::ssize_t>(buffer.size());
  T* data = buffer.release();
  const py::capsule owner(data, [](void* block) { std::free(block); });
  return py::array(dtype, {size}, {static_cast<py::ssize_t>(sizeof(T))}, data, owner);
}

// Rows of exactly our record layout, side by side.
template <typename T>
const T* rows_of(const py::array& array, const py::dtype& dtype, const char* name) {
  if (array.ndim() != 1 || !array.dtype().equal(dtype) || !(array.flags() & py::array::c_style)) {
    throw py::type_error(std::string(name) + ": expected a contiguous 1-D array of " +
                         std::string(py::str(py::handle(dtype))) + ", got " + std::string(py::str(array.dtype())));
  }
  return static_cast<const T*>(array.data());
}

template <typename T>
py::dtype plain() {
  return py::dtype::of<T>();
}

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
  return py::make_tuple(song.format, song.division, array_of(song.notes, note_dtype()),
                        array_of(song.events, event_dtype()), array_of(song.payload, plain<std::uint8_t>()),
                        array_of(song.payload_ends, plain<std::int64_t>()),
                        array_of(song.track_ends, plain<std::int64_t>()), chunks, issues, song.unlisted_issues);
}

py::bytes write_midi(int format, std::uint16_t division, const py::array& notes, const py::array& events,
                     const py::array& payload, const py::array& payload_ends, const py::array& track_ends,
                     const std::vector<std::tuple<std::int32_t, py::bytes, py::bytes>>& chunks) {
  midi::SongView song;
  song.format = format;
  song.division = division;
  song.notes = rows_of<midi::Note>(notes, note_dtype(), "notes");
  song.num_notes = static_cast<std::size_t>(notes.size());
  song.events = rows_of<midi::Event>(events, event_dtype(), "events");
  song.num_events = static_cast<std::size_t>(events.size());
  song.payload = rows_of<std::uint8_t>(payload, plain<std::uint8_t>(), "payload");
  song.payload_size = static_cast<std::size_t>(payload.size());
  song.payload_ends = rows_of<std::int64_t>(payload_ends, plain<std::int64_t>(), "payload_ends");
  song.num_payloads = static_cast<std::size_t>(payload_ends.size());
  song.track_ends = rows_of<std::int64_t>(track_ends, plain<std::int64_t>(), "track_ends");
  song.num_tracks = static_cast<std::size_t>(track_ends.size());
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
