// The kernels, in terms of the registers included before this file. No standard library calls: see base/target.h.

template <typename T>
using Register = typename RegisterOf<T>::Type;
template <typename T>
constexpr int kWidth = RegisterOf<T>::width;

// Square transposes of doubles go through memory: nobody waits for them.
template <int W>
inline void transpose(Register<double> (&r)[W]) {
  double from[W * W], to[W * W];
  for (int i = 0; i < W; ++i) store(from + i * W, r[i]);
  for (int i = 0; i < W; ++i)
    for (int j = 0; j < W; ++j) to[j * W + i] = from[i * W + j];
  for (int i = 0; i < W; ++i) r[i] = load(to + i * W);
}

// -- butterflies: the discrete Fourier transform of P complex numbers, in place ------------------------------------

template <typename T>
inline void butterfly2(Register<T>* re, Register<T>* im) {
  const Register<T> r = re[0], i = im[0];
  re[0] = add(r, re[1]);
  im[0] = add(i, im[1]);
  re[1] = sub(r, re[1]);
  im[1] = sub(i, im[1]);
}

template <typename T>
inline void butterfly4(Register<T>* re, Register<T>* im) {
  const Register<T> ar = add(re[0], re[2]), ai = add(im[0], im[2]), br = sub(re[0], re[2]), bi = sub(im[0], im[2]);
  const Register<T> cr = add(re[1], re[3]), ci = add(im[1], im[3]), dr = sub(re[1], re[3]), di = sub(im[1], im[3]);
  re[0] = add(ar, cr);
  im[0] = add(ai, ci);
  re[1] = add(br, di);
  im[1] = sub(bi, dr);
  re[2] = sub(ar, cr);
  im[2] = sub(ai, ci);
  re[3] = sub(br, di);
  im[3] = add(bi, dr);
}

template <typename T>
inline void butterfly8(Register<T>* re, Register<T>* im) {
  Register<T> er[4] = {re[0], re[2], re[4], re[6]}, ei[4] = {im[0], im[2], im[4], im[6]};
  Register<T> odd_r[4] = {re[1], re[3], re[5], re[7]}, odd_i[4] = {im[1], im[3], im[5], im[7]};
  butterfly4<T>(er, ei);
  butterfly4<T>(odd_r, odd_i);
  const Register<T> up = set1(T(0.70710678118654752440)), down = set1(T(-0.70710678118654752440));
  re[0] = add(er[0], odd_r[0]);
  im[0] = add(ei[0], odd_i[0]);
  re[4] = sub(er[0], odd_r[0]);
  im[4] = sub(ei[0], odd_i[0]);
  const Register<T> s1 = add(odd_r[1], odd_i[1]), d1 = sub(odd_i[1], odd_r[1]);
  re[1] = muladd(s1, up, er[1]);
  im[1] = muladd(d1, up, ei[1]);
  re[5] = muladd(s1, down, er[1]);
  im[5] = muladd(d1, down, ei[1]);
  re[2] = add(er[2], odd_i[2]);
  im[2] = sub(ei[2], odd_r[2]);
  re[6] = sub(er[2], odd_i[2]);
  im[6] = add(ei[2], odd_r[2]);
  const Register<T> s3 = add(odd_r[3], odd_i[3]), d3 = sub(odd_i[3], odd_r[3]);
  re[3] = muladd(d3, up, er[3]);
  im[3] = muladd(s3, down, ei[3]);
  re[7] = muladd(d3, down, er[3]);
  im[7] = muladd(s3, up, ei[3]);
}

