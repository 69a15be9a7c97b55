// The door of the attention engine: convert, check, release, compute, return. Nothing else lives here.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "base/cpu.h"
#include "bindings/arrays.h"
#include "bindings/models.h"
#include "generate/attention.h"

namespace {

using namespace musicgen;
using namespace musicgen::generate;

// From AttentionConfig.to_dict() with its buckets, which has been validated in Python.
AttentionSpec spec_of(const py::dict& config) {
  AttentionSpec spec;
  spec.vocab_size = py::cast<int>(config["vocab_size"]);
  spec.width = py::cast<int>(config["width"]);
  spec.num_layers = py::cast<int>(config["num_layers"]);
  spec.num_heads = py::cast<int>(config["num_heads"]);
  spec.mlp_size = py::cast<int>(config["mlp_size"]);
  spec.activation =
      choice<Activation>(config["activation"], "activation",
                         {{"relu", Activation::relu}, {"gelu", Activation::gelu}, {"gated", Activation::gated}});
  spec.context = py::cast<int>(config["context"]);
  spec.tied = py::cast<bool>(config["tied"]);
  spec.buckets = py::cast<std::vector<int>>(config["buckets"]);
  spec.advances = py::cast<std::vector<int>>(config["advances"]);
  const py::object memory = config["memory"];
  if (!memory.is_none()) {
    spec.memory.vocab_size = py::cast<int>(memory["vocab_size"]);
    spec.memory.num_layers = py::cast<int>(memory["num_layers"]);
    spec.memory.context = py::cast<int>(memory["context"]);
    spec.memory.reach = py::cast<int>(memory["reach"]);
    spec.memory.advances = py::cast<std::vector<int>>(memory["advances"]);
  }
  return spec;
}

// A batch of states. Immutable from Python: a call returns new ones.
struct AttentionStates {
  std::vector<AttentionState> sequences;
};

bool fits(const AttentionModel& model, const AttentionCache& cache, std::int64_t count) {
  return cache.capacity >= count && cache.capacity % kLanes == 0 &&
         cache.bytes.size() == cache_bytes(model, cache.capacity);
}

bool fits(const AttentionModel& model, const AttentionState& state) {
  const AttentionSpec& spec = model.spec();
  const std::int64_t filled = std::min<std::int64_t>(state.frame, spec.context);
  if (state.frame < 0 || state.place < 0 || state.last < -1 || state.last >= spec.vocab_size) return false;
  if (filled > 0 && (state.cache == nullptr || !fits(model, *state.cache, filled))) return false;
  const AttentionMemory* memory = state.memory.get();
  return memory == nullptr ||
         (spec.memory.context > 0 && memory->count > 0 && memory->places.size() == to_size(memory->count) &&
          fits(model, memory->cache, memory->count));
}

py::tuple pickle_cache(const AttentionCache& cache) {
  return py::make_tuple(cache.capacity,
                        py::bytes(reinterpret_cast<const char*>(cache.bytes.data()), cache.bytes.size()));
}

AttentionCache unpickle_cache(const py::tuple& pickled) {
  const auto bytes = py::cast<std::string>(pickled[1]);
  AttentionCache cache;
  cache.capacity = py::cast<int>(pickled[0]);
  cache.bytes = Arena(bytes.size());
  std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(cache.bytes.data()));
  return cache;
}

// Memories once, however many sequences share them.
py::tuple pickle_states(const AttentionStates& states) {
  py::list memories, sequences;
  std::map<const AttentionMemory*, py::ssize_t> places;
  for (const AttentionState& s : states.sequences) {
    const AttentionMemory* memory = s.memory.get();
    if (memory != nullptr && places.emplace(memory, py::len(memories)).second)
      memories.append(py::make_tuple(memory->count, memory->places, pickle_cache(memory->cache)));
    sequences.append(py::make_tuple(s.frame, s.last, s.place, s.cache ? pickle_cache(*s.cache) : py::tuple(),
                                    memory != nullptr ? places[memory] : -1));
  }
  return py::make_tuple(memories, sequences);
}

