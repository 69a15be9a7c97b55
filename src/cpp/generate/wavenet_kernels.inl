// The kernels of a WaveNet's step, in terms of the lanes and activations included before this file. No standard library
// calls: see base/target.h.

void gate(const float* sums, float* z, unsigned char* bytes, int n) {
  for (int i = 0; i < n; i += kLanes) {
    const V value = gated(load(sums + 2 * i + kLanes), load(sums + 2 * i));
    store(z + i, value);
    if (bytes != nullptr) store_bytes(bytes + i, mul(value, set1(127.0f)));
  }
}

void add_all(float* h, const float* x, int n) {
  for (int i = 0; i < n; i += kLanes) store(h + i, add(load(h + i), load(x + i)));
}

void relu(const float* x, float* out, int n) {
  for (int i = 0; i < n; i += kLanes) store(out + i, max(load(x + i), set1(0.0f)));
}

// -- all layers for one sequence
// ---------------------------------------------------------------------------------------
//
// The chain from sample to sample is: newest tap, gate, residual, of every layer. Everything else, the older taps
// first, is put where the chain waits.

// Sums while they grow, and the line of weights (sixteen rows by one, two or four columns) that makes them grow.
template <Precision P>
struct Line {  // float32
  using Sum = V;
  static constexpr int kInputBytes = 4;
  V x;
  inline MUSICGEN_ALWAYS_INLINE explicit Line(const unsigned char* at) : x(set1(*reinterpret_cast<const float*>(at))) {}
  inline MUSICGEN_ALWAYS_INLINE void add_to(Sum& sum, const char* w) const {
    sum = fma(load(reinterpret_cast<const float*>(w)), x, sum);
  }
};
template <>
struct Line<Precision::bfloat16> {
  using Sum = V;
  static constexpr int kInputBytes = 8;
  V first, second;
  inline MUSICGEN_ALWAYS_INLINE explicit Line(const unsigned char* at)
      : first(set1(reinterpret_cast<const float*>(at)[0])), second(set1(reinterpret_cast<const float*>(at)[1])) {}
  inline MUSICGEN_ALWAYS_INLINE void add_to(Sum& sum, const char* w) const {
    const Pair pair = load_pair(w);
    add_product(sum, even(pair), first);
    add_product(sum, odd(pair), second);
  }
};
template <>
struct Line<Precision::int8> {
  using Sum = Sums;
  static constexpr int kInputBytes = 4;
  Four x;
  inline MUSICGEN_ALWAYS_INLINE explicit Line(const unsigned char* at) : x(four(at)) {}
  inline MUSICGEN_ALWAYS_INLINE void add_to(Sum& sum, const char* w) const { add_dot(sum, load_bytes(w), x); }
};

// How many bytes ahead of a product its weights are asked for: while the chain waits, they arrive.
constexpr std::size_t kAhead = 64 * 64;

template <Precision P, int N>
inline MUSICGEN_ALWAYS_INLINE void begin(typename Line<P>::Sum (&sums)[N], const float* start, const Matrix& m,
                                         int row) {
  MUSICGEN_UNROLL
  for (int v = 0; v < N; ++v) {
    if constexpr (P == Precision::int8) {
      sums[v] = sums_from(m.minus_bias + row + kLanes * v);
    } else {
      sums[v] = load(start + kLanes * v);
    }
  }
}

template <Precision P>
inline MUSICGEN_ALWAYS_INLINE V finish(typename Line<P>::Sum sum, const float* start, const Matrix& m, int row,
                                       float scale) {
  if constexpr (P == Precision::int8) {
    return fma(to_float(sum), mul(load(m.scale + row), set1(scale)), load(start));
  } else {
    return sum;
  }
}

