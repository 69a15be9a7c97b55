// The door of src/cpp/generate: convert, check, release, compute, return. Nothing else lives here.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>

#include "base/cpu.h"
#include "bindings/arrays.h"
#include "bindings/models.h"
#include "generate/recurrent.h"
#include "generate/variational.h"

namespace {

using namespace musicgen;
using namespace musicgen::generate;

int optional_int(const py::handle& value) { return value.is_none() ? -1 : py::cast<int>(value); }

// From RecurrentConfig.to_dict(), which has been validated in Python.
RecurrentSpec spec_of(const py::dict& config) {
  RecurrentSpec spec;
  spec.cell = choice<Cell>(
      config["cell"], "cell",
      {{"lstm", Cell::lstm}, {"gru", Cell::gru}, {"rnn_tanh", Cell::rnn_tanh}, {"rnn_relu", Cell::rnn_relu}});
  spec.hidden_size = py::cast<int>(config["hidden_size"]);
  spec.num_layers = py::cast<int>(config["num_layers"]);
  spec.concat = py::cast<std::string>(config["combine"]) == "concat";
  spec.match_window = py::cast<int>(config["match_window"]);
  for (const py::handle entry : config["slots"]) {
    Slot slot;
    slot.name = py::cast<std::string>(entry["name"]);
    slot.size = py::cast<int>(entry["size"]);
    slot.first_pitch = optional_int(entry["first_pitch"]);
    slot.hold = optional_int(entry["hold"]);
    spec.slots.push_back(std::move(slot));
  }
  for (const py::handle entry : config["features"]) spec.feature_names.push_back(py::cast<std::string>(entry["name"]));
  const auto index_of = [&](const py::handle& name) {
    const auto text = py::cast<std::string>(name);
    const auto found = std::find(spec.feature_names.begin(), spec.feature_names.end(), text);
    if (found == spec.feature_names.end()) throw std::invalid_argument("feature " + text + ": expected a known name");
    return static_cast<int>(found - spec.feature_names.begin());
  };
  for (const py::handle handle : config["features"]) {
    const auto entry = py::reinterpret_borrow<py::dict>(handle);
    Feature f;
    f.kind = choice<FeatureKind>(entry["kind"], "feature kind",
                                 {{"token", FeatureKind::token},
                                  {"sounding", FeatureKind::sounding},
                                  {"held", FeatureKind::held},
                                  {"clock", FeatureKind::clock},
                                  {"match", FeatureKind::match},
                                  {"match_length", FeatureKind::match_length},
                                  {"interval", FeatureKind::interval},
                                  {"given", FeatureKind::given},
                                  {"chosen", FeatureKind::chosen},
                                  {"chosen_sounding", FeatureKind::chosen_sounding},
                                  {"difference", FeatureKind::difference},
                                  {"degree", FeatureKind::degree},
                                  {"parallel", FeatureKind::parallel}});
    const auto number = [&](const char* key, int& into) {
      if (entry.contains(key)) into = py::cast<int>(entry[key]);
    };
    number("slot", f.slot);
    number("lag", f.lag);
    number("period", f.period);
    number("divide", f.divide);
    number("limit", f.limit);
    number("size", f.size);
    number("offset", f.offset);
    if (entry.contains("buckets")) f.buckets = py::cast<std::vector<std::int64_t>>(entry["buckets"]);
    if (entry.contains("slots")) {
      const auto pair = py::cast<std::pair<int, int>>(entry["slots"]);
      f.slot = pair.first;
      f.other_slot = pair.second;
    }
    if (entry.contains("features")) {
      const auto names = py::cast<std::vector<std::string>>(entry["features"]);
      f.first = index_of(py::str(names.at(0)));
      f.second = index_of(py::str(names.at(1)));
      if (names.size() > 2) f.third = index_of(py::str(names.at(2)));
    }
    switch (f.kind) {
      case FeatureKind::held:
      case FeatureKind::match_length:
        f.size = static_cast<int>(f.buckets.size()) + 1;
        break;
      case FeatureKind::clock:
        f.size = f.period;
        break;
      case FeatureKind::interval:
      case FeatureKind::difference:
        f.size = 2 * f.limit + 2;
        break;
      case FeatureKind::degree:
        f.size = kPitchClasses + 1;
        break;
      case FeatureKind::parallel:  // as large as the slot whose token it is; no table of its own is needed to know it
        f.size = 0;
        break;
      case FeatureKind::given:
        f.given = spec.num_given++;
        break;
      default:
        f.size = spec.slots.at(static_cast<std::size_t>(f.slot)).size + 1;
    }
    spec.features.push_back(std::move(f));
  }
  for (const py::handle entry : config["trunk"]) {
    spec.trunk.push_back(index_of(entry["feature"]));
    spec.trunk_dims.push_back(py::cast<int>(entry["dim"]));
  }
  if (!config["vector"].is_none()) {
    spec.vector_size = py::cast<int>(config["vector"]["size"]);
    spec.vector_dim = py::cast<int>(config["vector"]["dim"]);
    spec.vector_initial = py::cast<bool>(config["vector"]["initial"]);
  }
  std::size_t s = 0;
  for (const py::handle entry : config["slots"]) {
    const py::object head = entry["head"];
    Slot& slot = spec.slots[s++];
    slot.hidden_size = py::cast<int>(head["hidden_size"]);
    for (const py::handle name : head["inputs"]) slot.inputs.push_back(index_of(name));
    for (const py::handle r : head["relative"])
      slot.relative.push_back({index_of(r["feature"]), py::cast<int>(r["radius"])});
    for (const py::handle name : head["copy"]) slot.copies.push_back(index_of(name));
    for (const py::handle r : head["periodic"])
      slot.periodic.push_back({index_of(r["feature"]), py::cast<int>(r["offset"])});
    slot.output_weight = "head." + slot.name + ".output.weight";
    if (head.contains("tied")) slot.output_weight = "trunk." + py::cast<std::string>(head["tied"]) + ".weight";
  }
  return spec;
}

// A batch of sequence states. Immutable from Python: a call returns new ones.
struct RecurrentStates {
  std::vector<SequenceState> sequences;
};

bool fits(const RecurrentModel& model, const SequenceState& state) {
  const SequenceState start = start_of(model);
  return state.h.size() == start.h.size() && state.c.size() == start.c.size() &&
         state.tokens.size() == start.tokens.size() && state.last_onset.size() == start.last_onset.size() &&
         state.match.size() == start.match.size() && state.hashes.size() == start.hashes.size() &&
         state.sounding.size() == start.sounding.size() && state.frame >= 0;
}

py::tuple pickle_states(const RecurrentStates& states) {
  py::list sequences;
  for (const SequenceState& s : states.sequences)
    sequences.append(py::make_tuple(array_copy(s.h), array_copy(s.c), s.frame, array_copy(s.tokens),
                                    array_copy(s.sounding), array_copy(s.last_onset), array_copy(s.hashes),
                                    array_copy(s.match)));
  return py::make_tuple(sequences);
}

RecurrentStates unpickle_states(const py::tuple& pickled) {
  RecurrentStates states;
  for (const py::handle entry : py::cast<py::list>(pickled[0])) {
    const auto t = py::cast<py::tuple>(entry);
    SequenceState s;
    s.h = py::cast<std::vector<float>>(t[0]);
    s.c = py::cast<std::vector<float>>(t[1]);
    s.frame = py::cast<std::int64_t>(t[2]);
    s.tokens = py::cast<std::vector<std::int32_t>>(t[3]);
    s.sounding = py::cast<std::vector<std::int32_t>>(t[4]);
    s.last_onset = py::cast<std::vector<std::int64_t>>(t[5]);
    s.hashes = py::cast<std::vector<std::uint64_t>>(t[6]);
    s.match = py::cast<std::vector<std::int32_t>>(t[7]);
    states.sequences.push_back(std::move(s));
  }
  return states;
}

// Ids that a table is asked for must lie inside it: checked where they come in.
void check_tokens(const py::array_t<std::int32_t>& tokens, const RecurrentSpec& spec, const char* name) {
  const auto slots = static_cast<py::ssize_t>(spec.slots.size());
  const std::int32_t* values = tokens.data();
  for (py::ssize_t i = 0; i < tokens.size(); ++i) {
    const Slot& slot = spec.slots[static_cast<std::size_t>(i % slots)];
    if (values[i] < -1 || values[i] >= slot.size)
      throw std::invalid_argument(std::string(name) + ": expected tokens in [0, " + std::to_string(slot.size - 1) +
                                  "] (or -1: free) in slot '" + slot.name + "', got " + std::to_string(values[i]));
  }
}

void check_given(const py::array_t<std::int32_t>& given, const RecurrentSpec& spec) {
  if (spec.num_given == 0) return;
  const std::int32_t* values = given.data();
  for (std::size_t f = 0; f < spec.features.size(); ++f) {
    const Feature& feature = spec.features[f];
    if (feature.kind != FeatureKind::given) continue;
    for (py::ssize_t i = feature.given; i < given.size(); i += spec.num_given)
      if (values[i] < 0 || values[i] >= feature.size)
        throw std::invalid_argument("given '" + spec.feature_names[f] + "': expected ids in [0, " +
                                    std::to_string(feature.size - 1) + "], got " + std::to_string(values[i]));
  }
}

py::tuple sample(const RecurrentModel& model, const RecurrentStates& before, std::int64_t n_frames,
                 const py::object& coins, const py::object& forced, const py::object& given, const py::object& vector,
                 const py::object& allowed, const std::pair<int, int>& stop, const SamplerOptions& options, int threads,
                 bool log_probs, bool logits) {
  const RecurrentSpec& spec = model.spec();
  const auto batch = static_cast<py::ssize_t>(before.sequences.size());
  const auto slots = static_cast<py::ssize_t>(spec.slots.size());
  if (n_frames < 0) throw std::invalid_argument("n_frames: expected at least 0, got " + std::to_string(n_frames));
  for (const SequenceState& state : before.sequences)
    if (!fits(model, state)) throw std::invalid_argument("state: expected one of this model, got one of another shape");

  Request request;
  request.n_frames = n_frames;
  const auto coin_array = array_of<double>(coins, "coins", {batch, n_frames, slots});
  request.coins = coin_array.data();
  for (py::ssize_t i = 0; i < coin_array.size(); ++i)
    if (!(request.coins[i] >= 0.0 && request.coins[i] < 1.0))
      throw std::invalid_argument("coins: expected values in [0, 1)");
  std::optional<py::array_t<std::int32_t>> forced_array;
  if (!forced.is_none()) {
    forced_array = array_of<std::int32_t>(forced, "forced", {batch, n_frames, slots});
    check_tokens(*forced_array, spec, "forced");
    request.forced = forced_array->data();
  }
  const auto given_array = array_of<std::int32_t>(given, "given", {batch, n_frames, spec.num_given});
  check_given(given_array, spec);
  request.given = given_array.data();
  const auto vector_array = array_of<float>(vector, "vector", {batch, spec.vector_size});
  request.vector = vector_array.data();
  std::optional<py::array_t<std::uint8_t>> allowed_array;
  if (!allowed.is_none()) {
    const py::ssize_t frames = py::cast<py::array>(allowed).ndim() == 3 ? py::cast<py::array>(allowed).shape(0) : -1;
    allowed_array =
        array_of<std::uint8_t>(allowed, "allowed", {frames == 1 ? 1 : n_frames, slots, model.most_tokens()});
    request.allowed = allowed_array->data();
    request.allowed_frames = frames;
  }
  request.stop_slot = stop.first;
  request.stop_token = stop.second;
  if (request.stop_slot >= slots) throw std::invalid_argument("stop: expected a slot below " + std::to_string(slots));
  request.options = options;

  py::array_t<std::int32_t> tokens({batch, static_cast<py::ssize_t>(n_frames), slots});
  std::fill(tokens.mutable_data(), tokens.mutable_data() + tokens.size(), -1);
  py::array_t<std::int64_t> lengths(batch);
  std::fill(lengths.mutable_data(), lengths.mutable_data() + batch, 0);
  request.tokens = tokens.mutable_data();
  request.lengths = lengths.mutable_data();
  py::object log_prob_out = py::none(), logit_out = py::none();
  if (log_probs) {
    py::array_t<double> out({batch, static_cast<py::ssize_t>(n_frames), slots});
    std::fill(out.mutable_data(), out.mutable_data() + out.size(), 0.0);
    request.log_probs = out.mutable_data();
    log_prob_out = std::move(out);
  }
  if (logits) {
    py::array_t<float> out(
        {batch, static_cast<py::ssize_t>(n_frames), slots, static_cast<py::ssize_t>(model.most_tokens())});
    std::fill(out.mutable_data(), out.mutable_data() + out.size(), 0.0f);
    request.logits = out.mutable_data();
    logit_out = std::move(out);
  }

  RecurrentStates after = before;
  const Isa isa = isa_in_use();
  Signals signals;
  without_lock([&] {
    if (!recurrent_sample(model, after.sequences, request, threads, isa, signals)) throw Interrupted();
  });
  return py::make_tuple(tokens, lengths, log_prob_out, logit_out, std::move(after));
}

py::tuple encode(const VariationalEncoder& encoder, const py::object& tokens, int threads) {
  const auto slots = static_cast<py::ssize_t>(encoder.spec().slots.size());
  const auto given = py::cast<py::array>(tokens);
  if (given.ndim() != 3) throw std::invalid_argument("tokens: expected three axes");
  const py::ssize_t batch = given.shape(0), frames = given.shape(1);
  const auto array = array_of<std::int32_t>(tokens, "tokens", {batch, frames, slots});
  check_tokens(array, encoder.spec(), "tokens");
  for (py::ssize_t i = 0; i < array.size(); ++i)
    if (array.data()[i] < 0) throw std::invalid_argument("tokens: expected none free (-1)");
  py::array_t<float> mean({batch, static_cast<py::ssize_t>(encoder.latent_size())});
  py::array_t<float> log_variance({batch, static_cast<py::ssize_t>(encoder.latent_size())});
  const std::int32_t* values = array.data();
  float* mean_out = mean.mutable_data();
  float* log_variance_out = log_variance.mutable_data();
  const Isa isa = isa_in_use();
  Signals signals;
  without_lock([&] {
    if (!encoder.encode(values, batch, frames, mean_out, log_variance_out, threads, isa, signals)) throw Interrupted();
  });
  return py::make_tuple(mean, log_variance);
}

}  // namespace

