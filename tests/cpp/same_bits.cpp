// Samples from models with random weights and prints a hash of their logits for every instruction set of the machine it
// runs on. The same program, built for another processor, must print the same hash: see tests/test_arm.py.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "base/cpu.h"
#include "generate/attention.h"
#include "generate/recurrent.h"
#include "generate/wavenet.h"

using namespace musicgen;
using namespace musicgen::generate;

namespace {

class Never final : public Interrupt {
 public:
  bool requested() override { return false; }
};

std::uint64_t state = 1;
double uniform() {  // splitmix64
  std::uint64_t z = (state += 0x9e3779b97f4a7c15ull);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1.0p-53;
}

struct Weights {
  std::vector<std::vector<float>> floats;
  std::vector<std::vector<std::int8_t>> bytes;
  Tensors tensors;

  void add(const std::string& name, int rows, int cols, bool int8) {
    if (int8 && cols > 1) {
      bytes.emplace_back(static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols));
      floats.emplace_back(static_cast<std::size_t>(rows));
      for (auto& b : bytes.back()) b = static_cast<std::int8_t>(static_cast<int>(uniform() * 255.0) - 127);
      for (auto& s : floats.back()) s = static_cast<float>((0.5 + uniform()) / 127.0 / 4.0);
      tensors[name] = {nullptr, bytes.back().data(), floats.back().data(), rows, cols};
    } else {
      floats.emplace_back(static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols));
      for (auto& f : floats.back()) f = static_cast<float>((uniform() - 0.5) * 0.8);
      tensors[name] = {floats.back().data(), nullptr, nullptr, rows, cols};
    }
  }
};

std::uint64_t hash_of(const std::vector<std::int32_t>& tokens, const std::vector<float>& logits) {
  std::uint64_t hash = 14695981039346656037ull;
  const auto mix = [&hash](std::uint32_t bits) { hash = (hash ^ bits) * 1099511628211ull; };
  for (const std::int32_t t : tokens) mix(static_cast<std::uint32_t>(t));
  for (const float x : logits) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, 4);
    mix(bits);
  }
  return hash;
}

std::uint64_t hash_of(Cell cell, Precision precision, Isa isa) {
  state = 1;
  const int V = 70, E = 9, H = 45, L = 2, B = 7, N = 24;
  const int gates = cell == Cell::lstm ? 4 : cell == Cell::gru ? 3 : 1;
  const bool int8 = precision == Precision::int8;
  RecurrentSpec spec;
  spec.cell = cell;
  spec.hidden_size = H;
  spec.num_layers = L;
  spec.features.push_back({});
  spec.features[0].size = V + 1;
  spec.feature_names = {"token"};
  spec.trunk = {0};
  spec.trunk_dims = {E};
  spec.slots.push_back({});
  spec.slots[0].name = "token";
  spec.slots[0].size = V;
  spec.slots[0].output_weight = "head.token.output.weight";
  Weights w;
  w.floats.reserve(64);
  w.bytes.reserve(64);
  w.add("trunk.token.weight", V + 1, E, int8);
  for (int k = 0; k < L; ++k) {
    const std::string suffix = "_l" + std::to_string(k);
    w.add("rnn.weight_ih" + suffix, gates * H, k ? H : E, int8);
    w.add("rnn.weight_hh" + suffix, gates * H, H, int8);
    w.add("rnn.bias_ih" + suffix, gates * H, 1, int8);
    w.add("rnn.bias_hh" + suffix, gates * H, 1, int8);
  }
  w.add(spec.slots[0].output_weight, V, H, int8);
  w.add("head.token.output.bias", V, 1, int8);
  const RecurrentModel model(spec, w.tensors, precision);

  std::vector<double> coins(B * N);
  for (double& c : coins) c = uniform();
  std::vector<std::int32_t> tokens(B * N), given(1);
  std::vector<std::int64_t> lengths(B);
  std::vector<float> logits(static_cast<std::size_t>(B * N * V)), vector(1);
  Request request;
  request.n_frames = N;
  request.coins = coins.data();
  request.given = given.data();
  request.vector = vector.data();
  request.tokens = tokens.data();
  request.lengths = lengths.data();
  request.logits = logits.data();
  request.options.top_p = 0.95;
  std::vector<SequenceState> states(B, start_of(model));
  Never never;
  recurrent_sample(model, states, request, 2, isa, never);

  return hash_of(tokens, logits);
}