// Any odd size, by sums and differences of the legs that mirror each other.
template <typename T>
inline MUSICGEN_ALWAYS_INLINE void butterfly_odd(Register<T>* re, Register<T>* im, int p, const T* roots) {
  const int half = p / 2;
  Register<T> sum_r = re[0], sum_i = im[0];
  for (int m = 1; m <= half; ++m) {
    const Register<T> ar = re[m], ai = im[m], br = re[p - m], bi = im[p - m];
    re[m] = add(ar, br);
    im[m] = add(ai, bi);
    re[p - m] = sub(ar, br);
    im[p - m] = sub(ai, bi);
    sum_r = add(sum_r, re[m]);
    sum_i = add(sum_i, im[m]);
  }
  Register<T> out_r[kLargestRadix], out_i[kLargestRadix];
  for (int k = 1; k <= half; ++k) {
    const Register<T> c1 = set1(roots[2 * k]), s1 = set1(roots[2 * k + 1]);
    Register<T> ar = muladd(re[1], c1, re[0]), ai = muladd(im[1], c1, im[0]);
    Register<T> br = mul(re[p - 1], s1), bi = mul(im[p - 1], s1);  // s is minus the sine
    int at = k;
    for (int m = 2; m <= half; ++m) {
      at = at + k < p ? at + k : at + k - p;
      const Register<T> c = set1(roots[2 * at]), s = set1(roots[2 * at + 1]);
      ar = muladd(re[m], c, ar);
      ai = muladd(im[m], c, ai);
      br = muladd(re[p - m], s, br);
      bi = muladd(im[p - m], s, bi);
    }
    out_r[k] = sub(ar, bi);
    out_i[k] = add(ai, br);
    out_r[p - k] = add(ar, bi);
    out_i[p - k] = sub(ai, br);
  }
  re[0] = sum_r;
  im[0] = sum_i;
  for (int k = 1; k < p; ++k) {
    re[k] = out_r[k];
    im[k] = out_i[k];
  }
}

// `count` butterflies, `step` values apart, their legs `in_leg` and `out_leg` values apart; in place or not. Leg q of
// the results is multiplied by a twiddle, if there are any. P = 0: a size known only at run time.
template <typename T, int P, bool Twiddled>
void butterflies(const T* in, std::ptrdiff_t in_leg, T* out, std::ptrdiff_t out_leg, std::ptrdiff_t step, int count,
                 const T* twiddles, int radix, const T* roots) {
  const int p = P > 0 ? P : radix;
  Register<T> re[P > 0 ? P : kLargestRadix], im[P > 0 ? P : kLargestRadix];
  for (int j = 0; j < count; ++j, in += step, out += step) {
    for (int lane = 0; lane < kLanes; lane += kWidth<T>) {
      for (int q = 0; q < p; ++q) {
        re[q] = load(in + q * in_leg + lane);
        im[q] = load(in + q * in_leg + lane + kLanes);
      }
      if constexpr (P == 2) {
        butterfly2<T>(re, im);
      } else if constexpr (P == 4) {
        butterfly4<T>(re, im);
      } else if constexpr (P == 8) {
        butterfly8<T>(re, im);
      } else {
        butterfly_odd<T>(re, im, p, roots);
      }
      store(out + lane, re[0]);
      store(out + lane + kLanes, im[0]);
      for (int q = 1; q < p; ++q) {
        T* to = out + q * out_leg + lane;
        if constexpr (Twiddled) {
          const Register<T> c = set1(twiddles[2 * q - 2]), s = set1(twiddles[2 * q - 1]);
          store(to, mulsub(re[q], c, mul(im[q], s)));
          store(to + kLanes, muladd(re[q], s, mul(im[q], c)));
        } else {
          store(to, re[q]);
          store(to + kLanes, im[q]);
        }
      }
    }
    if constexpr (Twiddled) twiddles += 2 * (p - 1);
  }
}

template <typename T, bool Twiddled>
inline void run(const Stage<T>& stage, const T* in, std::ptrdiff_t in_leg, T* out, std::ptrdiff_t out_leg,
                std::ptrdiff_t step, int count, const T* twiddles) {
  const T* roots = stage.roots;
  switch (stage.radix) {
    case 2:
      return butterflies<T, 2, Twiddled>(in, in_leg, out, out_leg, step, count, twiddles, 2, roots);
    case 3:
      return butterflies<T, 3, Twiddled>(in, in_leg, out, out_leg, step, count, twiddles, 3, roots);
    case 4:
      return butterflies<T, 4, Twiddled>(in, in_leg, out, out_leg, step, count, twiddles, 4, roots);
    case 5:
      return butterflies<T, 5, Twiddled>(in, in_leg, out, out_leg, step, count, twiddles, 5, roots);
    case 8:
      return butterflies<T, 8, Twiddled>(in, in_leg, out, out_leg, step, count, twiddles, 8, roots);
    default:
      return butterflies<T, 0, Twiddled>(in, in_leg, out, out_leg, step, count, twiddles, stage.radix, roots);
  }
}

// -- transforms ----------------------------------------------------------------------------------------------------

