// The kernels of attention, in terms of the lanes and activations included before this file. No standard library calls:
// see base/target.h.

inline float mean_of(V sum, int n) { return sum_of(sum) / static_cast<float>(n); }

void normalise(float* x, const float* gain, const float* shift, const float* later, float* out, int n) {
  V sum = load(x);
  for (int i = kLanes; i < n; i += kLanes) sum = add(sum, load(x + i));
  const V mean = set1(mean_of(sum, n));
  V squares = set1(0.0f);
  for (int i = 0; i < n; i += kLanes) {
    const V from_mean = sub(load(x + i), mean);
    squares = fma(from_mean, from_mean, squares);
  }
  const V scale = set1(1.0f / __builtin_sqrtf(mean_of(squares, n) + kNormEpsilon));
  for (int i = 0; i < n; i += kLanes) {
    const V value = load(x + i);
    store(out + i, fma(mul(sub(value, mean), scale), load(gain + i), load(shift + i)));
    if (later != nullptr) store(x + i, add(value, load(later + i)));
  }
}

// x * sigmoid(2 u) is x / 2 * (1 + tanh(u)), with u = sqrt(2 / pi) (x + 0.044715 x^3).
inline V gelu(V x) {
  const V cubed = mul(mul(x, x), x);
  return mul(x, sigmoid(mul(fma(cubed, set1(0.044715f), x), set1(1.5957691216057308f))));
}

void activate(Activation activation, const float* x, float* out, int n) {
  for (int i = 0; i < n; i += kLanes) {
    const V value = load(x + i);
    if (activation == Activation::relu) {
      store(out + i, max(value, set1(0.0f)));
    } else {
      const V passed = gelu(value);
      store(out + i, activation == Activation::gelu ? passed : mul(passed, load(x + n + i)));
    }
  }
}

constexpr int kScoreBlocks = kSoloVecs >= 8 ? 8 : kSoloVecs >= 4 ? 4 : 2;  // chains side by side
constexpr int kValueVecs = kSoloVecs >= 12 ? 4 : 1;                        // of four chains each

// Scores of N blocks of sixteen slots.
template <bool Halves, int N>
inline MUSICGEN_ALWAYS_INLINE void products_of(const char* keys, const float* query, int head_size, V (&sums)[N]) {
  const std::size_t block = static_cast<std::size_t>(head_size) * kLanes * (Halves ? 2 : 4);
  for (int b = 0; b < N; ++b) sums[b] = set1(0.0f);
  int k = 0;
  do {
    if constexpr (Halves) {
      const V first = set1(query[k]), second = set1(query[k + 1]);
      MUSICGEN_UNROLL
      for (int b = 0; b < N; ++b) {
        const Pair pair = load_pair(keys + static_cast<std::size_t>(b) * block);
        add_product(sums[b], even(pair), first);
        add_product(sums[b], odd(pair), second);
      }
      k += 2;
    } else {
      const V each = set1(query[k]);
      MUSICGEN_UNROLL
      for (int b = 0; b < N; ++b)
        sums[b] = fma(load(reinterpret_cast<const float*>(keys + static_cast<std::size_t>(b) * block)), each, sums[b]);
      ++k;
    }
    keys += 64;
  } while (k < head_size);
}

struct Scoring {
  const char* keys;
  const float* query;
  const float* bias[2];
  float* scores;
  int head_size, count;
  V most;
};

template <bool Halves, int N>
inline MUSICGEN_ALWAYS_INLINE void score(Scoring& s, int first_block) {
  V sums[N];
  const std::size_t block = static_cast<std::size_t>(s.head_size) * kLanes * (Halves ? 2 : 4);
  products_of<Halves, N>(s.keys + static_cast<std::size_t>(first_block) * block, s.query, s.head_size, sums);
  for (int b = 0; b < N; ++b) {
    const int slot = kLanes * (first_block + b);
    V value = sums[b];
    for (const float* bias : s.bias)
      if (bias != nullptr) value = add(value, load(bias + slot));
    if (slot + kLanes > s.count) value = add(value, load(kUnseen + kLanes - (s.count - slot)));
    s.most = max(value, s.most);
    store(s.scores + slot, value);
  }
}

template <bool Halves, int N>
inline MUSICGEN_ALWAYS_INLINE void score_all(Scoring& s, int block, int blocks) {
  for (; block + N <= blocks; block += N) score<Halves, N>(s, block);
  if constexpr (N > 1) score_all<Halves, N / 2>(s, block, blocks);
}

