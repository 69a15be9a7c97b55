// The kernels, in terms of the lanes included before this file. No standard library calls: see base/target.h.

// out[0 … kOffsets) = sum over rows r and frames j of clip[r][j] * piece[r][j + offset]. Frames sixteen apart follow
// one another, in chains that are added up apart: errors stay small, and what one frame loads is what the next ones
// need.
void correlate_block(const float* clip, std::size_t clip_stride, const float* piece, std::size_t piece_stride, int dims,
                     std::int64_t frames, float* out) {
  static_assert(kOffsets == 4 * kLanes, "four vectors of offsets");
  V total[4] = {set1(0.0f), set1(0.0f), set1(0.0f), set1(0.0f)};
  for (int r = 0; r < dims; ++r, clip += clip_stride, piece += piece_stride) {
    for (std::int64_t phase = 0; phase < kLanes && phase < frames; ++phase) {
      const float *q = clip + phase, *x = piece + phase, *const end = clip + frames;
      V s0 = set1(0.0f), s1 = s0, s2 = s0, s3 = s0;
      const auto step = [&](V a, V b, V c, V d) __attribute__((always_inline)) {
        const V each = set1(*q);
        s0 = fma(each, a, s0);
        s1 = fma(each, b, s1);
        s2 = fma(each, c, s2);
        s3 = fma(each, d, s3);
        q += kLanes;
        x += kLanes;
      };
      if constexpr (kManyRegisters) {
        V a = load(x), b = load(x + kLanes), c = load(x + 2 * kLanes), d;
        while (end - q > 3 * kLanes) {
          d = load(x + 3 * kLanes);
          step(a, b, c, d);
          a = load(x + 3 * kLanes);
          step(b, c, d, a);
          b = load(x + 3 * kLanes);
          step(c, d, a, b);
          c = load(x + 3 * kLanes);
          step(d, a, b, c);
        }
      }
      while (q < end) step(load(x), load(x + kLanes), load(x + 2 * kLanes), load(x + 3 * kLanes));
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
inline __attribute__((always_inline)) void warp_steps_of(const Strip& s, Carry& carry, std::int64_t first,
                                                         std::int64_t last) {
  const V w_both = load(s.weights[0]), w_piece = load(s.weights[1]), w_clip = load(s.weights[2]);
  V left = load(carry.left), corner = load(carry.corner);
  V left_start = load(carry.left_start), corner_start = load(carry.corner_start);
  float out[kLanes];
  for (std::int64_t t = first; t < last; ++t) {
    V cost = set1(C == Cost::cosine ? 1.0f : 0.0f);
    const float* x = s.piece - t;
    for (int k = 0; k < s.dims; ++k, x += s.piece_stride) {
      const V clip = load(s.clip + kLanes * k);
      if constexpr (C == Cost::cosine) {
        cost = fma(clip, load(x), cost);  // of the negative
      } else {
        const V difference = sub(clip, load(x));
        cost = fma(difference, difference, cost);
      }
    }
    cost = C == Cost::cosine ? max(cost, set1(0.0f)) : sqrt(cost);

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
    if constexpr (Trace) store(s.steps + kLanes * t, select(m2, set1(2.0f), select(m1, set1(1.0f), set1(0.0f))));
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