// fill(first, count, to) writes points first … first + count - 1. Output k ends up at rows + plan.where[k].
template <typename T, typename Fill>
inline void transform(const ComplexPlan<T>& plan, const Fill& fill, T* tile, T* rows) {
  constexpr std::ptrdiff_t kTileRow = kColumnGroup * kPoint;
  const std::ptrdiff_t row_stride = plan.row_stride;
  for (int column = 0; column < plan.columns; column += kColumnGroup) {
    const int group = plan.columns - column < kColumnGroup ? plan.columns - column : kColumnGroup;
    if (plan.rows == 1) {
      fill(column, group, rows + column * kPoint);
      continue;
    }
    for (int row = 0; row < plan.rows; ++row) fill(row * plan.columns + column, group, tile + row * kTileRow);
    for (int s = 0; s < plan.n_over_rows; ++s) {
      const Stage<T>& stage = plan.over_rows[s];
      const int legs = stage.length / stage.radix;
      for (int row = 0; row < plan.rows; row += stage.length) {
        for (int leg = 0; leg < legs; ++leg) {
          T* x = tile + (row + leg) * kTileRow;
          const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(leg) * plan.columns + column;
          const T* twiddles = stage.twiddles + 2 * (stage.radix - 1) * at;
          if (legs > 1) {
            run<T, true>(stage, x, legs * kTileRow, x, legs * kTileRow, kPoint, group, twiddles);
          } else {
            T* out = rows + row * row_stride + column * kPoint;
            if (stage.twiddles != nullptr) {
              run<T, true>(stage, x, kTileRow, out, row_stride, kPoint, group, twiddles);
            } else {
              run<T, false>(stage, x, kTileRow, out, row_stride, kPoint, group, nullptr);
            }
          }
        }
      }
    }
  }
  for (int row = 0; row < plan.rows; ++row) {
    T* x = rows + row * row_stride;
    for (int s = 0; s < plan.n_along_rows; ++s) {
      const Stage<T>& stage = plan.along_rows[s];
      const int legs = stage.length / stage.radix;
      if (legs == 1) {
        run<T, false>(stage, x, kPoint, x, kPoint, stage.radix * kPoint, plan.columns / stage.radix, nullptr);
        continue;
      }
      for (int first = 0; first < plan.columns; first += stage.length)
        run<T, true>(stage, x + first * kPoint, legs * kPoint, x + first * kPoint, legs * kPoint, kPoint, legs,
                     stage.twiddles);
    }
  }
}

// A product of points with complex numbers, the parts of the result exchanged on demand.
template <typename T, bool Swapped>
inline void times(const T* x, T c, T s, T* out) {
  const Register<T> cosine = set1(c), sine = set1(s);
  for (int lane = 0; lane < kLanes; lane += kWidth<T>) {
    const Register<T> re = load(x + lane), im = load(x + lane + kLanes);
    store(out + lane + (Swapped ? kLanes : 0), mulsub(re, cosine, mul(im, sine)));
    store(out + lane + (Swapped ? 0 : kLanes), muladd(re, sine, mul(im, cosine)));
  }
}

// The transform of plan.points points, of any size; the outputs lie at the returned address + plan.where[k].
template <typename T, typename Fill>
inline T* transform(const RealPlan<T>& plan, const Fill& fill, T* scratch) {
  const ComplexPlan<T>& inner = plan.inner;
  T* tile = scratch;
  T* rows = tile + inner.tile_values;
  if (!plan.convolved) {
    transform(inner, fill, tile, rows);
    return rows;
  }
  T* other = rows + inner.values;
  transform(
      inner,
      [&](int first, int count, T* to) {
        const int given = first >= plan.points ? 0 : first + count > plan.points ? plan.points - first : count;
        if (given > 0) fill(first, given, to);
        for (int i = 0; i < given; ++i)
          times<T, false>(to + i * kPoint, plan.chirp[2 * (first + i)], plan.chirp[2 * (first + i) + 1],
                          to + i * kPoint);
        for (std::ptrdiff_t i = given * kPoint; i < count * kPoint; i += kWidth<T>) store(to + i, set1(T(0)));
      },
      tile, rows);
  // Backwards with the parts exchanged: a forward transform is an inverse one, unscaled.
  transform(
      inner,
      [&](int first, int count, T* to) {
        for (int i = 0; i < count; ++i)
          times<T, true>(rows + inner.where[first + i], plan.kernel[2 * (first + i)], plan.kernel[2 * (first + i) + 1],
                         to + i * kPoint);
      },
      tile, other);
  for (int k = 0; k < plan.points; ++k) {
    const T* z = other + inner.where[k];
    const Register<T> cosine = set1(plan.chirp[2 * k]), sine = set1(plan.chirp[2 * k + 1]);
    for (int lane = 0; lane < kLanes; lane += kWidth<T>) {
      const Register<T> re = load(z + lane + kLanes), im = load(z + lane);
      store(rows + k * kPoint + lane, mulsub(re, cosine, mul(im, sine)));
      store(rows + k * kPoint + lane + kLanes, muladd(re, sine, mul(im, cosine)));
    }
  }
  return rows;
}

