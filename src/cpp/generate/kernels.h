// The arithmetic of sampling loops, once for every instruction set; the loops themselves know nothing of registers.
//
// One order of summation. A row of a product starts from its bias (or table row) and adds its columns in order, each by
// one fused multiply-add; integer sums are exact in any order; exp, tanh and the sums of the sampler are the same
// operations on the same sixteen lanes. So every instruction set, batch size and thread count gives the same bits.
#pragma once

#include <cstddef>
#include <vector>

#include "base/checked.h"
#include "base/cpu.h"

namespace musicgen::generate {

enum class Precision { float32, bfloat16, int8 };
enum class Cell { lstm, gru, rnn_tanh, rnn_relu };

constexpr int kLanes = 16;

// Rounded up to whole vectors.
inline int padded(int n) { return static_cast<int>(round_up(to_size(n), kLanes)); }

// A vector that meets a matrix: floats, or signed bytes (Kernels::byte_bias added on paths that want them unsigned)
// whose values are bytes times `scale`.
struct Input {  // no default values: kernels keep arrays of them, and would fill these for nothing
  const unsigned char* data;
  float scale;
};

// Rows in vectors of 16 lanes, vectors in tiles. Inside a tile the columns follow one another, each column (a pair for
// bfloat16, four for int8) holding 64 bytes for every vector of the tile: the order in which a product reads them.
struct Matrix {
  Precision precision = Precision::float32;
  int vecs = 0;                     // padded rows / 16
  int cols = 0;                     // padded to a multiple of 16
  std::vector<int> tiles;           // vectors in each tile
  const char* weights = nullptr;    // first tile; the next ones are `tile_pitch` bytes apart
  bool far = false;                 // part of more weights than a second-level cache holds
  int lines_ahead = 0;              // how far ahead one sequence asks for weights; 0: the processor guesses well enough
  std::size_t tile_pitch = 0;       // of a full tile, whatever lies between included
  const float* scale = nullptr;     // int8: a weight is its byte times the scale of its row
  const int* minus_bias = nullptr;  // int8: -128 times the sum of the row's bytes
};

// One recurrent layer. Gate rows are interleaved: a tile holds all gates of its units, so that a unit's activations
// follow its sums while these are still in cache.
struct Layer {
  Cell cell = Cell::lstm;
  int units = 0;           // padded to a multiple of 16
  bool has_input = false;  // false in the first layer, whose input product is a table lookup
  Matrix ih, hh;
  const float* bias = nullptr;     // in tile order; LSTM and RNN: both biases added up; GRU: bias_ih
  const float* bias_hh = nullptr;  // GRU only
};

// What a layer reads and writes for one sequence.
struct LayerRow {
  const float* start;        // bias or table sum, in tile order
  Input x;                   // from the layer below (unused in the first)
  Input h;                   // own state, before
  const float* h_float;      // the same as floats (GRU blends it)
  float* c;                  // LSTM cell state, in place
  float* h_out;              // own state, after
  unsigned char* bytes_out;  // the same in bytes, for int8; else null
  float* scale_out;          // and their scale
};

// One sequence's row of a dense product.
struct DenseRow {
  const float* start;
  Input x;
  float* out;
};

struct Kernels {
  // Advance one layer for n sequences. `scratch`: n * kScratchFloats floats.
  void (*layer)(const Layer& layer, const LayerRow* rows, int n, float* scratch);
  // out = start + matrix * x, rows in their natural order.
  void (*dense)(const Matrix& matrix, const DenseRow* rows, int n);
  // values = tanh(values), and their bytes where `bytes` is not null; n a multiple of 16.
  void (*tanh)(float* values, unsigned char* bytes, int n);
  // bytes = values * up, to the nearest, at most 127.
  void (*to_bytes)(const float* values, unsigned char* bytes, int n, float up);
  // Bytes of values whose bound is not known beforehand, 127 standing for their largest magnitude; returns what a byte
  // is worth.
  float (*quantise)(const float* values, unsigned char* bytes, int n);
  // Unnormalised probabilities exp((logits - max) * inverse_temperature); n a multiple of 16. Returns the largest
  // logit.
  float (*weights_of)(const float* logits, float* weights, int n, float inverse_temperature);
  // Their sums, sixteen by sixteen, and the sum of these.
  double (*total)(const float* weights, float* sums, int n);
  // The index at which the running sum passes `target`, which lies in [0, total).
  int (*pick)(const float* weights, const float* sums, int n, double target);
  // The first index of the largest value.
  int (*largest)(const float* values, int n);
  int byte_bias;  // added to the bytes of activations
};

constexpr int kMaxTileVecs = 12;
constexpr std::size_t kScratchFloats = 2 * kMaxTileVecs * kLanes;
constexpr float kByteScale = 1.0f / 127.0f;

const Kernels& kernels_for(Isa isa);

// How `vecs` row vectors are cut into tiles, when `gates` of them belong together.
std::vector<int> tiles_of(int vecs, int gates);

// Bytes of one tile, and of a whole matrix, in the packed form.
std::size_t tile_bytes(Precision precision, int tile_vecs, int cols);

}  // namespace musicgen::generate
