// encodings: songs to whole numbers and back.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <locale>
#include <memory>
#include <new>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "base/error.h"
#include "bindings/midi_arrays.h"
#include "bindings/signals.h"
#include "midi/encoder.h"
#include "midi/smf.h"
#include "midi/tempo.h"
#include "midi/voices.h"

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

std::size_t rows_of_tokens(const Tokens& tokens, py::ssize_t width) {
  if (tokens.ndim() != (width == 1 ? 1 : 2) || (width > 1 && tokens.shape(1) != width)) {
    throw std::invalid_argument("tokens: expected shape " +
                                (width == 1 ? std::string("(n,)") : "(n, " + std::to_string(width) + ")") +
                                ", got one of " + std::to_string(tokens.ndim()) + " dimensions and " +
                                std::to_string(tokens.size()) + " values");
  }
  return static_cast<std::size_t>(tokens.shape(0));
}

py::tuple decode(const midi::Encoder& encoder, const Tokens& tokens) {
  midi::Song song;
  const std::int32_t* values = tokens.data();
  const std::size_t rows = rows_of_tokens(tokens, encoder.width());
  without_lock([&] { song = encoder.decode(values, rows, poll_signals); });
  return tables_of(song);
}

// ------------------------------------------------------------------------------------------------------- many files

// Asks work in other threads to stop.
struct Cancel {
  std::atomic<bool> is_set{false};
};

struct Cancelled final : std::exception {};

thread_local const std::atomic<bool>* cancel_of_this_thread = nullptr;

void poll_cancel() {
  if (cancel_of_this_thread->load(std::memory_order_relaxed)) throw Cancelled();
  poll_signals();
}

struct Failure {
  std::size_t file;
  std::string message;
  std::int64_t offset;  // -1: at no byte in particular
  std::int32_t track;   // -1: not inside a track
};

struct EncodedFiles {
  Buffer<std::int32_t> tokens;
  Buffer<std::int64_t> rows;  // of every file, 0 for one that failed
  std::vector<Failure> failures;
  std::vector<std::pair<std::size_t, std::vector<std::string>>> issues;  // of the files that have some
};

constexpr std::size_t issues_listed = 20;  // of a file's deviations: a broken one can have thousands

std::vector<std::string> words_of(const midi::Song& song) {
  std::vector<std::string> words;
  const std::size_t listed = std::min(song.issues.size(), issues_listed);
  for (std::size_t i = 0; i < listed; ++i) words.push_back(midi::message_of(song.issues[i]));
  const auto more = static_cast<std::int64_t>(song.issues.size() - listed) + song.unlisted_issues;
  if (more > 0) words.push_back(std::to_string(more) + " more deviations are not listed");
  return words;
}

// As Python's %g, wherever it runs.
std::string shown(double number) {
  std::ostringstream text;
  text.imbue(std::locale::classic());
  text << number;
  return text.str();
}

void encode_file(const midi::Encoder& encoder, std::string_view bytes, bool strict, double max_duration,
                 std::size_t index, EncodedFiles& out) {
  const std::size_t before = out.tokens.size();
  try {
    const midi::Song song =
        midi::parse(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size(), strict, poll_cancel);
    const midi::SongView view = midi::view_of(song);
    if (const double seconds = midi::duration_of(view); seconds > max_duration) {
      throw std::invalid_argument("expected a piece of at most " + shown(max_duration) +
                                  " seconds (max_duration), got " + shown(seconds));
    }
    midi::Encoded encoded = encoder.encode(view, poll_cancel);
    std::vector<std::string> issues = words_of(song);
    issues.insert(issues.end(), encoded.issues.begin(), encoded.issues.end());
    out.tokens.append(encoded.tokens.data(), encoded.tokens.size());
    if (!issues.empty()) out.issues.emplace_back(index, std::move(issues));
  } catch (const MidiError& error) {
    out.failures.push_back({index, error.what(), error.offset, error.track});
  } catch (const std::invalid_argument& error) {
    out.failures.push_back({index, error.what(), -1, -1});
  } catch (const std::bad_alloc&) {
    out.failures.push_back(
        {index, "expected a file that fits into memory, got one of " + std::to_string(bytes.size()) + " bytes", -1,
         -1});
  }
  out.rows.push(static_cast<std::int64_t>((out.tokens.size() - before) / static_cast<std::size_t>(encoder.width())));
}