template <Precision P, int N>
inline MUSICGEN_ALWAYS_INLINE void add_lines(typename Line<P>::Sum (&sums)[N], const char* w, std::size_t stride,
                                             const unsigned char* x, int lines) {
  do {
    const Line<P> line(x);
    MUSICGEN_UNROLL
    for (int v = 0; v < N; ++v) {
      fetch_ahead(w + kAhead + 64 * v);
      line.add_to(sums[v], w + 64 * v);
    }
    w += stride;
    x += Line<P>::kInputBytes;
  } while (--lines > 0);
}

// Two products at once.
template <Precision P, int M, int N>
inline MUSICGEN_ALWAYS_INLINE void add_lines(typename Line<P>::Sum (&a)[M], const char* wa, const unsigned char* xa,
                                             typename Line<P>::Sum (&b)[N], const char* wb, const unsigned char* xb,
                                             int lines) {
  do {
    const Line<P> line_a(xa), line_b(xb);
    MUSICGEN_UNROLL
    for (int v = 0; v < M; ++v) {
      fetch_ahead(wa + kAhead + 64 * v);
      line_a.add_to(a[v], wa + 64 * v);
    }
    MUSICGEN_UNROLL
    for (int v = 0; v < N; ++v) {
      fetch_ahead(wb + kAhead + 64 * v);
      line_b.add_to(b[v], wb + 64 * v);
    }
    wa += 64 * M;
    wb += 64 * N;
    xa += Line<P>::kInputBytes;
    xb += Line<P>::kInputBytes;
  } while (--lines > 0);
}

// Into how large parts n row vectors (or pairs of them) are cut: as many as the registers hold sums for, and no rest.
constexpr int part_of(int n, int most) {
  for (int part = n < most ? n : most; part > 1; --part)
    if (n % part == 0) return part;
  return 1;
}

// Not inlined into one another: the compiler would keep the constants of exp in the registers that the sums need.
template <Precision P, int RV>
struct Layers {
  using Sum = typename Line<P>::Sum;
  static constexpr bool kBytes = P == Precision::int8;
  static constexpr int kChannels = RV * kLanes, kGates = 2 * RV;
  static constexpr int kTile = kGates <= kMaxTileVecs ? kGates : 8;  // vectors: see tiles_of
  static constexpr int kBlock = 2 * part_of(kTile / 2, kSoloVecs / 2), kPart = part_of(RV, kSoloVecs);
  static constexpr int kLineCount = kChannels * (kBytes ? 1 : 4) / Line<P>::kInputBytes;
  static constexpr bool kTogether = kSoloVecs == kMaxTileVecs && 3 * RV <= kMaxTileVecs;
  static_assert(kGates % kTile == 0, "tiles of one size");

  static inline const char* weights(const Matrix& m, int vec) {
    return m.weights + static_cast<std::size_t>(vec / kTile) * m.tile_pitch +
           static_cast<std::size_t>(vec % kTile) * 64;
  }
  static inline const unsigned char* input(const WaveNetStep& s, std::size_t row) {
    return s.rings + row * s.row_bytes;
  }
  static inline float* sums_of(const WaveNetStep& s, int l) {
    return s.sums + static_cast<std::size_t>(l) * s.sums_pitch;
  }
  static inline float scale(const WaveNetStep& s, std::size_t row) { return kBytes ? s.scales[row] : 1.0f; }

  // out = start + tap * (a row of the ring)
  static inline void tap(const WaveNetStep& s, const Matrix& m, std::size_t row, const float* start, float* out) {
    for (int first = 0; first < kGates; first += kBlock) {
      Sum sums[kBlock];
      begin<P, kBlock>(sums, start + kLanes * first, m, kLanes * first);
      add_lines<P, kBlock>(sums, weights(m, first), static_cast<std::size_t>(64) * kTile, input(s, row), kLineCount);
      MUSICGEN_UNROLL
      for (int v = 0; v < kBlock; ++v) {
        const int at = kLanes * (first + v);
        store(out + at, finish<P>(sums[v], start + at, m, at, scale(s, row)));
      }
    }
  }