void register_generate(py::module_& m) {
  py::class_<SamplerOptions>(m, "SamplerOptions")
      .def(py::init(
               [](double temperature, int top_k, double top_p) { return SamplerOptions{temperature, top_k, top_p}; }),
           py::arg("temperature"), py::arg("top_k"), py::arg("top_p"));

  py::class_<RecurrentStates>(m, "RecurrentStates")
      .def("__len__", [](const RecurrentStates& s) { return s.sequences.size(); })
      .def_property_readonly(
          "frame", [](const RecurrentStates& s) { return s.sequences.empty() ? 0 : s.sequences.front().frame; })
      .def(py::pickle(&pickle_states, &unpickle_states));

  py::class_<RecurrentModel>(m, "RecurrentModel")
      .def(py::init([](const py::dict& config, const py::dict& tensors, const std::string& precision) {
             const Precision p = precision_of(precision);
             RecurrentSpec spec = spec_of(config);
             const Tensors views = tensors_of(tensors);
             std::unique_ptr<RecurrentModel> model;
             without_lock([&] { model = std::make_unique<RecurrentModel>(std::move(spec), views, p); });
             return model;
           }),
           py::arg("config"), py::arg("tensors"), py::arg("precision"))
      .def_property_readonly("packed_bytes", &RecurrentModel::packed_bytes)
      .def_property_readonly("macs_per_frame", &RecurrentModel::macs_per_frame)
      .def(
          "start",
          [](const RecurrentModel& model, py::ssize_t batch) {
            if (batch < 1) throw std::invalid_argument("batch: expected at least 1, got " + std::to_string(batch));
            return RecurrentStates{std::vector<SequenceState>(static_cast<std::size_t>(batch), start_of(model))};
          },
          py::arg("batch"));

  py::class_<VariationalEncoder>(m, "VariationalEncoder")
      .def(py::init([](const py::dict& config, int latent_size, const py::dict& tensors, const std::string& precision) {
             const Precision p = precision_of(precision);
             const RecurrentSpec spec = spec_of(config);
             const Tensors views = tensors_of(tensors);
             std::unique_ptr<VariationalEncoder> encoder;
             without_lock([&] { encoder = std::make_unique<VariationalEncoder>(spec, latent_size, views, p); });
             return encoder;
           }),
           py::arg("config"), py::arg("latent_size"), py::arg("tensors"), py::arg("precision"))
      .def_property_readonly("packed_bytes", &VariationalEncoder::packed_bytes)
      .def("encode", &encode, py::arg("tokens"), py::arg("threads"));

  m.def("sample", &sample, py::arg("model"), py::arg("state"), py::arg("n_frames"), py::arg("coins"), py::arg("forced"),
        py::arg("given"), py::arg("vector"), py::arg("allowed"), py::arg("stop"), py::arg("options"),
        py::arg("threads"), py::arg("log_probs"), py::arg("logits"));
}