// (tokens, rows of every file, [(file, message, offset, track)], [(file, issues)]), or None if it was cancelled.
py::object encode_files(const midi::Encoder& encoder, const std::vector<py::bytes>& files, bool strict,
                        double max_duration, const Cancel& cancel) {
  std::vector<std::string_view> bytes;
  bytes.reserve(files.size());
  for (const py::bytes& file : files) bytes.push_back(file);
  EncodedFiles out;
  bool cancelled = false;
  without_lock([&] {
    cancel_of_this_thread = &cancel.is_set;
    try {
      for (std::size_t i = 0; i < bytes.size(); ++i) {
        poll_cancel();
        encode_file(encoder, bytes[i], strict, max_duration, i, out);
      }
    } catch (const Cancelled&) {
      cancelled = true;
    }
  });
  if (cancelled) return py::none();
  py::list failures;
  for (const Failure& failure : out.failures) {
    failures.append(py::make_tuple(failure.file, failure.message, failure.offset, failure.track));
  }
  midi::Encoded encoded{std::move(out.tokens), {}};
  return py::make_tuple(tokens_of(encoded, encoder.width()), array_of(out.rows, plain<std::int64_t>()), failures,
                        out.issues);
}

// ----------------------------------------------------------------------------------------------------------- voices

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
  midi::Encoded encoded;
  without_lock([&] { encoded.tokens = grid.tokens_of(pitches, onsets, fermatas, frames, end); });
  return array_of(encoded.tokens, plain<std::int32_t>()).reshape({py::ssize_t{-1}, py::ssize_t{grid.width()}});
}

py::tuple voice_grid(const midi::VoiceGrid& encoder, const Tokens& tokens) {
  const std::int32_t* values = tokens.data();
  const std::size_t rows = rows_of_tokens(tokens, encoder.width());
  midi::Grid grid;
  without_lock([&] { grid = encoder.grid_of(values, rows); });
  return arrays_of(grid);
}

py::tuple voice_decode(const midi::VoiceGrid& encoder, const Tokens& tokens, int numerator, int denominator, int pickup,
                       int microseconds_per_quarter, const std::optional<std::array<int, 2>>& key, int transpose) {
  const std::int32_t* values = tokens.data();
  const std::size_t rows = rows_of_tokens(tokens, encoder.width());
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

void register_encodings(py::module_& m) {
  py::class_<Cancel>(m, "Cancel").def(py::init<>()).def("set", [](Cancel& cancel) { cancel.is_set = true; });

  py::class_<midi::Encoder>(m, "Encoder")
      .def_property_readonly("width", &midi::Encoder::width)
      .def("encode", &encode, "format"_a, "division"_a, py::arg("notes").noconvert(), py::arg("events").noconvert(),
           py::arg("payload").noconvert(), py::arg("payload_ends").noconvert(), py::arg("track_ends").noconvert())
      .def("decode", &decode, py::arg("tokens").noconvert())
      .def("encode_files", &encode_files, "files"_a, "strict"_a, "max_duration"_a, "cancel"_a);

  py::class_<midi::VoiceGrid, midi::Encoder>(m, "VoiceGrid")
      .def(py::init([](const std::vector<std::tuple<std::string, std::vector<std::string>, int, int>>& voices,
                       bool hold, int lowest_pitch, int num_pitches, int microseconds_per_quarter) {
             std::vector<midi::Voice> made;
             for (const auto& [name, aliases, low, high] : voices) made.push_back({name, aliases, low, high});
             return std::make_unique<midi::VoiceGrid>(std::move(made), hold, lowest_pitch, num_pitches,
                                                      microseconds_per_quarter);
           }),
           "voices"_a, "hold"_a, "lowest_pitch"_a, "num_pitches"_a, "microseconds_per_quarter"_a)
      .def("tokens", &voice_tokens, py::arg("pitch").noconvert(), py::arg("onset").noconvert(),
           py::arg("fermata").noconvert(), "end"_a)
      .def(
          "check",
          [](const midi::VoiceGrid& encoder, const Tokens& tokens) {
            encoder.check_tokens(tokens.data(), rows_of_tokens(tokens, encoder.width()));
          },
          py::arg("tokens").noconvert())
      .def("grid", &voice_grid, py::arg("tokens").noconvert())
      .def("decode_as", &voice_decode, py::arg("tokens").noconvert(), "numerator"_a, "denominator"_a, "pickup"_a,
           "microseconds_per_quarter"_a, "key"_a, "transpose"_a)
      .def("find", &find_voices, "melody"_a, "format"_a, "division"_a, py::arg("notes").noconvert(),
           py::arg("events").noconvert(), py::arg("payload").noconvert(), py::arg("payload_ends").noconvert(),
           py::arg("track_ends").noconvert());
}