  static inline std::int64_t back(const WaveNetStep& s, const WaveNetLayer& layer, int k) {
    return (s.n_taps - 1 - k) * layer.dilation;
  }

  // What the taps [from, …) but the newest add to a layer's gates.
  static MUSICGEN_NOINLINE void older(const WaveNetStep& s, int l, int from, const float* start) {
    const WaveNetLayer& layer = s.layers[l];
    for (int k = from; k + 1 < s.n_taps; ++k) {
      tap(s, layer.taps[k], s.row(layer, back(s, layer, k)), start, sums_of(s, l));
      start = sums_of(s, l);
    }
  }

  // Stores h as the newest row of the layer's ring.
  static inline void remember(const WaveNetStep& s, std::size_t row, const V (&h)[RV]) {
    unsigned char* out = s.rings + row * s.row_bytes;
    if constexpr (kBytes) {
      V most = magnitude(h[0]);
      MUSICGEN_UNROLL
      for (int v = 1; v < RV; ++v) most = max(magnitude(h[v]), most);
      const float largest = largest_of(most);
      const V factor = set1(largest > 0.0f ? 127.0f / largest : 0.0f), limit = set1(127.0f);
      MUSICGEN_UNROLL
      for (int v = 0; v < RV; ++v) store_bytes(out + kLanes * v, min(mul(h[v], factor), limit));
      s.scales[row] = largest * kByteScale;
    } else {
      MUSICGEN_UNROLL
      for (int v = 0; v < RV; ++v) store(reinterpret_cast<float*>(out) + kLanes * v, h[v]);
    }
  }

  // The newest tap and the gates; where z was stored.
  static MUSICGEN_NOINLINE const unsigned char* newest(const WaveNetStep& s, int l) {
    const float* start = sums_of(s, l);
    const Matrix& m = s.layers[l].taps[s.n_taps - 1];
    const std::size_t row = s.row(s.layers[l], 0);
    float* const z = static_cast<float*>(s.z) + static_cast<std::size_t>(l) * kChannels;
    unsigned char* const bytes = static_cast<unsigned char*>(s.z) + static_cast<std::size_t>(l) * kChannels;
    for (int first = 0; first < kGates; first += kBlock) {
      Sum sums[kBlock];
      begin<P, kBlock>(sums, start + kLanes * first, m, kLanes * first);
      add_lines<P, kBlock>(sums, weights(m, first), static_cast<std::size_t>(64) * kTile, input(s, row), kLineCount);
      MUSICGEN_UNROLL
      for (int v = 0; v < kBlock; v += 2) {
        const int at = kLanes * (first + v);
        const V f = finish<P>(sums[v], start + at, m, at, scale(s, row));
        const V g = finish<P>(sums[v + 1], start + at + kLanes, m, at + kLanes, scale(s, row));
        const V value = gated(g, f);
        if constexpr (kBytes) {
          store_bytes(bytes + at / 2, mul(value, set1(127.0f)));
        } else {
          store(z + at / 2, value);
        }
      }
    }
    return kBytes ? bytes : reinterpret_cast<const unsigned char*>(z);
  }

  // h += residual(z)
  static inline void residual_alone(const WaveNetStep& s, const WaveNetLayer& layer, const unsigned char* z,
                                    V (&h)[RV]) {
    const Matrix& m = layer.residual;
    for (int first = 0; first < RV; first += kPart) {
      Sum sums[kPart];
      begin<P, kPart>(sums, layer.residual_bias + kLanes * first, m, kLanes * first);
      add_lines<P, kPart>(sums, m.weights + static_cast<std::size_t>(first) * 64, static_cast<std::size_t>(64) * RV, z,
                          kLineCount);
      MUSICGEN_UNROLL
      for (int v = 0; v < kPart; ++v) {
        const int at = kLanes * (first + v);
        h[first + v] = add(load(s.h + at), finish<P>(sums[v], layer.residual_bias + at, m, at, kByteScale));
      }
    }
  }

