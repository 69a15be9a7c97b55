// The kernels, in terms of the registers included before this file. No standard library calls: see base/target.h.

// Sixteen floats, one to a lane, in as many registers as they take.
constexpr int kWidth = RegisterOf<float>::width, kParts = kLanes / kWidth;
struct V {
  RegisterOf<float>::Type part[kParts];
};
struct Mask {
  RegisterOf<float>::Mask part[kParts];
};

template <typename R, typename Part>
inline MUSICGEN_ALWAYS_INLINE R from_parts(const Part& part) {
  R r;
  for (int i = 0; i < kParts; ++i) r.part[i] = part(i);
  return r;
}
inline V load_all(const float* p) {
  return from_parts<V>([&](int i) MUSICGEN_ALWAYS_INLINE { return load(p + i * kWidth); });
}
inline void store(float* p, V a) {
  for (int i = 0; i < kParts; ++i) store(p + i * kWidth, a.part[i]);
}
inline V set_all(float x) {
  return from_parts<V>([&](int) MUSICGEN_ALWAYS_INLINE { return set1(x); });
}
inline V add(V a, V b) {
  return from_parts<V>([&](int i) MUSICGEN_ALWAYS_INLINE { return add(a.part[i], b.part[i]); });
}
inline V sub(V a, V b) {
  return from_parts<V>([&](int i) MUSICGEN_ALWAYS_INLINE { return sub(a.part[i], b.part[i]); });
}
inline V mul(V a, V b) {
  return from_parts<V>([&](int i) MUSICGEN_ALWAYS_INLINE { return mul(a.part[i], b.part[i]); });
}
inline V muladd(V a, V b, V c) {
  return from_parts<V>([&](int i) MUSICGEN_ALWAYS_INLINE { return muladd(a.part[i], b.part[i], c.part[i]); });
}
inline V max(V a, V b) {
  return from_parts<V>([&](int i) MUSICGEN_ALWAYS_INLINE { return max(a.part[i], b.part[i]); });
}
inline V root(V a) {
  return from_parts<V>([&](int i) MUSICGEN_ALWAYS_INLINE { return root(a.part[i]); });
}
inline Mask less(V a, V b) {
  return from_parts<Mask>([&](int i) MUSICGEN_ALWAYS_INLINE { return less(a.part[i], b.part[i]); });
}
inline V select(Mask m, V a, V b) {
  return from_parts<V>([&](int i) MUSICGEN_ALWAYS_INLINE { return select(m.part[i], a.part[i], b.part[i]); });
}
// first, then the lanes of a without the last.
inline V shift_in(float first, V a) {
  return from_parts<V>(
      [&](int i) MUSICGEN_ALWAYS_INLINE { return shift_in(i == 0 ? set1(first) : a.part[i - 1], a.part[i]); });
}

// out[0 … kOffsets) = sum over rows r and frames j of clip[r][j] * piece[r][j + offset]. Frames sixteen apart follow
// one another, in chains that are added up apart: errors stay small, and what one frame loads is what the next ones
// need.
void correlate_block(const float* clip, std::size_t clip_stride, const float* piece, std::size_t piece_stride, int dims,
                     std::int64_t frames, float* out) {
  static_assert(kOffsets == 4 * kLanes, "four vectors of offsets");
  V total[4] = {set_all(0.0f), set_all(0.0f), set_all(0.0f), set_all(0.0f)};
  for (int r = 0; r < dims; ++r, clip += clip_stride, piece += piece_stride) {
    for (std::int64_t phase = 0; phase < kLanes && phase < frames; ++phase) {
      const float *q = clip + phase, *x = piece + phase, *const end = clip + frames;
      V s0 = set_all(0.0f), s1 = s0, s2 = s0, s3 = s0;
      const auto step = [&](V a, V b, V c, V d) MUSICGEN_ALWAYS_INLINE {
        const V each = set_all(*q);
        s0 = muladd(each, a, s0);
        s1 = muladd(each, b, s1);
        s2 = muladd(each, c, s2);
        s3 = muladd(each, d, s3);
        q += kLanes;
        x += kLanes;
      };
      if constexpr (kParts == 1) {  // four vectors and their sums fit in the registers
        V a = load_all(x), b = load_all(x + kLanes), c = load_all(x + 2 * kLanes), d;
        while (end - q > 3 * kLanes) {
          d = load_all(x + 3 * kLanes);
          step(a, b, c, d);
          a = load_all(x + 3 * kLanes);
          step(b, c, d, a);
          b = load_all(x + 3 * kLanes);
          step(c, d, a, b);
          c = load_all(x + 3 * kLanes);
          step(d, a, b, c);
        }
      }
      while (q < end) step(load_all(x), load_all(x + kLanes), load_all(x + 2 * kLanes), load_all(x + 3 * kLanes));
      total[0] = add(total[0], s0);
      total[1] = add(total[1], s1);
      total[2] = add(total[2], s2);
      total[3] = add(total[3], s3);
    }
  }
  for (int v = 0; v < 4; ++v) store(out + kLanes * v, total[v]);
}