// out[16 N] = the values of 16 N numbers, weighed; `row`: bytes from one slot (or two) to the next.
template <bool Halves, int N>
inline MUSICGEN_ALWAYS_INLINE void weigh(const char* values, std::size_t row, const float* weights, int count, V share,
                                         float* out) {
  V sums[4][N];
  MUSICGEN_UNROLL
  for (int c = 0; c < 4; ++c) {
    MUSICGEN_UNROLL
    for (int v = 0; v < N; ++v) sums[c][v] = set1(0.0f);
  }
  for (int slot = 0; slot < count; slot += 4) {
    const V each[4] = {set1(weights[slot]), set1(weights[slot + 1]), set1(weights[slot + 2]), set1(weights[slot + 3])};
    if constexpr (Halves) {
      MUSICGEN_UNROLL
      for (int c = 0; c < 4; c += 2) {
        MUSICGEN_UNROLL
        for (int v = 0; v < N; ++v) {
          const Pair pair = load_pair(values + 64 * v);
          add_product(sums[c][v], even(pair), each[c]);
          add_product(sums[c + 1][v], odd(pair), each[c + 1]);
        }
        values += row;
      }
    } else {
      MUSICGEN_UNROLL
      for (int c = 0; c < 4; ++c) {
        MUSICGEN_UNROLL
        for (int v = 0; v < N; ++v)
          sums[c][v] = fma(load(reinterpret_cast<const float*>(values) + kLanes * v), each[c], sums[c][v]);
        values += row;
      }
    }
  }
  MUSICGEN_UNROLL
  for (int v = 0; v < N; ++v)
    store(out + kLanes * v, mul(add(add(sums[0][v], sums[1][v]), add(sums[2][v], sums[3][v])), share));
}

template <bool Halves, int N>
inline MUSICGEN_ALWAYS_INLINE void weigh_all(const char* values, int vec, int vecs, const float* weights, int count,
                                             V share, float* out) {
  const std::size_t row = static_cast<std::size_t>(64) * vecs;
  for (; vec + N <= vecs; vec += N) weigh<Halves, N>(values + 64 * vec, row, weights, count, share, out + kLanes * vec);
  if constexpr (N > 1) weigh_all<Halves, N / 2>(values, vec, vecs, weights, count, share, out);
}

template <bool Halves>
void attend_as(const AttentionQuery& q, int heads, int head_size) {
  const int count = q.view.count, blocks = (count + kLanes - 1) / kLanes, vecs = head_size / kLanes;
  const V down = set1(1.0f / __builtin_sqrtf(static_cast<float>(head_size))), least = set1(-87.0f);
  for (int h = 0; h < heads; ++h) {
    float* query = q.query + h * head_size;
    float* out = q.out + h * head_size;
    if (count == 0) {
      for (int i = 0; i < head_size; i += kLanes) store(out + i, set1(0.0f));
      continue;
    }
    for (int i = 0; i < head_size; i += kLanes) store(query + i, mul(load(query + i), down));
    const std::size_t at = static_cast<std::size_t>(h);
    Scoring s = {
        q.view.keys + at * q.view.pitch, query, {nullptr, nullptr}, q.scores, head_size, count, set1(-kInfinity)};
    for (int b = 0; b < 2; ++b)
      if (q.bias[b] != nullptr) s.bias[b] = q.bias[b] + at * q.bias_pitch[b];
    score_all<Halves, kScoreBlocks>(s, 0, blocks);
    const V top = set1(largest_of(s.most));
    V sum = set1(0.0f);
    for (int i = 0; i < kLanes * blocks; i += kLanes) {
      const V x = sub(load(q.scores + i), top);
      const V weight = zero_where_less(exponential(x), x, least);
      sum = add(sum, weight);
      store(q.scores + i, weight);
    }
    weigh_all<Halves, kValueVecs>(q.view.values + at * q.view.pitch, 0, vecs, q.scores, count, set1(1.0f / sum_of(sum)),
                                  out);
  }
}

void attend(const AttentionQuery& query, int heads, int head_size, bool halves) {
  halves ? attend_as<true>(query, heads, head_size) : attend_as<false>(query, heads, head_size);
}

constexpr AttentionKernels kAttentionKernels = {normalise, activate, attend};