  // h += residual(z), and in its shadow the older taps of the next layer.
  static MUSICGEN_NOINLINE void residual(const WaveNetStep& s, int l, const unsigned char* z) {
    const WaveNetLayer &layer = s.layers[l], &next = s.layers[l + 1];
    const Matrix &m = layer.residual, &tap0 = next.taps[0];
    const float* start = s.start(l + 1, kGates * kLanes);
    V h[RV];
    if constexpr (kTogether) {
      const std::size_t row = s.row(next, back(s, next, 0));
      Sum sums[RV], gates[kGates];
      begin<P, RV>(sums, layer.residual_bias, m, 0);
      begin<P, kGates>(gates, start, tap0, 0);
      add_lines<P, RV, kGates>(sums, m.weights, z, gates, tap0.weights, input(s, row), kLineCount);
      MUSICGEN_UNROLL
      for (int v = 0; v < RV; ++v)
        h[v] = add(load(s.h + kLanes * v),
                   finish<P>(sums[v], layer.residual_bias + kLanes * v, m, kLanes * v, kByteScale));
      MUSICGEN_UNROLL
      for (int v = 0; v < kGates; ++v)
        store(sums_of(s, l + 1) + kLanes * v, finish<P>(gates[v], start + kLanes * v, tap0, kLanes * v, scale(s, row)));
      remember(s, s.row(next, 0), h);
      older(s, l + 1, 1, sums_of(s, l + 1));
    } else {
      older(s, l + 1, 0, start);
      residual_alone(s, layer, z, h);
      remember(s, s.row(next, 0), h);
    }
    MUSICGEN_UNROLL
    for (int v = 0; v < RV; ++v) store(s.h + kLanes * v, h[v]);
  }

  static inline void remember_input(const WaveNetStep& s, int l) {
    V h[RV];
    MUSICGEN_UNROLL
    for (int v = 0; v < RV; ++v) h[v] = load(s.h + kLanes * v);
    remember(s, s.row(s.layers[l], 0), h);
  }

  static void all(const WaveNetStep& s) {
    older(s, 0, 0, s.start(0, kGates * kLanes));
    remember_input(s, 0);
    for (int l = 0; l + 1 < s.n_layers; ++l) residual(s, l, newest(s, l));
    newest(s, s.n_layers - 1);
  }

  static void older_taps(const WaveNetStep& s, int l) { older(s, l, 0, s.start(l, kGates * kLanes)); }

  static void chain(const WaveNetStep& s, int l) {
    remember_input(s, l);
    const unsigned char* z = newest(s, l);
    if (l + 1 == s.n_layers) return;
    V h[RV];
    residual_alone(s, s.layers[l], z, h);
    MUSICGEN_UNROLL
    for (int v = 0; v < RV; ++v) store(s.h + kLanes * v, h[v]);
  }

  static constexpr WaveNetLayerKernels kKernels = {all, older_taps, chain};
};

template <Precision P>
inline const WaveNetLayerKernels* layers_of(int channel_vecs) {
  switch (channel_vecs) {
    case 1:
      return &Layers<P, 1>::kKernels;
    case 2:
      return &Layers<P, 2>::kKernels;
    case 3:
      return &Layers<P, 3>::kKernels;
    case 4:
      return &Layers<P, 4>::kKernels;
    case 6:
      return &Layers<P, 6>::kKernels;
    case 8:
      return &Layers<P, 8>::kKernels;
    default:
      return nullptr;
  }
}

const WaveNetLayerKernels* layers_for(Precision precision, int channel_vecs) {
  switch (precision) {
    case Precision::float32:
      return layers_of<Precision::float32>(channel_vecs);
    case Precision::bfloat16:
      return layers_of<Precision::bfloat16>(channel_vecs);
    default:
      return layers_of<Precision::int8>(channel_vecs);
  }
}

