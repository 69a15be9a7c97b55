// The kernels, in terms of the lanes and activations included before this file. No standard library calls: see
// base/target.h.

// acc[b][v] += rows (first + v) of a tile times x[b], for NV row vectors and NB inputs. A matrix has at least sixteen
// columns; loops that know it run without copies of their accumulators (GCC 12). Far: weights are
// asked for before they are needed, Matrix::lines_ahead lines if there is one input.
template <Precision P, int NV, int NB, bool Far>
inline MUSICGEN_ALWAYS_INLINE void accumulate(V (&acc)[NB][NV], const Matrix& m, const char* w, std::size_t stride,
                                              int row, const Input* x, std::ptrdiff_t ahead, int lines) {
  const unsigned char* data[NB];
  const std::size_t distance = stride * static_cast<std::size_t>(m.lines_ahead);
  for (int b = 0; b < NB; ++b) data[b] = x[b].data;
  if constexpr (P == Precision::float32) {
    int k = 0;
    do {
      if constexpr (Far && NB > 1)
        for (int line = 0; line < lines; ++line) fetch_near(w + ahead + 64 * line);
      V each[NB];
      for (int b = 0; b < NB; ++b) each[b] = set1(reinterpret_cast<const float*>(data[b])[k]);
      for (int v = 0; v < NV; ++v) {
        if constexpr (Far && NB == 1) fetch_ahead(w + distance + 64 * v);
        const V weight = load(reinterpret_cast<const float*>(w) + kLanes * v);
        for (int b = 0; b < NB; ++b) acc[b][v] = fma(weight, each[b], acc[b][v]);
      }
      w += stride;
    } while (++k < m.cols);
  } else if constexpr (P == Precision::bfloat16) {
    int k = 0;
    do {
      if constexpr (Far && NB > 1)
        for (int line = 0; line < lines; ++line) fetch_near(w + ahead + 64 * line);
      V first[NB], second[NB];
      for (int b = 0; b < NB; ++b) {
        first[b] = set1(reinterpret_cast<const float*>(data[b])[k]);
        second[b] = set1(reinterpret_cast<const float*>(data[b])[k + 1]);
      }
      for (int v = 0; v < NV; ++v) {
        if constexpr (Far && NB == 1) fetch_ahead(w + distance + 64 * v);
        const Pair pair = load_pair(w + 64 * v);
        const V low = even(pair), high = odd(pair);
        for (int b = 0; b < NB; ++b) {
          if constexpr (NB == 1) {
            add_product(acc[b][v], low, first[b]);
            add_product(acc[b][v], high, second[b]);
          } else {
            acc[b][v] = fma(high, second[b], fma(low, first[b], acc[b][v]));
          }
        }
      }
      w += stride;
    } while ((k += 2) < m.cols);
  } else {
    Sums sums[NB][NV];
    for (int b = 0; b < NB; ++b)
      for (int v = 0; v < NV; ++v) sums[b][v] = sums_from(m.minus_bias + row + kLanes * v);
    int k = 0;
    do {
      Four each[NB];
      for (int b = 0; b < NB; ++b) each[b] = four(data[b] + k);
      for (int v = 0; v < NV; ++v) {
        const Bytes weight = load_bytes(w + 64 * v);
        for (int b = 0; b < NB; ++b) add_dot(sums[b][v], weight, each[b]);
      }
      w += stride;
    } while ((k += 4) < m.cols);
    for (int b = 0; b < NB; ++b)
      for (int v = 0; v < NV; ++v)
        acc[b][v] = fma(to_float(sums[b][v]), mul(load(m.scale + row + kLanes * v), set1(x[b].scale)), acc[b][v]);
  }
}

// Up to two matrices that add into the same rows.
struct Term {
  const Matrix* matrix;
  const Input* x;
  std::ptrdiff_t ahead;  // from a line of weights to one that a later product wants in the second-level cache; 0: none
  int lines;             // how many of these, 64 bytes apart
};