// -- between frames and lanes --------------------------------------------------------------------------------------

// Values first … first + count - 1 of each frame, times the window (if there is one), to rows of lanes.
template <typename T>
inline void to_lanes(const T* const* frames, const T* window, std::ptrdiff_t first, std::ptrdiff_t count, T* rows) {
  constexpr int W = kWidth<T>;
  std::ptrdiff_t i = 0;
  if constexpr (sizeof(T) == sizeof(float)) {
    // Quarters come together as they are loaded: half the shuffles of a square transpose.
    for (; i + 4 <= count; i += 4) {
      for (int lane = 0; lane < kLanes; lane += W) {
        Register<T> r[4];
        for (int l = 0; l < 4; ++l) r[l] = load_quarters(frames + lane + l, first + i);
        if (window != nullptr) {
          const Register<T> w = set_quarters(window + first + i);
          for (int l = 0; l < 4; ++l) r[l] = mul(r[l], w);
        }
        transpose_quarters(r);
        for (int k = 0; k < 4; ++k) store(rows + (i + k) * kLanes + lane, r[k]);
      }
    }
  }
  for (; i < count; ++i) {
    const T w = window != nullptr ? window[first + i] : T(1);
    for (int l = 0; l < kLanes; ++l) rows[i * kLanes + l] = frames[l][first + i] * w;
  }
}

template <typename T>
void to_frames(const T* rows, std::ptrdiff_t count, T* const* out, std::ptrdiff_t first, int n) {
  constexpr int W = kWidth<T>;
  std::ptrdiff_t i = 0;
  for (; i + W <= count; i += W) {
    for (int lane = 0; lane < n; lane += W) {
      Register<T> r[W];
      for (int k = 0; k < W; ++k) r[k] = load(rows + (i + k) * kLanes + lane);
      transpose(r);
      for (int l = 0; l < W && lane + l < n; ++l) store(out[lane + l] + first + i, r[l]);
    }
  }
  for (; i < count; ++i)
    for (int l = 0; l < n; ++l) out[l][first + i] = rows[i * kLanes + l];
}

// -- real transforms -----------------------------------------------------------------------------------------------

template <typename T>
inline T* transform_frames(const RealPlan<T>& plan, const T* window, const T* const* frames, T* scratch) {
  if (plan.packed) {
    return transform(
        plan, [&](int first, int count, T* to) { to_lanes<T>(frames, window, 2 * first, 2 * count, to); }, scratch);
  }
  return transform(
      plan,
      [&](int first, int count, T* to) {
        for (int i = 0; i < count; ++i) {
          T* point = to + i * kPoint;
          for (int l = 0; l < kLanes; ++l) {
            point[l] = frames[l][first + i] * window[first + i];
            point[l + kLanes] = T(0);
          }
        }
      },
      scratch);
}

// Bins k and points - k of a packed transform, whose input was halved: x = even + odd * w, and its mirror.
template <typename T>
struct Pair {
  Register<T> low_re, low_im, high_re, high_im;
};
template <typename T>
inline Pair<T> split(const T* z, const T* mirror, T c, T s, int lane) {
  const Register<T> zr = load(z + lane), zi = load(z + lane + kLanes);
  const Register<T> mr = load(mirror + lane), mi = load(mirror + lane + kLanes);
  const Register<T> er = add(zr, mr), ei = sub(zi, mi), odd_r = add(zi, mi), odd_i = sub(mr, zr);
  const Register<T> cosine = set1(c), sine = set1(s);
  const Register<T> tr = mulsub(odd_r, cosine, mul(odd_i, sine)), ti = muladd(odd_r, sine, mul(odd_i, cosine));
  return {add(er, tr), add(ei, ti), sub(er, tr), sub(ti, ei)};
}

