// The door of the engine of frames: convert, check, release, compute, return. Nothing else lives here.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <utility>

#include "base/cpu.h"
#include "bindings/arrays.h"
#include "bindings/models.h"
#include "generate/frames.h"

namespace {

using namespace musicgen;
using namespace musicgen::generate;

// From FramesConfig.to_dict(), which has been validated in Python; the indices of channels come with it.
FramesSpec spec_of(const py::dict& config, std::vector<int> trunk_channels) {
  FramesSpec spec;
  spec.keys = py::cast<int>(config["keys"]);
  if (spec.keys < 1 || spec.keys > kMostKeys)
    throw std::invalid_argument("keys: expected 1 to " + std::to_string(kMostKeys) + ", got " +
                                std::to_string(spec.keys));
  spec.notes = choice<bool>(py::str(py::object(config["head"])), "head", {{"notes", true}, {"independent", false}});
  spec.lags = py::cast<std::vector<int>>(config["lags"]);
  spec.trunk_channels = std::move(trunk_channels);
  spec.match_window = py::cast<int>(config["match_window"]);
  spec.match_buckets = py::cast<std::vector<std::int64_t>>(config["match_buckets"]);
  spec.clocks = py::cast<std::vector<int>>(config["clocks"]);
  spec.cell = choice<Cell>(
      py::str(py::object(config["cell"])), "cell",
      {{"lstm", Cell::lstm}, {"gru", Cell::gru}, {"rnn_tanh", Cell::rnn_tanh}, {"rnn_relu", Cell::rnn_relu}});
  spec.hidden_size = py::cast<int>(config["hidden_size"]);
  spec.num_layers = py::cast<int>(config["num_layers"]);
  spec.filters = py::cast<int>(config["filters"]);
  spec.reach = py::cast<int>(config["reach"]);
  return spec;
}

// A batch of states. Immutable from Python: a call returns new ones.
struct FramesStates {
  std::vector<FramesState> sequences;
};

bool fits(const FramesState& start, const FramesState& state) {
  return state.h.size() == start.h.size() && state.c.size() == start.c.size() &&
         state.bits.size() == start.bits.size() && state.match.size() == start.match.size() && state.frame >= 0;
}

py::tuple pickle_states(const FramesStates& states) {
  py::list sequences;
  for (const FramesState& s : states.sequences)
    sequences.append(
        py::make_tuple(array_copy(s.h), array_copy(s.c), s.frame, array_copy(s.bits), array_copy(s.match)));
  return py::make_tuple(sequences);
}

FramesStates unpickle_states(const py::tuple& pickled) {
  FramesStates states;
  for (const py::handle entry : py::cast<py::list>(pickled[0])) {
    const auto t = py::cast<py::tuple>(entry);
    states.sequences.push_back({py::cast<std::vector<float>>(t[0]), py::cast<std::vector<float>>(t[1]),
                                py::cast<std::int64_t>(t[2]), py::cast<std::vector<std::uint64_t>>(t[3]),
                                py::cast<std::vector<std::int32_t>>(t[4])});
  }
  return states;
}

py::tuple sample(const FramesModel& model, const FramesStates& before, std::int64_t n_frames, const py::object& coins,
                 const py::object& forced, const SamplerOptions& options, int threads, bool log_probs, bool logits) {
  const auto batch = static_cast<py::ssize_t>(before.sequences.size());
  const auto n = static_cast<py::ssize_t>(n_frames), keys = static_cast<py::ssize_t>(model.spec().keys);
  if (n_frames < 0) throw std::invalid_argument("n_frames: expected at least 0, got " + std::to_string(n_frames));
  const FramesState start = start_of(model);
  for (const FramesState& state : before.sequences)
    if (!fits(start, state)) throw std::invalid_argument("state: expected one of this model, got one of another shape");

  FramesRequest request;
  request.n_frames = n_frames;
  request.options = options;
  const auto coin_array = array_of<double>(coins, "coins", {batch, n, keys});
  request.coins = coin_array.data();
  for (py::ssize_t i = 0; i < coin_array.size(); ++i)
    if (!(request.coins[i] >= 0.0 && request.coins[i] < 1.0))
      throw std::invalid_argument("coins: expected values in [0, 1)");
  std::optional<py::array_t<std::int8_t>> forced_array;
  if (!forced.is_none()) {
    forced_array = array_of<std::int8_t>(forced, "forced", {batch, n, keys});
    check_range(*forced_array, "forced", -1, 1);
    request.forced = forced_array->data();
  }

  py::array_t<std::uint8_t> frames({batch, n, keys});
  request.frames = frames.mutable_data();
  py::object log_prob_out = py::none(), logit_out = py::none();
  if (log_probs) {
    py::array_t<double> out({batch, n});
    request.log_probs = out.mutable_data();
    log_prob_out = std::move(out);
  }
  if (logits) {
    py::array_t<float> out({batch, n, keys});
    request.logits = out.mutable_data();
    logit_out = std::move(out);
  }

  FramesStates after = before;
  const Isa isa = isa_in_use();
  Signals signals;
  without_lock([&] {
    if (!frames_sample(model, after.sequences, request, threads, isa, signals)) throw Interrupted();
  });
  return py::make_tuple(frames, log_prob_out, logit_out, std::move(after));
}

}  // namespace

void register_frames(py::module_& m) {
  py::class_<FramesStates>(m, "FramesStates")
      .def("__len__", [](const FramesStates& s) { return s.sequences.size(); })
      .def_property_readonly("frame",
                             [](const FramesStates& s) { return s.sequences.empty() ? 0 : s.sequences.front().frame; })
      .def(py::pickle(&pickle_states, &unpickle_states));

  py::class_<FramesModel>(m, "FramesModel")
      .def(py::init([](const py::dict& config, std::vector<int> trunk_channels, const py::dict& tensors,
                       const std::string& precision) {
             const Precision p = precision_of(precision);
             FramesSpec spec = spec_of(config, std::move(trunk_channels));
             const Tensors views = tensors_of(tensors);
             std::unique_ptr<FramesModel> model;
             without_lock([&] { model = std::make_unique<FramesModel>(std::move(spec), views, p); });
             return model;
           }),
           py::arg("config"), py::arg("trunk_channels"), py::arg("tensors"), py::arg("precision"))
      .def_property_readonly("packed_bytes", &FramesModel::packed_bytes)
      .def_property_readonly("macs_per_frame", &FramesModel::macs_per_frame)
      .def(
          "start",
          [](const FramesModel& model, py::ssize_t batch) {
            if (batch < 1) throw std::invalid_argument("batch: expected at least 1, got " + std::to_string(batch));
            return FramesStates{std::vector<FramesState>(static_cast<std::size_t>(batch), start_of(model))};
          },
          py::arg("batch"));

  m.def("frames_sample", &sample, py::arg("model"), py::arg("state"), py::arg("n_frames"), py::arg("coins"),
        py::arg("forced"), py::arg("options"), py::arg("threads"), py::arg("log_probs"), py::arg("logits"));
}