template <Precision P, int NV, int NB>
void block(const Term* terms, int n_terms, int tile, int vecs, int first, int row, const float* const* start,
           float* const* out) {
  V acc[NB][NV];
  for (int b = 0; b < NB; ++b)
    for (int v = 0; v < NV; ++v) acc[b][v] = load(start[b] + kLanes * v);
  for (int t = 0; t < n_terms; ++t) {
    const Matrix& m = *terms[t].matrix;
    const char* w = m.weights + static_cast<std::size_t>(tile) * m.tile_pitch + static_cast<std::size_t>(64) * first;
    const std::size_t stride = static_cast<std::size_t>(64) * vecs;
    constexpr bool kMayFetch = P != Precision::int8;
    if (kMayFetch && (NB == 1 ? m.lines_ahead > 0 : terms[t].ahead != 0)) {
      accumulate<P, NV, NB, kMayFetch>(acc, m, w, stride, row, terms[t].x, terms[t].ahead, terms[t].lines);
    } else {
      accumulate<P, NV, NB, false>(acc, m, w, stride, row, terms[t].x, 0, 0);
    }
  }
  for (int b = 0; b < NB; ++b)
    for (int v = 0; v < NV; ++v) store(out[b] + kLanes * v, acc[b][v]);
}

using BlockFunction = void (*)(const Term*, int, int, int, int, int, const float* const*, float* const*);

template <Precision P, int NB>
inline BlockFunction block_for(int nv) {
#define MUSICGEN_CASE(n)                                                           \
  case n:                                                                          \
    if constexpr (n <= (NB == 1 ? kSoloVecs : kBatchVecs)) return block<P, n, NB>; \
    break;
  switch (nv) {
    MUSICGEN_CASE(1)
    MUSICGEN_CASE(2)
    MUSICGEN_CASE(3)
    MUSICGEN_CASE(4)
    MUSICGEN_CASE(5)
    MUSICGEN_CASE(6)
    MUSICGEN_CASE(7)
    MUSICGEN_CASE(8)
    MUSICGEN_CASE(9)
    MUSICGEN_CASE(10)
    MUSICGEN_CASE(11)
    MUSICGEN_CASE(12)
  }
#undef MUSICGEN_CASE
  return nullptr;
}

template <Precision P>
inline BlockFunction block_for(int nv, int nb) {
#define MUSICGEN_CASE(n)                                       \
  case n:                                                      \
    if constexpr (n <= kBatchRows) return block_for<P, n>(nv); \
    break;
  switch (nb) {
    MUSICGEN_CASE(1)
    MUSICGEN_CASE(2)
    MUSICGEN_CASE(3)
    MUSICGEN_CASE(4)
    MUSICGEN_CASE(5)
    MUSICGEN_CASE(6)
  }
#undef MUSICGEN_CASE
  return nullptr;
}

// The size of part i when n things are cut into as few parts of at most `most` as possible, as evenly as possible.
inline int parts_of(int n, int most) { return (n + most - 1) / most; }
inline int part_size(int n, int parts, int i) { return n / parts + (i < n % parts ? 1 : 0); }