std::uint64_t hash_of_wavenet(int channels, bool logistics, Precision precision, Isa isa) {
  state = 2;
  const int S = 140, H = 130, L = 3, K = logistics ? 3 : 2, B = 3, N = 24, F = 6;
  WaveNetSpec spec;
  spec.residual_channels = channels;
  spec.skip_channels = S;
  spec.hidden_channels = H;
  spec.kernel_size = K;
  spec.dilations = {1, 2, 5};
  (logistics ? spec.mixtures : spec.classes) = logistics ? 4 : 70;
  spec.condition_channels = 5;
  spec.condition_width = 9;
  spec.condition_kernel_size = 3;
  spec.hop_length = 4;
  const bool int8 = precision == Precision::int8;
  Weights w;
  w.floats.reserve(64);
  w.bytes.reserve(64);
  if (logistics) {
    w.add("input.weight", channels, 1, int8);
    w.add("input.bias", channels, 1, int8);
  } else {
    w.add("embedding.weight", 70, channels, int8);
  }
  for (int l = 0; l < L; ++l) {
    const std::string prefix = "layers." + std::to_string(l);
    w.add(prefix + ".gate.weight", 2 * channels, channels * K, int8);
    w.add(prefix + ".gate.bias", 2 * channels, 1, int8);
    w.add(prefix + ".condition.weight", 2 * channels, 9, int8);
    w.add(prefix + ".residual.weight", channels, channels, int8);
    w.add(prefix + ".residual.bias", channels, 1, int8);
  }
  w.add("condition.conv.weight", 9, 15, int8);
  w.add("condition.conv.bias", 9, 1, int8);
  w.add("skip.weight", S, L * channels, int8);
  w.add("skip.bias", S, 1, int8);
  w.add("hidden.weight", H, S, int8);
  w.add("hidden.bias", H, 1, int8);
  w.add("logits.weight", spec.rows(), H, int8);
  w.add("logits.bias", spec.rows(), 1, int8);
  const WaveNetModel model(spec, w.tensors, precision);

  std::uint64_t hash = 0;
  for (const int batch : {1, B}) {
    std::vector<double> coins(static_cast<std::size_t>(batch * N * spec.coins()));
    for (double& c : coins) c = uniform();
    std::vector<float> frames(static_cast<std::size_t>(batch * F * spec.condition_channels));
    for (float& f : frames) f = static_cast<float>(uniform());
    std::vector<std::int32_t> samples(static_cast<std::size_t>(batch * N));
    std::vector<float> logits(static_cast<std::size_t>(batch * N * spec.rows()));
    WaveNetRequest request;
    request.n_samples = N;
    request.coins = coins.data();
    request.condition = frames.data();
    request.frames = F;
    request.samples = samples.data();
    request.logits = logits.data();
    std::vector<WaveNetState> states(static_cast<std::size_t>(batch), start_of(model));
    Never never;
    wavenet_sample(model, states, request, 2, isa, never);
    hash = hash * 31 + hash_of(samples, logits);
  }
  return hash;
}