// -- some rows of a dense product
// --------------------------------------------------------------------------------------

void rows_begin(const RowsProduct& p) {
  const bool bytes = p.matrix->precision == Precision::int8;
  for (int v = p.first; v < p.first + p.vecs; ++v) {
    char* out = static_cast<char*>(p.sums) + 64 * v;
    if (bytes) {
      const Sums sums = sums_from(p.matrix->minus_bias + kLanes * v);
      __builtin_memcpy(out, &sums, 64);
    } else {
      __builtin_memcpy(out, p.start + kLanes * v, 64);
    }
  }
}

template <Precision P, int N>
inline void rows_block(const RowsProduct& p, int vec, int tile_vecs, const char* w, const unsigned char* x, int lines) {
  typename Line<P>::Sum sums[N];
  char* at = static_cast<char*>(p.sums) + 64 * vec;
  MUSICGEN_UNROLL
  for (int v = 0; v < N; ++v) __builtin_memcpy(&sums[v], at + 64 * v, 64);
  add_lines<P, N>(sums, w, static_cast<std::size_t>(64) * tile_vecs, x, lines);
  MUSICGEN_UNROLL
  for (int v = 0; v < N; ++v) __builtin_memcpy(at + 64 * v, &sums[v], 64);
}

template <Precision P>
inline void rows_add_of(const RowsProduct& p, int first, int n, const void* x) {
  constexpr int kColumns = P == Precision::float32 ? 1 : P == Precision::bfloat16 ? 2 : 4;
  const Matrix& m = *p.matrix;
  int row = 0;  // vectors before the tile
  for (int tile = 0; row < p.first + p.vecs; row += m.tiles[tile++]) {
    const int vecs = m.tiles[tile], end = p.first + p.vecs < row + vecs ? p.first + p.vecs : row + vecs;
    for (int v = p.first > row ? p.first : row; v < end;) {
      const char* w = m.weights + static_cast<std::size_t>(tile) * m.tile_pitch +
                      static_cast<std::size_t>(64) * (vecs * (first / kColumns) + v - row);
      const int left = end - v;
      const auto* from = static_cast<const unsigned char*>(x);
      if (kSoloVecs >= 8 && left >= 8) {
        rows_block<P, kSoloVecs >= 8 ? 8 : 1>(p, v, vecs, w, from, n / kColumns);
        v += 8;
      } else if (kSoloVecs >= 4 && left >= 4) {
        rows_block<P, kSoloVecs >= 4 ? 4 : 1>(p, v, vecs, w, from, n / kColumns);
        v += 4;
      } else if (left >= 2) {
        rows_block<P, 2>(p, v, vecs, w, from, n / kColumns);
        v += 2;
      } else {
        rows_block<P, 1>(p, v, vecs, w, from, n / kColumns);
        v += 1;
      }
    }
  }
}

void rows_add(const RowsProduct& p, int first, int n, const void* x) {
  switch (p.matrix->precision) {
    case Precision::float32:
      return rows_add_of<Precision::float32>(p, first, n, x);
    case Precision::bfloat16:
      return rows_add_of<Precision::bfloat16>(p, first, n, x);
    default:
      return rows_add_of<Precision::int8>(p, first, n, x);
  }
}

void rows_end(const RowsProduct& p, float scale) {
  for (int v = p.first; v < p.first + p.vecs; ++v) {
    const char* at = static_cast<const char*>(p.sums) + 64 * v;
    const int row = kLanes * v;
    if (p.matrix->precision == Precision::int8) {
      Sums sums;
      __builtin_memcpy(&sums, at, 64);
      store(p.out + row, finish<Precision::int8>(sums, p.start + row, *p.matrix, row, scale));
    } else {
      __builtin_memcpy(p.out + row, at, 64);
    }
  }
}

constexpr WaveNetKernels kWaveNetKernels = {gate, add_all, relu, layers_for, rows_begin, rows_add, rows_end};
