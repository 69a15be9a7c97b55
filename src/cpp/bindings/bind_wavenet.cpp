// The door of the WaveNet engine: convert, check, release, compute, return. Nothing else lives here.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <utility>

#include "base/cpu.h"
#include "bindings/arrays.h"
#include "bindings/models.h"
#include "generate/logistics.h"
#include "generate/wavenet.h"

namespace {

using namespace musicgen;
using namespace musicgen::generate;

// From WaveNetConfig.to_dict(), which has been validated in Python.
WaveNetSpec spec_of(const py::dict& config) {
  WaveNetSpec spec;
  spec.residual_channels = py::cast<int>(config["residual_channels"]);
  spec.skip_channels = py::cast<int>(config["skip_channels"]);
  spec.hidden_channels = py::cast<int>(config["hidden_channels"]);
  spec.kernel_size = py::cast<int>(config["kernel_size"]);
  spec.dilations = py::cast<std::vector<int>>(config["dilations"]);
  const py::object output = config["output"];
  const bool mu_law =
      choice<bool>(py::str(py::object(output["kind"])), "output kind", {{"mu_law", true}, {"logistics", false}});
  (mu_law ? spec.classes : spec.mixtures) = py::cast<int>(output[mu_law ? "classes" : "mixtures"]);
  const py::object condition = config["condition"];
  if (!condition.is_none()) {
    spec.condition_channels = py::cast<int>(condition["channels"]);
    spec.condition_width = py::cast<int>(condition["width"]);
    spec.condition_kernel_size = py::cast<int>(condition["kernel_size"]);
    spec.hop_length = py::cast<int>(condition["hop_length"]);
  }
  return spec;
}

int classes_of(const WaveNetSpec& spec) { return spec.classes > 0 ? spec.classes : logistics::kClasses; }

// A batch of states. Immutable from Python: a call returns new ones.
struct WaveNetStates {
  std::vector<WaveNetState> sequences;
};

bool fits(const WaveNetModel& model, const WaveNetState& state) {
  const bool int8 = model.precision() == Precision::int8;
  const std::size_t rows = model.ring_rows();
  return state.rings.size() == rows * to_size(model.channels()) * (int8 ? 1 : sizeof(float)) &&
         state.scales.size() == (int8 ? rows : 0) && state.time >= 0 && state.last >= -1 &&
         state.last < classes_of(model.spec());
}

py::tuple pickle_states(const WaveNetStates& states) {
  py::list sequences;
  for (const WaveNetState& s : states.sequences)
    sequences.append(py::make_tuple(array_copy(s.rings), array_copy(s.scales), s.time, s.last));
  return py::make_tuple(sequences);
}

template <class T>
std::vector<T> values_of(const py::handle& handle) {
  const auto array = py::cast<py::array_t<T, py::array::c_style>>(handle);
  return {array.data(), array.data() + array.size()};
}

WaveNetStates unpickle_states(const py::tuple& pickled) {
  WaveNetStates states;
  for (const py::handle entry : py::cast<py::list>(pickled[0])) {
    const auto t = py::cast<py::tuple>(entry);
    states.sequences.push_back({values_of<unsigned char>(t[0]), values_of<float>(t[1]), py::cast<std::int64_t>(t[2]),
                                py::cast<std::int32_t>(t[3])});
  }
  return states;
}

py::tuple sample(const WaveNetModel& model, const WaveNetStates& before, std::int64_t n_samples,
                 const py::object& coins, const py::object& forced, const py::object& condition, std::int64_t offset,
                 const SamplerOptions& options, int threads, bool log_probs, bool logits) {
  const WaveNetSpec& spec = model.spec();
  const auto batch = static_cast<py::ssize_t>(before.sequences.size());
  const auto n = static_cast<py::ssize_t>(n_samples);
  if (n_samples < 0) throw std::invalid_argument("n_samples: expected at least 0, got " + std::to_string(n_samples));
  for (const WaveNetState& state : before.sequences)
    if (!fits(model, state)) throw std::invalid_argument("state: expected one of this model, got one of another shape");
  if (spec.classes == 0 && (options.top_k != 0 || options.top_p != 1.0))
    throw std::invalid_argument("top_k, top_p: expected 0 and 1, a mixture of logistics has no tokens to rank; got " +
                                std::to_string(options.top_k) + " and " + std::to_string(options.top_p));

  WaveNetRequest request;
  request.n_samples = n_samples;
  request.options = options;
  const auto coin_array = array_of<double>(coins, "coins", {batch, n, spec.coins()});
  request.coins = coin_array.data();
  for (py::ssize_t i = 0; i < coin_array.size(); ++i)
    if (!(request.coins[i] >= 0.0 && request.coins[i] < 1.0))
      throw std::invalid_argument("coins: expected values in [0, 1)");
  std::optional<py::array_t<std::int32_t>> forced_array;
  if (!forced.is_none()) {
    forced_array = array_of<std::int32_t>(forced, "forced", {batch, n});
    check_range(*forced_array, "forced", -1, classes_of(spec) - 1);
    request.forced = forced_array->data();
  }
  std::optional<py::array_t<float>> condition_array;
  if (condition.is_none() != (spec.condition_channels == 0))
    throw std::invalid_argument(spec.condition_channels == 0 ? "condition: expected none for this model"
                                                             : "condition: expected an array, got none");
  if (!condition.is_none()) {
    const auto any = py::cast<py::array>(condition);
    request.frames = any.ndim() == 3 ? any.shape(1) : 0;
    condition_array = array_of<float>(condition, "condition",
                                      {batch, static_cast<py::ssize_t>(request.frames), spec.condition_channels});
    request.condition = condition_array->data();
    request.offset = offset;
    if (offset < 0) throw std::invalid_argument("offset: expected at least 0, got " + std::to_string(offset));
    const std::int64_t covered = request.frames * spec.hop_length;
    if (n_samples > covered || offset > covered - n_samples)
      throw std::invalid_argument("condition: expected frames for " + std::to_string(offset) + " + " +
                                  std::to_string(n_samples) + " samples, got " + std::to_string(request.frames) +
                                  " frames for " + std::to_string(covered));
  }

  py::array_t<std::int32_t> samples({batch, n});
  request.samples = samples.mutable_data();
  py::object log_prob_out = py::none(), logit_out = py::none();
  if (log_probs) {
    py::array_t<double> out({batch, n});
    request.log_probs = out.mutable_data();
    log_prob_out = std::move(out);
  }
  if (logits) {
    py::array_t<float> out({batch, n, static_cast<py::ssize_t>(spec.rows())});
    request.logits = out.mutable_data();
    logit_out = std::move(out);
  }

  WaveNetStates after = before;
  const Isa isa = isa_in_use();
  Signals signals;
  without_lock([&] {
    if (!wavenet_sample(model, after.sequences, request, threads, isa, signals)) throw Interrupted();
  });
  return py::make_tuple(samples, log_prob_out, logit_out, std::move(after));
}

}  // namespace