AttentionStates unpickle_states(const py::tuple& pickled) {
  std::vector<std::shared_ptr<const AttentionMemory>> memories;
  for (const py::handle entry : py::cast<py::list>(pickled[0])) {
    const auto t = py::cast<py::tuple>(entry);
    auto memory = std::make_shared<AttentionMemory>();
    memory->count = py::cast<int>(t[0]);
    memory->places = py::cast<std::vector<std::int64_t>>(t[1]);
    memory->cache = unpickle_cache(t[2]);
    memories.push_back(std::move(memory));
  }
  AttentionStates states;
  for (const py::handle entry : py::cast<py::list>(pickled[1])) {
    const auto t = py::cast<py::tuple>(entry);
    AttentionState s;
    s.frame = py::cast<std::int64_t>(t[0]);
    s.last = py::cast<std::int32_t>(t[1]);
    s.place = py::cast<std::int64_t>(t[2]);
    const auto cache = py::cast<py::tuple>(t[3]);
    if (!cache.empty()) s.cache = std::make_shared<AttentionCache>(unpickle_cache(cache));
    const auto memory = py::cast<py::ssize_t>(t[4]);
    if (memory >= 0) s.memory = memories.at(static_cast<std::size_t>(memory));
    states.sequences.push_back(std::move(s));
  }
  return states;
}

// `memories`: an array of tokens each, one for all or one for every sequence; none: the states know of nothing.
AttentionStates start(const AttentionModel& model, py::ssize_t batch, const py::list& memories) {
  const AttentionMemorySpec& spec = model.spec().memory;
  if (batch < 1) throw std::invalid_argument("batch: expected at least 1, got " + std::to_string(batch));
  const py::ssize_t count = static_cast<py::ssize_t>(py::len(memories));
  if (count > 1 && count != batch)
    throw std::invalid_argument("memory: expected 1 or " + std::to_string(batch) + " sequences, got " +
                                std::to_string(count));
  std::vector<py::array_t<std::int32_t>> tokens;
  for (const py::handle memory : memories) {
    const auto any = py::cast<py::array>(memory);
    tokens.push_back(array_of<std::int32_t>(any, "memory", {any.size()}));
    check_range(tokens.back(), "memory", 0, spec.vocab_size - 1);
    if (any.size() > spec.context)
      throw std::invalid_argument("memory: expected at most " + std::to_string(spec.context) + " tokens, got " +
                                  std::to_string(any.size()));
  }
  std::vector<std::pair<const std::int32_t*, int>> views;
  for (const auto& array : tokens) views.emplace_back(array.data(), static_cast<int>(array.size()));
  AttentionStates states{std::vector<AttentionState>(static_cast<std::size_t>(batch))};
  const Isa isa = isa_in_use();
  Signals signals;
  without_lock([&] {
    for (std::size_t i = 0; i < views.size(); ++i) {
      if (views[i].second == 0) continue;
      const auto memory = attention_memory(model, views[i].first, views[i].second, isa, signals);
      if (memory == nullptr) throw Interrupted();
      if (count == 1) {
        for (AttentionState& state : states.sequences) state.memory = memory;
      } else {
        states.sequences[i].memory = memory;
      }
    }
  });
  return states;
}

