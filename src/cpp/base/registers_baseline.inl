// The baseline: four floats or two doubles. NEON on 64-bit ARM, SSE2 on x86-64, plain C++ elsewhere. SSE2 and plain C++
// round a product before they add to it; the other paths do not.

#if MUSICGEN_ARM64

using Floats = float32x4_t;
using Doubles = float64x2_t;
inline Floats load(const float* p) { return vld1q_f32(p); }
inline Doubles load(const double* p) { return vld1q_f64(p); }
inline void store(float* p, Floats a) { vst1q_f32(p, a); }
inline void store(double* p, Doubles a) { vst1q_f64(p, a); }
inline Floats set1(float x) { return vdupq_n_f32(x); }
inline Doubles set1(double x) { return vdupq_n_f64(x); }
inline Floats add(Floats a, Floats b) { return vaddq_f32(a, b); }
inline Doubles add(Doubles a, Doubles b) { return vaddq_f64(a, b); }
inline Floats sub(Floats a, Floats b) { return vsubq_f32(a, b); }
inline Doubles sub(Doubles a, Doubles b) { return vsubq_f64(a, b); }
inline Floats mul(Floats a, Floats b) { return vmulq_f32(a, b); }
inline Doubles mul(Doubles a, Doubles b) { return vmulq_f64(a, b); }
inline Floats muladd(Floats a, Floats b, Floats c) { return vfmaq_f32(c, a, b); }
inline Doubles muladd(Doubles a, Doubles b, Doubles c) { return vfmaq_f64(c, a, b); }
inline Floats mulsub(Floats a, Floats b, Floats c) { return vfmaq_f32(vnegq_f32(c), a, b); }
inline Doubles mulsub(Doubles a, Doubles b, Doubles c) { return vfmaq_f64(vnegq_f64(c), a, b); }
// x86 semantics: the second operand where the comparison fails.
inline Floats max(Floats a, Floats b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
inline Doubles max(Doubles a, Doubles b) { return vbslq_f64(vcgtq_f64(a, b), a, b); }
inline Floats min(Floats a, Floats b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
inline Doubles min(Doubles a, Doubles b) { return vbslq_f64(vcltq_f64(a, b), a, b); }
inline Floats root(Floats a) { return vsqrtq_f32(a); }
inline Doubles root(Doubles a) { return vsqrtq_f64(a); }
using FloatMask = uint32x4_t;
inline FloatMask less(Floats a, Floats b) { return vcltq_f32(a, b); }
inline Floats select(FloatMask m, Floats a, Floats b) { return vbslq_f32(m, a, b); }
// The last value of `before`, then a without its last.
inline Floats shift_in(Floats before, Floats a) { return vextq_f32(before, a, 3); }
inline Floats exponent_of(Floats x, Floats& mantissa) {
  const int32x4_t bits = vreinterpretq_s32_f32(x);
  const int32x4_t exponent = vshrq_n_s32(vsubq_s32(bits, vdupq_n_s32(0x3f3504f3)), 23);
  mantissa = vreinterpretq_f32_s32(vsubq_s32(bits, vshlq_n_s32(exponent, 23)));
  return vcvtq_f32_s32(exponent);
}
inline void transpose(Floats (&r)[4]) {
  const float32x4x2_t a = vtrnq_f32(r[0], r[1]), b = vtrnq_f32(r[2], r[3]);
  r[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
  r[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
  r[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
  r[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
}

#elif MUSICGEN_X86

using Floats = __m128;
using Doubles = __m128d;
inline Floats load(const float* p) { return _mm_loadu_ps(p); }
inline Doubles load(const double* p) { return _mm_loadu_pd(p); }
inline void store(float* p, Floats a) { _mm_storeu_ps(p, a); }
inline void store(double* p, Doubles a) { _mm_storeu_pd(p, a); }
inline Floats set1(float x) { return _mm_set1_ps(x); }
inline Doubles set1(double x) { return _mm_set1_pd(x); }
inline Floats add(Floats a, Floats b) { return _mm_add_ps(a, b); }
inline Doubles add(Doubles a, Doubles b) { return _mm_add_pd(a, b); }
inline Floats sub(Floats a, Floats b) { return _mm_sub_ps(a, b); }
inline Doubles sub(Doubles a, Doubles b) { return _mm_sub_pd(a, b); }
inline Floats mul(Floats a, Floats b) { return _mm_mul_ps(a, b); }
inline Doubles mul(Doubles a, Doubles b) { return _mm_mul_pd(a, b); }
inline Floats muladd(Floats a, Floats b, Floats c) { return _mm_add_ps(_mm_mul_ps(a, b), c); }
inline Doubles muladd(Doubles a, Doubles b, Doubles c) { return _mm_add_pd(_mm_mul_pd(a, b), c); }
inline Floats mulsub(Floats a, Floats b, Floats c) { return _mm_sub_ps(_mm_mul_ps(a, b), c); }
inline Doubles mulsub(Doubles a, Doubles b, Doubles c) { return _mm_sub_pd(_mm_mul_pd(a, b), c); }
inline Floats max(Floats a, Floats b) { return _mm_max_ps(a, b); }
inline Doubles max(Doubles a, Doubles b) { return _mm_max_pd(a, b); }
inline Floats min(Floats a, Floats b) { return _mm_min_ps(a, b); }
inline Doubles min(Doubles a, Doubles b) { return _mm_min_pd(a, b); }
inline Floats root(Floats a) { return _mm_sqrt_ps(a); }
inline Doubles root(Doubles a) { return _mm_sqrt_pd(a); }
using FloatMask = __m128;
inline FloatMask less(Floats a, Floats b) { return _mm_cmplt_ps(a, b); }
inline Floats select(FloatMask m, Floats a, Floats b) { return _mm_or_ps(_mm_and_ps(m, a), _mm_andnot_ps(m, b)); }
inline Floats shift_in(Floats before, Floats a) {
  const __m128 seam = _mm_shuffle_ps(before, a, _MM_SHUFFLE(0, 0, 3, 3));
  return _mm_shuffle_ps(seam, a, _MM_SHUFFLE(2, 1, 2, 0));
}
inline Floats exponent_of(Floats x, Floats& mantissa) {
  const __m128i bits = _mm_castps_si128(x);
  const __m128i exponent = _mm_srai_epi32(_mm_sub_epi32(bits, _mm_set1_epi32(0x3f3504f3)), 23);
  mantissa = _mm_castsi128_ps(_mm_sub_epi32(bits, _mm_slli_epi32(exponent, 23)));
  return _mm_cvtepi32_ps(exponent);
}
inline void transpose(Floats (&r)[4]) { _MM_TRANSPOSE4_PS(r[0], r[1], r[2], r[3]); }

#else

template <typename T, int N>
struct Plain {
  T v[N];
};
using Floats = Plain<float, 4>;
using Doubles = Plain<double, 2>;
template <typename T, int N, typename Operation>
inline Plain<T, N> each(Plain<T, N> a, Plain<T, N> b, Operation operation) {
  for (int i = 0; i < N; ++i) a.v[i] = operation(a.v[i], b.v[i]);
  return a;
}
inline Floats load(const float* p) { return {{p[0], p[1], p[2], p[3]}}; }
inline Doubles load(const double* p) { return {{p[0], p[1]}}; }
template <typename T, int N>
inline void store(T* p, Plain<T, N> a) {
  for (int i = 0; i < N; ++i) p[i] = a.v[i];
}
inline Floats set1(float x) { return {{x, x, x, x}}; }
inline Doubles set1(double x) { return {{x, x}}; }
template <typename R>
inline R add(R a, R b) {
  return each(a, b, [](auto x, auto y) { return x + y; });
}
template <typename R>
inline R sub(R a, R b) {
  return each(a, b, [](auto x, auto y) { return x - y; });
}
template <typename R>
inline R mul(R a, R b) {
  return each(a, b, [](auto x, auto y) { return x * y; });
}
template <typename R>
inline R muladd(R a, R b, R c) {
  return add(mul(a, b), c);
}
template <typename R>
inline R mulsub(R a, R b, R c) {
  return sub(mul(a, b), c);
}
template <typename R>
inline R max(R a, R b) {
  return each(a, b, [](auto x, auto y) { return x > y ? x : y; });
}
template <typename R>
inline R min(R a, R b) {
  return each(a, b, [](auto x, auto y) { return x < y ? x : y; });
}
template <typename R>
inline R root(R a) {
  for (auto& x : a.v) x = std::sqrt(x);
  return a;
}
struct FloatMask {
  bool v[4];
};
inline FloatMask less(Floats a, Floats b) {
  return {{a.v[0] < b.v[0], a.v[1] < b.v[1], a.v[2] < b.v[2], a.v[3] < b.v[3]}};
}
inline Floats select(FloatMask m, Floats a, Floats b) {
  for (int i = 0; i < 4; ++i) a.v[i] = m.v[i] ? a.v[i] : b.v[i];
  return a;
}
inline Floats shift_in(Floats before, Floats a) { return {{before.v[3], a.v[0], a.v[1], a.v[2]}}; }
inline Floats exponent_of(Floats x, Floats& mantissa) {
  Floats exponent;
  for (int i = 0; i < 4; ++i) {
    std::uint32_t bits;
    std::memcpy(&bits, &x.v[i], 4);
    const std::int32_t e = static_cast<std::int32_t>(bits - 0x3f3504f3u) >> 23;
    bits -= static_cast<std::uint32_t>(e) << 23;
    std::memcpy(&mantissa.v[i], &bits, 4);
    exponent.v[i] = static_cast<float>(e);
  }
  return exponent;
}
inline void transpose(Floats (&r)[4]) {
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < i; ++j) {
      const float x = r[i].v[j];
      r[i].v[j] = r[j].v[i];
      r[j].v[i] = x;
    }
}

#endif

// One quarter of sixteen floats is a register here.
inline Floats load_quarters(const float* const* p, std::ptrdiff_t at) { return load(p[0] + at); }
inline Floats set_quarters(const float* p) { return load(p); }
inline void transpose_quarters(Floats (&r)[4]) { transpose(r); }

template <typename T>
struct RegisterOf;
template <>
struct RegisterOf<float> {
  using Type = Floats;
  using Mask = FloatMask;
  static constexpr int width = 4;
};
template <>
struct RegisterOf<double> {
  using Type = Doubles;
  static constexpr int width = 2;
};