template <typename T>
void spectrum(const RealPlan<T>& plan, const T* window, const T* const* frames, T* scratch, T* const* out, int n) {
  const T* z = transform_frames(plan, window, frames, scratch);
  constexpr int kGroup = 8, kAhead = 4 * kGroup;
  alignas(64) T low[kGroup * kPoint], high[kGroup * kPoint];
  if (!plan.packed) {
    for (int k = 0; k < plan.bins; k += kGroup) {
      const int group = plan.bins - k < kGroup ? plan.bins - k : kGroup;
      for (int i = 0; i < group; ++i)
        for (int v = 0; v < kPoint; v += kWidth<T>) store(low + i * kPoint + v, load(z + plan.where[k + i] + v));
      to_frames<T>(low, 2 * group, out, 2 * k, n);
    }
    return;
  }
  for (int k = 0; k <= plan.points / 2; k += kGroup) {
    const int left = plan.points / 2 + 1 - k, group = left < kGroup ? left : kGroup;
    // Where the next groups go, a line of every frame: stores that miss the caches would wait for these one by one.
    if (left > kAhead)
      for (int l = 0; l < n; ++l) {
        fetch_to_write(out[l] + 2 * (k + kAhead));
        fetch_to_write(out[l] + 2 * (plan.points - k - kAhead));
      }
    for (int i = 0; i < group; ++i) {
      const int bin = k + i;
      T* to = low + i * kPoint;
      T* mirrored = high + (group - 1 - i) * kPoint;
      for (int lane = 0; lane < kLanes; lane += kWidth<T>) {
        const Pair<T> x =
            split(z + plan.where[bin == plan.points ? 0 : bin], z + plan.where[bin == 0 ? 0 : plan.points - bin],
                  plan.split[2 * bin], plan.split[2 * bin + 1], lane);
        store(to + lane, x.low_re);
        store(to + lane + kLanes, x.low_im);
        store(mirrored + lane, x.high_re);
        store(mirrored + lane + kLanes, x.high_im);
      }
    }
    to_frames<T>(high, 2 * group, out, 2 * (plan.points - k - group + 1), n);
    to_frames<T>(low, 2 * group, out, 2 * k, n);
  }
}

template <typename T>
void power(const RealPlan<T>& plan, const T* window, const T* const* frames, T* scratch, T* rows) {
  const T* z = transform_frames(plan, window, frames, scratch);
  if (!plan.packed) {
    for (int k = 0; k < plan.bins; ++k)
      for (int lane = 0; lane < kLanes; lane += kWidth<T>) {
        const Register<T> re = load(z + plan.where[k] + lane), im = load(z + plan.where[k] + lane + kLanes);
        store(rows + k * kLanes + lane, muladd(re, re, mul(im, im)));
      }
    return;
  }
  for (int k = 0; k <= plan.points / 2; ++k) {
    T* low = rows + k * kLanes;
    T* high = rows + (plan.points - k) * kLanes;
    for (int lane = 0; lane < kLanes; lane += kWidth<T>) {
      const Pair<T> x = split(z + plan.where[k], z + plan.where[k == 0 ? 0 : plan.points - k], plan.split[2 * k],
                              plan.split[2 * k + 1], lane);
      store(high + lane, muladd(x.high_re, x.high_re, mul(x.high_im, x.high_im)));
      store(low + lane, muladd(x.low_re, x.low_re, mul(x.low_im, x.low_im)));
    }
  }
}