py::tuple sample(const AttentionModel& model, const AttentionStates& before, std::int64_t n_frames,
                 const py::object& coins, const py::object& forced, const py::object& allowed, int stop,
                 const SamplerOptions& options, int threads, bool log_probs, bool logits) {
  const int vocab_size = model.spec().vocab_size;
  const auto batch = static_cast<py::ssize_t>(before.sequences.size());
  const auto n = static_cast<py::ssize_t>(n_frames);
  if (n_frames < 0) throw std::invalid_argument("n_frames: expected at least 0, got " + std::to_string(n_frames));
  for (const AttentionState& state : before.sequences)
    if (!fits(model, state)) throw std::invalid_argument("state: expected one of this model, got one of another shape");

  AttentionRequest request;
  request.n_frames = n_frames;
  request.options = options;
  request.stop_token = stop;
  const auto coin_array = array_of<double>(coins, "coins", {batch, n, 1});
  request.coins = coin_array.data();
  for (py::ssize_t i = 0; i < coin_array.size(); ++i)
    if (!(request.coins[i] >= 0.0 && request.coins[i] < 1.0))
      throw std::invalid_argument("coins: expected values in [0, 1)");
  std::optional<py::array_t<std::int32_t>> forced_array;
  if (!forced.is_none()) {
    forced_array = array_of<std::int32_t>(forced, "forced", {batch, n, 1});
    check_range(*forced_array, "forced", -1, vocab_size - 1);
    request.forced = forced_array->data();
  }
  std::optional<py::array_t<std::uint8_t>> allowed_array;
  if (!allowed.is_none()) {
    const py::ssize_t frames = py::cast<py::array>(allowed).ndim() == 3 ? py::cast<py::array>(allowed).shape(0) : -1;
    allowed_array = array_of<std::uint8_t>(allowed, "allowed", {frames == 1 ? 1 : n, 1, vocab_size});
    request.allowed = allowed_array->data();
    request.allowed_frames = frames;
  }

  py::array_t<std::int32_t> tokens({batch, n, py::ssize_t{1}});
  std::fill(tokens.mutable_data(), tokens.mutable_data() + tokens.size(), -1);
  py::array_t<std::int64_t> lengths(batch);
  std::fill(lengths.mutable_data(), lengths.mutable_data() + batch, 0);
  request.tokens = tokens.mutable_data();
  request.lengths = lengths.mutable_data();
  py::object log_prob_out = py::none(), logit_out = py::none();
  if (log_probs) {
    py::array_t<double> out({batch, n, py::ssize_t{1}});
    std::fill(out.mutable_data(), out.mutable_data() + out.size(), 0.0);
    request.log_probs = out.mutable_data();
    log_prob_out = std::move(out);
  }
  if (logits) {
    py::array_t<float> out({batch, n, py::ssize_t{1}, static_cast<py::ssize_t>(vocab_size)});
    std::fill(out.mutable_data(), out.mutable_data() + out.size(), 0.0f);
    request.logits = out.mutable_data();
    logit_out = std::move(out);
  }

  AttentionStates after = before;
  const Isa isa = isa_in_use();
  Signals signals;
  without_lock([&] {
    if (!attention_sample(model, after.sequences, request, threads, isa, signals)) throw Interrupted();
  });
  return py::make_tuple(tokens, lengths, log_prob_out, logit_out, std::move(after));
}

}  // namespace

void register_attention(py::module_& m) {
  py::class_<AttentionStates>(m, "AttentionStates")
      .def("__len__", [](const AttentionStates& s) { return s.sequences.size(); })
      .def_property_readonly(
          "frame", [](const AttentionStates& s) { return s.sequences.empty() ? 0 : s.sequences.front().frame; })
      .def(py::pickle(&pickle_states, &unpickle_states));

  py::class_<AttentionModel>(m, "AttentionModel")
      .def(py::init([](const py::dict& config, const py::dict& tensors, const std::string& precision) {
             const Precision p = precision_of(precision);
             AttentionSpec spec = spec_of(config);
             const Tensors views = tensors_of(tensors);
             std::unique_ptr<AttentionModel> model;
             without_lock([&] { model = std::make_unique<AttentionModel>(std::move(spec), views, p); });
             return model;
           }),
           py::arg("config"), py::arg("tensors"), py::arg("precision"))
      .def_property_readonly("packed_bytes", &AttentionModel::packed_bytes)
      .def_property_readonly("macs_per_token", &AttentionModel::macs_per_token)
      .def("start", &start, py::arg("batch"), py::arg("memories"));

  m.def("attention_sample", &sample, py::arg("model"), py::arg("state"), py::arg("n_frames"), py::arg("coins"),
        py::arg("forced"), py::arg("allowed"), py::arg("stop"), py::arg("options"), py::arg("threads"),
        py::arg("log_probs"), py::arg("logits"));
}