// Rows of one tile for n sequences. x[t] points to n inputs for term t; start and out to n row pointers of the tile.
template <Precision P>
inline void tile_product(const Matrix* const* matrices, const Input* const* x, int n_terms, int tile, int vecs, int row,
                         const float* const* start, float* const* out, int n) {
  Term terms[2];
  for (int t = 0; t < n_terms; ++t) terms[t] = {matrices[t], x[t], 0, 0};
  const int row_parts = n == 1 ? 1 : parts_of(n, kBatchRows);
  const int vec_parts = parts_of(vecs, n == 1 ? kSoloVecs : kBatchVecs);
  for (int vp = 0, first = 0; vp < vec_parts; ++vp) {
    const int nv = part_size(vecs, vec_parts, vp);
    for (int rp = 0, b = 0; rp < row_parts; ++rp) {
      const int nb = part_size(n, row_parts, rp);
      const float* starts[kBatchRows];
      float* outs[kBatchRows];
      for (int i = 0; i < nb; ++i) {
        starts[i] = start[b + i] + kLanes * first;
        outs[i] = out[b + i] + kLanes * first;
      }
      // While the first part of a batch waits for its weights, the others compute from cache: let these fetch what the
      // next rows will want, each its share of the row vectors.
      for (int t = 0; t < n_terms && matrices[t]->far && rp > 0; ++t) {
        const std::ptrdiff_t next =
            first + nv < vecs ? 64 * nv : static_cast<std::ptrdiff_t>(matrices[t]->tile_pitch) - 64 * first;
        const int before = nv * (rp - 1) / (row_parts - 1);
        terms[t].lines = nv * rp / (row_parts - 1) - before;
        terms[t].ahead = terms[t].lines > 0 ? next + 64 * before : 0;
      }
      const BlockFunction f = block_for<P>(nv, nb);
      f(terms, n_terms, tile, vecs, first, row + kLanes * first, starts, outs);
      for (int t = 0; t < n_terms; ++t) terms[t].x += nb;
      b += nb;
    }
    for (int t = 0; t < n_terms; ++t) {
      terms[t].x = x[t];
      terms[t].ahead = 0;
    }
    first += nv;
  }
}

// Bytes of activations: 127 at most, so that the products of AVX2 cannot saturate.
void to_bytes(const float* values, unsigned char* bytes, int n, float up) {
  const V factor = set1(up), most = set1(127.0f);
  for (int i = 0; i < n; i += kLanes) store_bytes(bytes + i, min(mul(load(values + i), factor), most));
}

float quantise(const float* values, unsigned char* bytes, int n) {
  V most = set1(0.0f);
  for (int i = 0; i < n; i += kLanes) most = max(magnitude(load(values + i)), most);
  const float largest = largest_of(most);
  to_bytes(values, bytes, n, largest > 0.0f ? 127.0f / largest : 0.0f);
  return largest * kByteScale;
}

constexpr int kGroup = 48;  // sequences that go through a layer together: their scratch stays in the first-level cache

// What the gates of sixteen units do to the state of one sequence. `gates` holds the sums, in tile order.
template <Cell C>
inline V cell_step(const float* gates, const float* recurrent, const LayerRow& row, int unit) {
  if constexpr (C == Cell::lstm) {
    const V i = load(gates), f = load(gates + 16), g = load(gates + 32), o = load(gates + 48);
    const V c = fma(sigmoid(f), load(row.c + unit), gated(i, g));
    store(row.c + unit, c);
    return gated(o, c);
  } else if constexpr (C == Cell::gru) {
    const V r = sigmoid(add(load(gates), load(recurrent))), z = sigmoid(add(load(gates + 16), load(recurrent + 16)));
    const V n = tanh_of(fma(r, load(recurrent + 32), load(gates + 32)));
    return fma(z, sub(load(row.h_float + unit), n), n);
  } else if constexpr (C == Cell::rnn_tanh) {
    return tanh_of(load(gates));
  } else {
    return max(load(gates), set1(0.0f));
  }
}