// Lane l of step t is the cell (row l of the strip, frame t - l): its neighbours come from the two steps before.
template <Cost C, bool Trace>
inline MUSICGEN_ALWAYS_INLINE void warp_steps_of(const Strip& s, Carry& carry, std::int64_t first, std::int64_t last) {
  const V w_both = load_all(s.weights[0]), w_piece = load_all(s.weights[1]), w_clip = load_all(s.weights[2]);
  V left = load_all(carry.left), corner = load_all(carry.corner);
  V left_start = load_all(carry.left_start), corner_start = load_all(carry.corner_start);
  float out[kLanes];
  for (std::int64_t t = first; t < last; ++t) {
    V cost = set_all(C == Cost::cosine ? 1.0f : 0.0f);
    const float* x = s.piece - t;
    for (int k = 0; k < s.dims; ++k, x += s.piece_stride) {
      const V clip = load_all(s.clip + kLanes * k);
      if constexpr (C == Cost::cosine) {
        cost = muladd(clip, load_all(x), cost);  // of the negative
      } else {
        const V difference = sub(clip, load_all(x));
        cost = muladd(difference, difference, cost);
      }
    }
    cost = C == Cost::cosine ? max(cost, set_all(0.0f)) : root(cost);

    // The row above the strip lies where this strip's last row is going: read before it is written.
    float start_above;
    __builtin_memcpy(&start_above, s.row_start + t, sizeof(float));
    const V up = shift_in(s.row[t], left), up_start = shift_in(start_above, left_start);
    V best = add(corner, mul(w_both, cost)), start = corner_start;
    const V by_piece = add(left, mul(w_piece, cost));
    const Mask m1 = less(by_piece, best);
    best = select(m1, by_piece, best);
    start = select(m1, left_start, start);
    const V by_clip = add(up, mul(w_clip, cost));
    const Mask m2 = less(by_clip, best);
    best = select(m2, by_clip, best);
    start = select(m2, up_start, start);
    if constexpr (Trace)
      store(s.steps + kLanes * t, select(m2, set_all(2.0f), select(m1, set_all(1.0f), set_all(0.0f))));
    corner = up;
    corner_start = up_start;
    left = best;
    left_start = start;
    if (t >= s.last_lane) {
      store(out, best);
      s.row[t - s.last_lane] = out[s.last_lane];
      store(out, start);
      __builtin_memcpy(s.row_start + (t - s.last_lane), out + s.last_lane, sizeof(float));
    }
  }
  store(carry.left, left);
  store(carry.corner, corner);
  store(carry.left_start, left_start);
  store(carry.corner_start, corner_start);
}

void warp_steps(const Strip& s, Carry& carry, std::int64_t first, std::int64_t last) {
  if (s.steps != nullptr) {
    s.cost == Cost::cosine ? warp_steps_of<Cost::cosine, true>(s, carry, first, last)
                           : warp_steps_of<Cost::euclidean, true>(s, carry, first, last);
  } else {
    s.cost == Cost::cosine ? warp_steps_of<Cost::cosine, false>(s, carry, first, last)
                           : warp_steps_of<Cost::euclidean, false>(s, carry, first, last);
  }
}

const Kernels kKernels = {correlate_block, warp_steps};
