// tokens: the encoders of token streams, made from their options; what they do is bound with encodings.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "midi/bars.h"
#include "midi/events.h"
#include "midi/pitches.h"

namespace py = pybind11;
using namespace pybind11::literals;
using namespace musicgen;

namespace {

using Tracks = std::optional<std::vector<std::int32_t>>;

midi::Selection selection_of(bool drums, Tracks tracks) {
  return {drums, !tracks.has_value(), std::move(tracks).value_or(std::vector<std::int32_t>())};
}

}  // namespace

void register_tokens(py::module_& m) {
  py::class_<midi::PitchEncoder, midi::Encoder>(m, "PitchEncoder", py::is_final())
      .def(py::init([](int lowest, int highest, int polyphony, bool drums, Tracks tracks, int duration, int velocity,
                       bool end) {
             return std::make_unique<midi::PitchEncoder>(midi::PitchOptions{lowest, highest, midi::Polyphony{polyphony},
                                                                            selection_of(drums, std::move(tracks)),
                                                                            duration, velocity, end});
           }),
           "lowest"_a, "highest"_a, "polyphony"_a, "drums"_a, "tracks"_a, "duration"_a, "velocity"_a, "end"_a);

  py::class_<midi::EventEncoder, midi::Encoder>(m, "EventEncoder", py::is_final())
      .def(py::init([](int steps_per_second, int steps_per_beat, int max_shift, int velocity_bins, bool drums,
                       Tracks tracks, bool sustain, int velocity, bool end) {
             return std::make_unique<midi::EventEncoder>(
                 midi::EventOptions{steps_per_second, steps_per_beat, max_shift, velocity_bins,
                                    selection_of(drums, std::move(tracks)), sustain, velocity, end});
           }),
           "steps_per_second"_a, "steps_per_beat"_a, "max_shift"_a, "velocity_bins"_a, "drums"_a, "tracks"_a,
           "sustain"_a, "velocity"_a, "end"_a);

  py::class_<midi::BarEncoder, midi::Encoder>(m, "BarEncoder", py::is_final())
      .def(py::init([](int steps_per_beat, std::vector<std::pair<int, int>> time_signatures,
                       std::vector<std::int32_t> tempos, std::vector<std::int32_t> durations, bool chords,
                       bool programs, bool drums, int velocity_bins, int velocity, bool end) {
             return std::make_unique<midi::BarEncoder>(
                 midi::BarOptions{steps_per_beat, std::move(time_signatures), std::move(tempos), std::move(durations),
                                  chords, programs, selection_of(drums, std::nullopt), velocity_bins, velocity, end});
           }),
           "steps_per_beat"_a, "time_signatures"_a, "tempos"_a, "durations"_a, "chords"_a, "programs"_a, "drums"_a,
           "velocity_bins"_a, "velocity"_a, "end"_a);
}