template <Precision P, Cell C>
void layer_step(const Layer& layer, const LayerRow* rows, int n, float* scratch) {
  constexpr int kGates = C == Cell::lstm ? 4 : C == Cell::gru ? 3 : 1;
  constexpr bool kApart = C == Cell::gru;  // the recurrent part of the new gate is scaled before it is added
  Input xs[kGroup], hs[kGroup];
  const float* starts[kGroup];
  const float* recurrent_starts[kGroup];
  float* sums[kGroup];
  float* recurrent_sums[kGroup];
  for (int first = 0; first < n; first += kGroup) {
    const int count = n - first < kGroup ? n - first : kGroup;
    for (int b = 0; b < count; ++b) {
      xs[b] = rows[first + b].x;
      hs[b] = rows[first + b].h;
      sums[b] = scratch + static_cast<std::size_t>(b) * kScratchFloats;
      recurrent_sums[b] = sums[b] + kMaxTileVecs * kLanes;
    }
    int row = 0;
    for (int tile = 0, tiles = static_cast<int>(layer.hh.tiles.size()); tile < tiles; ++tile) {
      const int vecs = layer.hh.tiles[tile];
      for (int b = 0; b < count; ++b) starts[b] = rows[first + b].start + row;
      const float* const* gates = sums;
      if constexpr (kApart) {
        if (layer.has_input) {
          const Matrix* matrices[1] = {&layer.ih};
          const Input* inputs[1] = {xs};
          tile_product<P>(matrices, inputs, 1, tile, vecs, row, starts, sums, count);
        } else {
          gates = starts;
        }
        for (int b = 0; b < count; ++b) recurrent_starts[b] = layer.bias_hh + row;
        const Matrix* matrices[1] = {&layer.hh};
        const Input* inputs[1] = {hs};
        tile_product<P>(matrices, inputs, 1, tile, vecs, row, recurrent_starts, recurrent_sums, count);
      } else if (layer.has_input) {
        const Matrix* matrices[2] = {&layer.ih, &layer.hh};
        const Input* inputs[2] = {xs, hs};
        tile_product<P>(matrices, inputs, 2, tile, vecs, row, starts, sums, count);
      } else {
        const Matrix* matrices[1] = {&layer.hh};
        const Input* inputs[1] = {hs};
        tile_product<P>(matrices, inputs, 1, tile, vecs, row, starts, sums, count);
      }
      for (int b = 0; b < count; ++b) {
        const LayerRow& r = rows[first + b];
        for (int j = 0; j < vecs / kGates; ++j) {
          const int unit = row / kGates + kLanes * j, gate = kLanes * kGates * j;
          const V h = cell_step<C>(gates[b] + gate, recurrent_sums[b] + gate, r, unit);
          store(r.h_out + unit, h);
          if constexpr (P == Precision::int8 && C != Cell::rnn_relu)
            store_bytes(r.bytes_out + unit, mul(h, set1(127.0f)));
        }
      }
      row += kLanes * vecs;
    }
    if constexpr (P == Precision::int8) {
      for (int b = 0; b < count; ++b) {
        const LayerRow& r = rows[first + b];
        float scale = kByteScale;
        if constexpr (C == Cell::rnn_relu) {  // no bound known beforehand: scale by the largest unit
          V most = set1(0.0f);
          for (int unit = 0; unit < layer.units; unit += kLanes) most = max(load(r.h_out + unit), most);
          const float largest = largest_of(most);
          scale = largest * kByteScale;
          to_bytes(r.h_out, r.bytes_out, layer.units, largest > 0.0f ? 127.0f / largest : 0.0f);
        }
        *r.scale_out = scale;
      }
    }
  }
}

template <Precision P>
inline void layer_of(const Layer& layer, const LayerRow* rows, int n, float* scratch) {
  switch (layer.cell) {
    case Cell::lstm:
      return layer_step<P, Cell::lstm>(layer, rows, n, scratch);
    case Cell::gru:
      return layer_step<P, Cell::gru>(layer, rows, n, scratch);
    case Cell::rnn_tanh:
      return layer_step<P, Cell::rnn_tanh>(layer, rows, n, scratch);
    case Cell::rnn_relu:
      return layer_step<P, Cell::rnn_relu>(layer, rows, n, scratch);
  }
}

void layer(const Layer& of, const LayerRow* rows, int n, float* scratch) {
  switch (of.hh.precision) {
    case Precision::float32:
      return layer_of<Precision::float32>(of, rows, n, scratch);
    case Precision::bfloat16:
      return layer_of<Precision::bfloat16>(of, rows, n, scratch);
    case Precision::int8:
      return layer_of<Precision::int8>(of, rows, n, scratch);
  }
}