// The transform of the spectrum with its parts exchanged gives the signal with its parts exchanged.
template <typename T>
void inverse(const RealPlan<T>& plan, const T* window, const T* const* spectra, T* scratch, T* const* out, int n) {
  T* x = scratch;
  T* rest = scratch + plan.bins * kPoint;
  to_lanes<T>(spectra, nullptr, 0, 2 * plan.bins, x);
  for (int lane = 0; lane < kLanes; lane += kWidth<T>) {  // what a real signal cannot have is ignored
    store(x + lane + kLanes, set1(T(0)));
    if (plan.packed) store(x + plan.points * kPoint + lane + kLanes, set1(T(0)));
  }
  const auto fill = [&](int first, int count, T* to) {
    for (int i = 0; i < count; ++i, to += kPoint) {
      const int k = first + i, mirror = plan.points - k;
      if (!plan.packed) {
        const T* from = x + (k < plan.bins ? k : mirror) * kPoint;
        for (int lane = 0; lane < kLanes; lane += kWidth<T>) {
          const Register<T> im = load(from + lane + kLanes);
          store(to + lane, k < plan.bins ? im : sub(set1(T(0)), im));
          store(to + lane + kLanes, load(from + lane));
        }
        continue;
      }
      const bool is_low = k <= mirror;
      const int bin = is_low ? k : mirror;
      const T* low = x + bin * kPoint;
      const T* high = x + (plan.points - bin) * kPoint;
      const Register<T> c = set1(plan.split[2 * bin]), s = set1(plan.split[2 * bin + 1]);  // s is minus the sine
      for (int lane = 0; lane < kLanes; lane += kWidth<T>) {
        const Register<T> lr = load(low + lane), li = load(low + lane + kLanes);
        const Register<T> hr = load(high + lane), hi = load(high + lane + kLanes);
        const Register<T> er = add(lr, hr), ei = sub(li, hi), dr = sub(lr, hr), di = add(li, hi);
        const Register<T> tr = muladd(dr, c, mul(di, s)), ti = mulsub(di, c, mul(dr, s));
        store(to + lane, is_low ? add(ei, tr) : sub(tr, ei));
        store(to + lane + kLanes, is_low ? sub(er, ti) : add(er, ti));
      }
    }
  };
  const T* z = transform(plan, fill, rest);
  constexpr int kGroup = 8;
  alignas(64) T tile[kGroup * kPoint];
  for (int k = 0; k < plan.points; k += kGroup) {
    const int group = plan.points - k < kGroup ? plan.points - k : kGroup;
    if (plan.packed) {
      for (int i = 0; i < group; ++i) {
        const T* from = z + plan.where[k + i];
        const Register<T> even = set1(window[2 * (k + i)]), odd = set1(window[2 * (k + i) + 1]);
        for (int lane = 0; lane < kLanes; lane += kWidth<T>) {
          store(tile + i * kPoint + lane, mul(load(from + lane + kLanes), even));
          store(tile + i * kPoint + lane + kLanes, mul(load(from + lane), odd));
        }
      }
      to_frames<T>(tile, 2 * group, out, 2 * k, n);
    } else {
      for (int i = 0; i < group; ++i)
        for (int lane = 0; lane < kLanes; lane += kWidth<T>)
          store(tile + i * kLanes + lane, mul(load(z + plan.where[k + i] + lane + kLanes), set1(window[k + i])));
      to_frames<T>(tile, group, out, k, n);
    }
  }
}

// -- what follows a spectrum ---------------------------------------------------------------------------------------

template <typename T>
void roots(T* rows, std::ptrdiff_t count) {
  for (std::ptrdiff_t i = 0; i < count * kLanes; i += kWidth<T>) store(rows + i, root(load(rows + i)));
}

// Two chains of fused multiply-adds, over the even and the odd columns of a band: one would wait out its latency.
template <typename T>
void apply_rows(const SparseRows<T>& matrix, const T* rows, T* out) {
  const Register<T> largest = set1(matrix.largest);
  for (int b = 0; b < matrix.n_rows; ++b, out += kLanes) {
    const SparseRow band = matrix.rows[b];
    const T* w = matrix.weights + band.weights;
    const T* x = rows + band.first * kLanes;
    for (int lane = 0; lane < kLanes; lane += kWidth<T>) {
      Register<T> even = set1(T(0)), odd = even;
      int i = 0;
      for (; i + 2 <= band.count; i += 2) {
        even = muladd(load(x + i * kLanes + lane), set1(w[i]), even);
        odd = muladd(load(x + (i + 1) * kLanes + lane), set1(w[i + 1]), odd);
      }
      if (i < band.count) even = muladd(load(x + i * kLanes + lane), set1(w[i]), even);
      store(out + lane, min(add(even, odd), largest));
    }
  }
}