void register_wavenet(py::module_& m) {
  py::class_<WaveNetStates>(m, "WaveNetStates")
      .def("__len__", [](const WaveNetStates& s) { return s.sequences.size(); })
      .def_property_readonly("time",
                             [](const WaveNetStates& s) { return s.sequences.empty() ? 0 : s.sequences.front().time; })
      .def(py::pickle(&pickle_states, &unpickle_states));

  py::class_<WaveNetModel>(m, "WaveNetModel")
      .def(py::init([](const py::dict& config, const py::dict& tensors, const std::string& precision) {
             const Precision p = precision_of(precision);
             WaveNetSpec spec = spec_of(config);
             const Tensors views = tensors_of(tensors);
             std::unique_ptr<WaveNetModel> model;
             without_lock([&] { model = std::make_unique<WaveNetModel>(std::move(spec), views, p); });
             return model;
           }),
           py::arg("config"), py::arg("tensors"), py::arg("precision"))
      .def_property_readonly("packed_bytes", &WaveNetModel::packed_bytes)
      .def_property_readonly("macs_per_sample", &WaveNetModel::macs_per_sample)
      .def_property_readonly("receptive_field", &WaveNetModel::receptive_field)
      .def_property_readonly("classes", [](const WaveNetModel& model) { return classes_of(model.spec()); })
      .def_property_readonly("rows", [](const WaveNetModel& model) { return model.spec().rows(); })
      .def_property_readonly("coins_per_sample", [](const WaveNetModel& model) { return model.spec().coins(); })
      .def(
          "start",
          [](const WaveNetModel& model, py::ssize_t batch) {
            if (batch < 1) throw std::invalid_argument("batch: expected at least 1, got " + std::to_string(batch));
            return WaveNetStates{std::vector<WaveNetState>(static_cast<std::size_t>(batch), start_of(model))};
          },
          py::arg("batch"));

  m.def("wavenet_sample", &sample, py::arg("model"), py::arg("state"), py::arg("n_samples"), py::arg("coins"),
        py::arg("forced"), py::arg("condition"), py::arg("offset"), py::arg("options"), py::arg("threads"),
        py::arg("log_probs"), py::arg("logits"));
}
