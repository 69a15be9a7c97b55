// Takes spectra, mel bands and cepstra of noise, searches for a clip in it, and prints a hash of all that for every
// instruction set of the machine it runs on. All sets that have a fused multiply-add must print the same one, on any
// processor: see tests/test_arm.py.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "audio/match.h"
#include "audio/stft.h"
#include "base/cpu.h"

using namespace musicgen;
using namespace musicgen::audio;

namespace {

std::uint64_t state = 1;
double uniform() {  // splitmix64
  std::uint64_t z = (state += 0x9e3779b97f4a7c15ull);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1.0p-53;
}

template <typename T>
void mix(std::uint64_t& hash, const std::vector<T>& values) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(values.data());
  for (std::size_t i = 0; i < values.size() * sizeof(T); ++i) hash = (hash ^ bytes[i]) * 1099511628211ull;
}

template <typename T>
void add(std::uint64_t& hash, int n_fft, Isa isa) {
  constexpr int kFrames = 37, kBands = 11, kCepstra = 7;
  const int hop = n_fft / 2 + 1, bins = n_fft / 2 + 1;
  std::vector<T> y(static_cast<std::size_t>(hop * (kFrames - 1) + n_fft));
  for (T& x : y) x = static_cast<T>(uniform() - 0.5);
  const std::vector<Frames<T>> channel = {
      {y.data(), nullptr, nullptr, static_cast<std::int64_t>(y.size()), hop, 0, kFrames, 0, 0}};
  Recipe<T> recipe;
  recipe.n_fft = n_fft;
  for (int i = 0; i < n_fft; ++i) recipe.window.push_back(0.5 + uniform());
  for (const Stop stop : {Stop::spectrum, Stop::magnitudes, Stop::bands, Stop::cepstra}) {
    recipe.stop = stop;
    if (stop == Stop::bands) {
      recipe.n_bands = kBands;
      for (int i = 0; i < kBands * bins; ++i) recipe.bands.push_back(static_cast<T>(uniform()));
    }
    if (stop == Stop::cepstra) {
      recipe.decibels = sizeof(T) == sizeof(float);  // double ones are the C library's
      recipe.range = T(3);
      recipe.n_cepstra = kCepstra;
      for (int i = 0; i < kCepstra * kBands; ++i) recipe.cepstra.push_back(static_cast<T>(uniform() - 0.5));
    }
    const Analysis<T> analysis(recipe);
    std::vector<T> out(static_cast<std::size_t>(kFrames * analysis.rows()));
    analysis.run(channel, out.data(), 2, isa, [] {});
    mix(hash, out);
    if (stop != Stop::spectrum) continue;
    std::vector<T> back(y.size());
    Synthesis<T>(n_fft, recipe.window, hop)
        .run(out.data(), 1, kFrames, 0, 0, back.data(), static_cast<std::int64_t>(back.size()), 2, isa, [] {});
    mix(hash, back);
  }
}

class Never final : public Interrupt {
 public:
  bool requested() override { return false; }
};

// A short clip, whose products are added up, and a long one, whose products come out of transforms.
void add_matches(std::uint64_t& hash, Isa isa) {
  constexpr int kDims = 12;
  constexpr std::int64_t kFrames = 2000;
  std::vector<float> piece(kDims * kFrames);
  for (float& x : piece) x = static_cast<float>(uniform() - 0.5);
  for (const std::int64_t clip : {37, 400}) {
    const Sequence query = {piece.data(), clip}, library = {piece.data(), kFrames};
    std::vector<float> curve(static_cast<std::size_t>(kFrames - clip + 1)), costs(kFrames);
    std::vector<std::int32_t> starts(kFrames);
    Never go_on;
    correlate({true}, kDims, query, {library}, {curve.data()}, 1, isa, go_on);
    warp({Cost::cosine, {1, 1, 2}}, kDims, query, {library}, {costs.data()}, {starts.data()}, 1, isa, go_on);
    mix(hash, curve);
    mix(hash, costs);
    mix(hash, starts);
  }
}

}  // namespace

int main() {
  for (const Isa isa : isas_available()) {
    state = 1;
    std::uint64_t hash = 14695981039346656037ull;
    for (const int n_fft : {64, 75, 200, 512, 94}) {
      add<float>(hash, n_fft, isa);
      add<double>(hash, n_fft, isa);
    }
    add_matches(hash, isa);
    std::printf("%s %016llx\n", name_of(isa), static_cast<unsigned long long>(hash));
  }
}