// 10 log10 x. The logarithm of the mantissa is Cephes' logf: within an ulp on [sqrt(1/2), sqrt(2)).
inline Register<float> decibels_of(Register<float> x) {
  Register<float> m;
  const Register<float> exponent = exponent_of(x, m);
  const Register<float> f = sub(m, set1(1.0f)), square = mul(f, f);
  Register<float> p = set1(7.0376836292e-2f);
  p = muladd(p, f, set1(-1.1514610310e-1f));
  p = muladd(p, f, set1(1.1676998740e-1f));
  p = muladd(p, f, set1(-1.2420140846e-1f));
  p = muladd(p, f, set1(1.4249322787e-1f));
  p = muladd(p, f, set1(-1.6668057665e-1f));
  p = muladd(p, f, set1(2.0000714765e-1f));
  p = muladd(p, f, set1(-2.4999993993e-1f));
  p = muladd(p, f, set1(3.3333331174e-1f));
  const Register<float> log = add(muladd(mul(p, f), square, mul(set1(-0.5f), square)), f);
  return muladd(exponent, set1(3.01029995664f), mul(log, set1(4.34294481903f)));
}
inline Register<double> decibels_of(Register<double> x) {
  double lanes[kWidth<double>];
  store(lanes, x);
  for (double& lane : lanes) lane = decibels_of_double(lane);
  return load(lanes);
}

template <typename T>
void decibels(T* rows, std::ptrdiff_t count, T least, T* lowest, T* highest) {
  for (int lane = 0; lane < kLanes; lane += kWidth<T>) {
    Register<T> low = set1(kInfinity<T>), high = set1(-kInfinity<T>);
    for (std::ptrdiff_t i = 0; i < count; ++i) {
      T* row = rows + i * kLanes + lane;
      const Register<T> db = decibels_of(max(load(row), set1(least)));
      low = min(db, low);
      high = max(db, high);
      store(row, db);
    }
    store(lowest + lane, low);
    store(highest + lane, high);
  }
}

template <typename T>
void raise(T* rows, std::ptrdiff_t count, T floor) {
  for (std::ptrdiff_t i = 0; i < count * kLanes; i += kWidth<T>) store(rows + i, max(load(rows + i), set1(floor)));
}

template <typename T, int N>
inline void product_of(const T* matrix, std::ptrdiff_t count, const T* rows, T* out) {
  for (int lane = 0; lane < kLanes; lane += kWidth<T>) {
    Register<T> sum[N];
    for (int j = 0; j < N; ++j) sum[j] = set1(T(0));
    for (std::ptrdiff_t i = 0; i < count; ++i) {
      const Register<T> x = load(rows + i * kLanes + lane);
      for (int j = 0; j < N; ++j) sum[j] = muladd(x, set1(matrix[j * count + i]), sum[j]);
    }
    for (int j = 0; j < N; ++j) store(out + j * kLanes + lane, sum[j]);
  }
}

template <typename T>
void product(const T* matrix, int n_out, std::ptrdiff_t count, const T* rows, T* out) {
  constexpr int kMost = kWidth<T> == kLanes ? 10 : 4;  // sums that registers can hold beside their input
  for (int parts = (n_out + kMost - 1) / kMost; parts > 0; --parts) {
    const int part = (n_out + parts - 1) / parts;
    switch (part) {
#define MUSICGEN_CASE(n)                                                  \
  case n:                                                                 \
    if constexpr (n <= kMost) product_of<T, n>(matrix, count, rows, out); \
    break;
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
#undef MUSICGEN_CASE
    }
    n_out -= part;
    matrix += part * count;
    out += part * kLanes;
  }
}

// x - x is zero for every number, and NaN for what is none.
template <typename T>
bool any_not_finite(const T* values, std::ptrdiff_t count) {
  Register<T> sum[4] = {set1(T(0)), set1(T(0)), set1(T(0)), set1(T(0))};
  std::ptrdiff_t i = 0;
  for (; i + 4 * kWidth<T> <= count; i += 4 * kWidth<T>)
    for (int j = 0; j < 4; ++j) {
      const Register<T> x = load(values + i + j * kWidth<T>);
      sum[j] = add(sum[j], sub(x, x));
    }
  T lanes[kWidth<T>];
  store(lanes, add(add(sum[0], sum[1]), add(sum[2], sum[3])));
  T total = 0;
  for (; i < count; ++i) total += values[i] - values[i];
  for (const T lane : lanes) total += lane;
  return !(total == T(0));
}

template <typename T>
constexpr Kernels<T> kKernels = {spectrum<T>, power<T>, inverse<T>, roots<T>,     apply_rows<T>,
                                 decibels<T>, raise<T>, product<T>, to_frames<T>, any_not_finite<T>};