std::uint64_t hash_of_attention(int width, Activation activation, Precision precision, Isa isa) {
  state = 3;
  const int V = 45, L = 2, N = 60, M = 21;
  AttentionSpec spec;
  spec.vocab_size = V;
  spec.width = width;
  spec.num_layers = L;
  spec.num_heads = 2;
  spec.mlp_size = 48;
  spec.activation = activation;
  spec.context = 37;
  for (int distance = 0; distance < spec.context; ++distance) spec.buckets.push_back(distance / 4);
  for (int token = 0; token < V; ++token) spec.advances.push_back(token % 3);
  spec.memory = {M, 1, 30, 4, std::vector<int>(M, 1)};
  const int buckets = spec.buckets.back() + 1;
  const bool int8 = precision == Precision::int8;
  Weights w;
  w.floats.reserve(128);
  w.bytes.reserve(128);
  const auto linear = [&](const std::string& name, int rows, int columns) {
    w.add(name + ".weight", rows, columns, int8);
    w.add(name + ".bias", rows, 1, int8);
  };
  const auto layer = [&](const std::string& name, int of_distance) {
    for (const char* norm : {".before_attention", ".before_cross", ".before_mlp"}) linear(name + norm, width, 1);
    linear(name + ".attention.qkv", 3 * width, width);
    linear(name + ".attention.out", width, width);
    w.add(name + ".attention.distance.weight", 2, of_distance, int8);
    linear(name + ".cross.query", width, width);
    linear(name + ".cross.keys_values", 2 * width, width);
    linear(name + ".cross.out", width, width);
    linear(name + ".mlp.up", spec.mlp_rows(), width);
    linear(name + ".mlp.down", width, spec.mlp_size);
  };
  w.add("embedding.weight", V + 1, width, int8);
  w.add("memory.embedding.weight", M, width, int8);
  w.add("memory.place.weight", 2, 9, int8);
  for (int l = 0; l < L; ++l) layer("layers." + std::to_string(l), buckets);
  layer("memory.layers.0", 2 * buckets);
  linear("norm", width, 1);
  linear("memory.norm", width, 1);
  linear("output", V, width);
  const AttentionModel model(spec, w.tensors, precision);

  std::uint64_t hash = 0;
  Never never;
  std::vector<std::int32_t> told(M);
  for (int i = 0; i < M; ++i) told[static_cast<std::size_t>(i)] = (7 * i) % M;
  for (const int batch : {1, 3}) {
    std::vector<double> coins(static_cast<std::size_t>(batch * N));
    for (double& c : coins) c = uniform();
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(batch * N));
    std::vector<std::int64_t> lengths(static_cast<std::size_t>(batch));
    std::vector<float> logits(static_cast<std::size_t>(batch * N * V));
    AttentionRequest request;
    request.n_frames = N;
    request.coins = coins.data();
    request.tokens = tokens.data();
    request.lengths = lengths.data();
    request.logits = logits.data();
    std::vector<AttentionState> states(static_cast<std::size_t>(batch));
    for (AttentionState& each : states) each.memory = attention_memory(model, told.data(), M, isa, never);
    attention_sample(model, states, request, 2, isa, never);
    hash = hash * 31 + hash_of(tokens, logits);
  }
  return hash;
}

}  // namespace

int main() {
  const Cell cells[] = {Cell::lstm, Cell::gru, Cell::rnn_tanh, Cell::rnn_relu};
  const Precision precisions[] = {Precision::float32, Precision::bfloat16, Precision::int8};
  for (const Isa isa : isas_available()) {
    std::uint64_t all = 14695981039346656037ull;
    for (const Cell cell : cells)
      for (const Precision precision : precisions) all = (all ^ hash_of(cell, precision, isa)) * 1099511628211ull;
    for (const int channels : {27, 48, 64, 128})
      for (const Precision precision : precisions)
        all = (all ^ hash_of_wavenet(channels, channels == 27, precision, isa)) * 1099511628211ull;
    for (const int width : {32, 96, 160})
      for (const Precision precision : precisions)
        all = (all ^ hash_of_attention(width, static_cast<Activation>(width / 64), precision, isa)) * 1099511628211ull;
    std::printf("%s %016llx\n", name_of(isa), static_cast<unsigned long long>(all));
  }
}