template <Precision P>
inline void dense_of(const Matrix& m, const DenseRow* rows, int n) {
  Input xs[kGroup];
  const float* starts[kGroup];
  float* outs[kGroup];
  const Matrix* matrices[1] = {&m};
  const Input* inputs[1] = {xs};
  for (int first = 0; first < n; first += kGroup) {
    const int count = n - first < kGroup ? n - first : kGroup;
    for (int b = 0; b < count; ++b) xs[b] = rows[first + b].x;
    int row = 0;
    for (int tile = 0, tiles = static_cast<int>(m.tiles.size()); tile < tiles; ++tile) {
      for (int b = 0; b < count; ++b) {
        starts[b] = rows[first + b].start + row;
        outs[b] = rows[first + b].out + row;
      }
      tile_product<P>(matrices, inputs, 1, tile, m.tiles[tile], row, starts, outs, count);
      row += kLanes * m.tiles[tile];
    }
  }
}

void dense(const Matrix& m, const DenseRow* rows, int n) {
  switch (m.precision) {
    case Precision::float32:
      return dense_of<Precision::float32>(m, rows, n);
    case Precision::bfloat16:
      return dense_of<Precision::bfloat16>(m, rows, n);
    case Precision::int8:
      return dense_of<Precision::int8>(m, rows, n);
  }
}

void tanh_all(float* values, unsigned char* bytes, int n) {
  for (int i = 0; i < n; i += kLanes) store(values + i, tanh_of(load(values + i)));
  if (bytes != nullptr) to_bytes(values, bytes, n, 127.0f);
}

constexpr float kLargestFloat = 3.402823466e38f;

// Not-a-number counts as the least, infinity as the largest finite number.
inline V orderly(V x) { return min(max(x, set1(-kInfinity)), set1(kLargestFloat)); }

float weights_of(const float* logits, float* weights, int n, float inverse_temperature) {
  V most = set1(-kInfinity);
  for (int i = 0; i < n; i += kLanes) most = max(orderly(load(logits + i)), most);
  const float largest = largest_of(most);
  const V top = set1(largest), inverse = set1(inverse_temperature), least = set1(-87.0f);
  for (int i = 0; i < n; i += kLanes) {
    const V x = mul(sub(orderly(load(logits + i)), top), inverse);
    store(weights + i, zero_where_less(exponential(x), x, least));
  }
  return largest;
}

double total(const float* weights, float* sums, int n) {
  double sum = 0.0;
  for (int i = 0; i < n; i += kLanes) {
    sums[i / kLanes] = sum_of(load(weights + i));
    sum += static_cast<double>(sums[i / kLanes]);
  }
  return sum;
}

int pick(const float* weights, const float* sums, int n, double target) {
  double sum = 0.0;
  int block = 0;
  for (int last = n / kLanes - 1; block < last; ++block) {
    const double with = sum + static_cast<double>(sums[block]);
    if (with > target) break;
    sum = with;
  }
  for (int j = kLanes * block; j < kLanes * (block + 1); ++j) {
    sum += static_cast<double>(weights[j]);
    if (sum > target) return j;
  }
  // The lanes one by one may round to a hair less than their sum: then it is the last token that has any weight.
  for (int j = kLanes * (block + 1) - 1; j > 0; --j)
    if (weights[j] > 0.0f) return j;
  return 0;
}

int largest(const float* values, int n) {
  V most = set1(-kInfinity);
  for (int i = 0; i < n; i += kLanes) most = max(orderly(load(values + i)), most);
  const float top = largest_of(most);
  for (int i = 0; i < n; ++i)
    if (values[i] >= top) return i;
  return 0;
}

constexpr Kernels kKernels = {layer, dense, tanh_all, to_bytes, quantise, weights_of, total, pick, largest, kByteBias};
