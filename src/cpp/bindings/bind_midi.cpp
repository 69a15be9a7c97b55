// midi: bytes to numpy columns and back.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <array>
#include <cstring>
#include <string>
#include <string_view>

#include "base/error.h"
#include "bindings/midi_arrays.h"
#include "bindings/signals.h"
#include "midi/smf.h"

using namespace pybind11::literals;
using namespace musicgen;

namespace {

// Unknown chunks on their way from a file that is read to one that is written, end to end: nobody in between looks at
// them, and an object for each would take many times the memory of the file.
struct ChunkHead {
  std::int32_t before_track;
  std::array<char, 4> id;
  std::uint64_t size;
};

py::bytes packed(const Buffer<midi::Chunk>& chunks) {
  std::size_t size = 0;
  for (std::size_t i = 0; i < chunks.size(); ++i) size += sizeof(ChunkHead) + chunks[i].size;
  auto bytes = py::reinterpret_steal<py::bytes>(PyBytes_FromStringAndSize(nullptr, static_cast<py::ssize_t>(size)));
  if (!bytes) throw py::error_already_set();
  char* at = PyBytes_AS_STRING(bytes.ptr());
  for (std::size_t i = 0; i < chunks.size(); ++i) {
    const ChunkHead head{chunks[i].before_track, chunks[i].id, chunks[i].size};
    std::memcpy(at, &head, sizeof head);
    if (chunks[i].size > 0) std::memcpy(at + sizeof head, chunks[i].data, chunks[i].size);
    at += sizeof head + chunks[i].size;
  }
  return bytes;
}

Buffer<midi::Chunk> unpacked(std::string_view bytes) {
  Buffer<midi::Chunk> chunks;
  while (!bytes.empty()) {
    ChunkHead head{};
    if (bytes.size() >= sizeof head) std::memcpy(&head, bytes.data(), sizeof head);
    if (bytes.size() < sizeof head || head.size > bytes.size() - sizeof head) {
      throw std::invalid_argument("chunks: expected what midi_parse gives, got " + std::to_string(bytes.size()) +
                                  " bytes that end in the middle of a chunk");
    }
    bytes.remove_prefix(sizeof head);
    chunks.push({head.before_track, head.id, reinterpret_cast<const std::uint8_t*>(bytes.data()), head.size});
    bytes.remove_prefix(head.size);
  }
  return chunks;
}

py::tuple parse_midi(const py::bytes& data, bool strict) {
  const std::string_view bytes = data;
  midi::Song song;
  without_lock([&] {
    song = midi::parse(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size(), strict, poll_signals);
  });
  py::list issues;
  for (const midi::Issue& issue : song.issues) {
    issues.append(py::make_tuple(midi::message_of(issue), issue.offset, issue.track));
  }
  const py::bytes chunks = packed(song.chunks);
  return py::make_tuple(tables_of(song), chunks, issues, song.unlisted_issues);
}

py::bytes write_midi(int format, std::uint16_t division, const py::array& notes, const py::array& events,
                     const py::array& payload, const py::array& payload_ends, const py::array& track_ends,
                     const py::bytes& chunks) {
  midi::SongView song = view_of(format, division, notes, events, payload, payload_ends, track_ends);
  const Buffer<midi::Chunk> unknown = unpacked(chunks);
  song.chunks = unknown.data();
  song.num_chunks = unknown.size();
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
