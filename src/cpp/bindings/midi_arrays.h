// The tables of a song as numpy arrays, without a copy in either direction.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdlib>
#include <string>

#include "base/buffer.h"
#include "midi/song.h"

namespace musicgen {

namespace py = pybind11;

struct Field {
  const char* name;
  const char* format;
  std::size_t offset;
};

inline py::dtype record(std::initializer_list<Field> fields, std::size_t size) {
  py::list names, formats, offsets;
  for (const Field& field : fields) {
    names.append(field.name);
    formats.append(field.format);
    offsets.append(field.offset);
  }
  return py::dtype(names, formats, offsets, static_cast<py::ssize_t>(size));
}

inline const py::dtype& note_dtype() {
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

inline const py::dtype& event_dtype() {
  static const auto* dtype = new py::dtype(record({{"time", "=i8", offsetof(midi::Event, time)},
                                                   {"track", "=i4", offsetof(midi::Event, track)},
                                                   {"status", "u1", offsetof(midi::Event, status)},
                                                   {"data1", "u1", offsetof(midi::Event, data1)},
                                                   {"data2", "u1", offsetof(midi::Event, data2)},
                                                   {"place", "u1", offsetof(midi::Event, place)}},
                                                  sizeof(midi::Event)));
  return *dtype;
}

// The buffer's block as an array that owns it.
template <typename T>
py::array array_of(Buffer<T>& buffer, const py::dtype& dtype) {
  const auto size = static_cast<py::ssize_t>(buffer.size());
  const Block block = buffer.release();
  const auto owner = py::reinterpret_steal<py::object>(PyCapsule_New(block.data, nullptr, [](PyObject* capsule) {
    give_block({PyCapsule_GetPointer(capsule, nullptr), reinterpret_cast<std::size_t>(PyCapsule_GetContext(capsule))});
  }));
  if (!owner) {
    give_block(block);
    throw py::error_already_set();
  }
  PyCapsule_SetContext(owner.ptr(), reinterpret_cast<void*>(block.bytes));
  return py::array(dtype, {size}, {static_cast<py::ssize_t>(sizeof(T))}, block.data, owner);
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

// (format, division, notes, events, payload, payload_ends, track_ends): what a Score is made of. Empties the song.
inline py::tuple tables_of(midi::Song& song) {
  return py::make_tuple(song.format, song.division, array_of(song.notes, note_dtype()),
                        array_of(song.events, event_dtype()), array_of(song.payload, plain<std::uint8_t>()),
                        array_of(song.payload_ends, plain<std::int64_t>()),
                        array_of(song.track_ends, plain<std::int64_t>()));
}

// The arrays must outlive the view.
inline midi::SongView view_of(int format, std::uint16_t division, const py::array& notes, const py::array& events,
                              const py::array& payload, const py::array& payload_ends, const py::array& track_ends) {
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
  return song;
}

}  // namespace musicgen
