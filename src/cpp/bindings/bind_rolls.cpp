// rolls: songs to piano rolls; ticks to seconds.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "bindings/midi_arrays.h"
#include "bindings/signals.h"
#include "midi/ensemble.h"
#include "midi/roll.h"
#include "midi/smf.h"
#include "midi/tempo.h"

using namespace pybind11::literals;
using namespace musicgen;

namespace {

using midi::PartNote;
using midi::Roll;
using midi::RollOptions;
using midi::RollPart;

const py::dtype& part_note_dtype() {
  static const auto* dtype = new py::dtype(record({{"part", "=u4", offsetof(PartNote, part)},
                                                   {"begin", "=u4", offsetof(PartNote, begin)},
                                                   {"end", "=u4", offsetof(PartNote, end)},
                                                   {"velocity", "=i4", offsetof(PartNote, velocity)},
                                                   {"pitch", "u1", offsetof(PartNote, pitch)}},
                                                  sizeof(PartNote)));
  return *dtype;
}

const py::dtype& part_pedal_dtype() {
  static const auto* dtype = new py::dtype(
      record({{"frame", "=u4", offsetof(RollPart::Pedal, frame)}, {"down", "?", offsetof(RollPart::Pedal, down)}},
             sizeof(RollPart::Pedal)));
  return *dtype;
}

const py::dtype& part_bend_dtype() {
  static const auto* dtype = new py::dtype(
      record({{"frame", "=u4", offsetof(RollPart::Bend, frame)}, {"value", "=i4", offsetof(RollPart::Bend, value)}},
             sizeof(RollPart::Bend)));
  return *dtype;
}

RollOptions options_of(double fs, std::int64_t steps_per_beat, std::optional<double> pedal_threshold,
                       const std::optional<std::vector<double>>& times, bool drums, bool per_track) {
  RollOptions options;
  options.fs = fs;
  options.steps_per_beat = steps_per_beat;
  options.pedal = pedal_threshold.has_value();
  options.pedal_threshold = pedal_threshold.value_or(0.0);
  options.has_times = times.has_value();
  if (times) options.times = *times;
  options.drums = drums;
  options.per_track = per_track;
  return options;
}

// The roll of a file, and the issues found in it: (message, offset, track) and how many more there were.
py::tuple roll_of_bytes(const py::bytes& data, const RollOptions& options, bool as_written) {
  const std::string_view bytes = data;
  std::optional<Roll> roll;
  midi::Song song;
  without_lock([&] {
    const auto* first = reinterpret_cast<const std::uint8_t*>(bytes.data());
    const bool own_notes = options.steps_per_beat > 0 && as_written;
    midi::Ensemble ensemble;
    song = midi::parse(first, bytes.size(), false, poll_signals, as_written ? nullptr : &ensemble);
    const midi::SongView view = view_of(song);
    if (own_notes) {
      roll = Roll::in_steps(view, options, poll_signals);
    } else {
      if (as_written) ensemble.play(view, true, poll_signals);
      roll = Roll::of(view, ensemble, options, poll_signals);
    }
  });
  py::list issues;
  for (const midi::Issue& issue : song.issues) {
    issues.append(py::make_tuple(midi::message_of(issue), issue.offset, issue.track));
  }
  return py::make_tuple(std::move(*roll), issues, song.unlisted_issues);
}

Roll roll_of_song(int format, std::uint16_t division, const py::array& notes, const py::array& events,
                  const py::array& payload, const py::array& payload_ends, const py::array& track_ends,
                  const RollOptions& options, bool as_written) {
  const midi::SongView song = view_of(format, division, notes, events, payload, payload_ends, track_ends);
  std::optional<Roll> roll;
  without_lock([&] {
    midi::check_song(song);
    if (options.steps_per_beat > 0 && as_written) {
      roll = Roll::in_steps(song, options, poll_signals);
    } else {
      midi::Ensemble ensemble;
      ensemble.play(song, as_written, poll_signals);
      roll = Roll::of(song, ensemble, options, poll_signals);
    }
  });
  return std::move(*roll);
}

using PartColumns = std::tuple<std::int32_t, std::uint32_t, py::array, py::array>;

Roll roll_of_parts(const std::vector<PartColumns>& columns, const py::array& notes, std::size_t num_tracks,
                   const RollOptions& options) {
  std::vector<RollPart> parts;
  for (const auto& [track, width, pedals, bends] : columns) {
    const auto* pedal = rows_of<RollPart::Pedal>(pedals, part_pedal_dtype(), "pedals");
    const auto* bend = rows_of<RollPart::Bend>(bends, part_bend_dtype(), "bends");
    parts.push_back({track, width, {pedal, pedal + pedals.size()}, {bend, bend + bends.size()}});
  }
  const auto* rows = rows_of<PartNote>(notes, part_note_dtype(), "notes");
  const auto size = static_cast<std::size_t>(notes.size());
  std::optional<Roll> roll;
  without_lock([&] { roll = Roll::in_frames(parts, rows, size, num_tracks, options, poll_signals); });
  return std::move(*roll);
}

midi::Channel channel_of(const std::string& name) {
  if (name == "frame") return midi::Channel::frame;
  if (name == "onset") return midi::Channel::onset;
  if (name == "offset") return midi::Channel::offset;
  throw std::invalid_argument("channel: expected frame, onset or offset, got " + name);
}

void checked_cells(const Roll& roll, const py::array& out, std::size_t columns) {
  const std::size_t cells = roll.num_tracks() * midi::num_pitches * columns;
  if (!(out.flags() & py::array::c_style) || static_cast<std::size_t>(out.size()) != cells) {
    throw std::invalid_argument("out: expected a C-contiguous array of " + std::to_string(cells) + " values, got " +
                                std::to_string(out.size()));
  }
}

void draw(const Roll& roll, const std::string& name, bool binary, bool zeroed, py::array out) {
  checked_cells(roll, out, static_cast<std::size_t>(roll.width()));
  const midi::Channel channel = channel_of(name);
  void* const cells = out.mutable_data();
  const bool is_double = out.dtype().equal(plain<double>()), is_float = out.dtype().equal(plain<float>());
  const bool is_byte = out.dtype().equal(plain<std::uint8_t>()) || (binary && out.dtype().equal(plain<bool>()));
  if (!is_double && !is_float && !is_byte) {
    throw py::type_error("out: expected float64, float32 or uint8, got " + std::string(py::str(out.dtype())));
  }
  without_lock([&] {
    if (is_double) {
      roll.draw(channel, binary, zeroed, static_cast<double*>(cells), poll_signals);
    } else if (is_float) {
      roll.draw(channel, binary, zeroed, static_cast<float*>(cells), poll_signals);
    } else {
      roll.draw(channel, binary, zeroed, static_cast<std::uint8_t*>(cells), poll_signals);
    }
  });
}

void draw_bits(const Roll& roll, const std::string& name, bool zeroed, py::array out) {
  checked_cells(roll, out, (static_cast<std::size_t>(roll.width()) + 7) / 8);
  if (!out.dtype().equal(plain<std::uint8_t>())) {
    throw py::type_error("out: expected uint8, got " + std::string(py::str(out.dtype())));
  }
  const midi::Channel channel = channel_of(name);
  auto* const bytes = static_cast<std::uint8_t*>(out.mutable_data());
  without_lock([&] { roll.draw_bits(channel, zeroed, bytes, poll_signals); });
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

void register_rolls(py::module_& m) {
  m.attr("part_note_dtype") = part_note_dtype();
  m.attr("part_pedal_dtype") = part_pedal_dtype();
  m.attr("part_bend_dtype") = part_bend_dtype();
  m.attr("roll_max_width") = Roll::max_width;

  py::class_<RollOptions>(m, "RollOptions", py::is_final())
      .def(py::init(&options_of), "fs"_a, "steps_per_beat"_a, "pedal_threshold"_a, "times"_a, "drums"_a, "per_track"_a);
  py::class_<Roll>(m, "Roll", py::is_final())
      .def_static("of_bytes", &roll_of_bytes, "data"_a, "options"_a, "as_written"_a)
      .def_static("of_song", &roll_of_song, "format"_a, "division"_a, py::arg("notes").noconvert(),
                  py::arg("events").noconvert(), py::arg("payload").noconvert(), py::arg("payload_ends").noconvert(),
                  py::arg("track_ends").noconvert(), "options"_a, "as_written"_a)
      .def_static("of_parts", &roll_of_parts, "parts"_a, py::arg("notes").noconvert(), "num_tracks"_a, "options"_a)
      .def_property_readonly("width", &Roll::width)
      .def_property_readonly("num_tracks", &Roll::num_tracks)
      .def("draw", &draw, "channel"_a, "binary"_a, "zeroed"_a, py::arg("out").noconvert())
      .def("draw_bits", &draw_bits, "channel"_a, "zeroed"_a, py::arg("out").noconvert());

  m.def("midi_seconds", &seconds_of, "format"_a, "division"_a, py::arg("notes").noconvert(),
        py::arg("events").noconvert(), py::arg("payload").noconvert(), py::arg("payload_ends").noconvert(),
        py::arg("track_ends").noconvert(), py::arg("ticks").noconvert(), "track"_a, "as_pretty_midi"_a);
  m.def("midi_duration", &duration_of, "format"_a, "division"_a, py::arg("notes").noconvert(),
        py::arg("events").noconvert(), py::arg("payload").noconvert(), py::arg("payload_ends").noconvert(),
        py::arg("track_ends").noconvert());
}
