// The baseline: four quarters of four floats. NEON on 64-bit ARM, SSE2 on x86-64, plain C++ elsewhere.

#if MUSICGEN_ARM64

using Quarter = float32x4_t;
using QuarterMask = uint32x4_t;
inline Quarter q_load(const float* p) { return vld1q_f32(p); }
inline void q_store(float* p, Quarter a) { vst1q_f32(p, a); }
inline Quarter q_set1(float x) { return vdupq_n_f32(x); }
inline Quarter q_add(Quarter a, Quarter b) { return vaddq_f32(a, b); }
inline Quarter q_sub(Quarter a, Quarter b) { return vsubq_f32(a, b); }
inline Quarter q_mul(Quarter a, Quarter b) { return vmulq_f32(a, b); }
inline Quarter q_fma(Quarter a, Quarter b, Quarter c) { return vfmaq_f32(c, a, b); }
inline Quarter q_sqrt(Quarter a) { return vsqrtq_f32(a); }
inline Quarter q_max(Quarter a, Quarter b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
inline QuarterMask q_less(Quarter a, Quarter b) { return vcltq_f32(a, b); }
inline Quarter q_select(QuarterMask m, Quarter a, Quarter b) { return vbslq_f32(m, a, b); }
inline Quarter q_shift_in(Quarter before, Quarter a) { return vextq_f32(before, a, 3); }

#elif MUSICGEN_X86

using Quarter = __m128;
using QuarterMask = __m128;
inline Quarter q_load(const float* p) { return _mm_loadu_ps(p); }
inline void q_store(float* p, Quarter a) { _mm_storeu_ps(p, a); }
inline Quarter q_set1(float x) { return _mm_set1_ps(x); }
inline Quarter q_add(Quarter a, Quarter b) { return _mm_add_ps(a, b); }
inline Quarter q_sub(Quarter a, Quarter b) { return _mm_sub_ps(a, b); }
inline Quarter q_mul(Quarter a, Quarter b) { return _mm_mul_ps(a, b); }
inline Quarter q_fma(Quarter a, Quarter b, Quarter c) { return _mm_add_ps(_mm_mul_ps(a, b), c); }
inline Quarter q_sqrt(Quarter a) { return _mm_sqrt_ps(a); }
inline Quarter q_max(Quarter a, Quarter b) { return _mm_max_ps(a, b); }
inline QuarterMask q_less(Quarter a, Quarter b) { return _mm_cmplt_ps(a, b); }
inline Quarter q_select(QuarterMask m, Quarter a, Quarter b) {
  return _mm_or_ps(_mm_and_ps(m, a), _mm_andnot_ps(m, b));
}
inline Quarter q_shift_in(Quarter before, Quarter a) {  // before[3], a[0], a[1], a[2]
  const __m128 seam = _mm_shuffle_ps(before, a, _MM_SHUFFLE(0, 0, 3, 3));
  return _mm_shuffle_ps(seam, a, _MM_SHUFFLE(2, 1, 2, 0));
}

#else

struct Quarter {
  float v[4];
};
using QuarterMask = std::uint32_t;
#define MUSICGEN_EACH(expression)           \
  do {                                      \
    for (int i = 0; i < 4; ++i) expression; \
    return a;                               \
  } while (false)
inline Quarter q_load(const float* p) { return {{p[0], p[1], p[2], p[3]}}; }
inline void q_store(float* p, Quarter a) {
  for (int i = 0; i < 4; ++i) p[i] = a.v[i];
}
inline Quarter q_set1(float x) { return {{x, x, x, x}}; }
inline Quarter q_add(Quarter a, Quarter b) { MUSICGEN_EACH(a.v[i] += b.v[i]); }
inline Quarter q_sub(Quarter a, Quarter b) { MUSICGEN_EACH(a.v[i] -= b.v[i]); }
inline Quarter q_mul(Quarter a, Quarter b) { MUSICGEN_EACH(a.v[i] *= b.v[i]); }
inline Quarter q_fma(Quarter a, Quarter b, Quarter c) { MUSICGEN_EACH(a.v[i] = std::fma(a.v[i], b.v[i], c.v[i])); }
inline Quarter q_sqrt(Quarter a) { MUSICGEN_EACH(a.v[i] = std::sqrt(a.v[i])); }
inline Quarter q_max(Quarter a, Quarter b) { MUSICGEN_EACH(a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
inline QuarterMask q_less(Quarter a, Quarter b) {
  QuarterMask m = 0;
  for (int i = 0; i < 4; ++i) m |= static_cast<QuarterMask>(a.v[i] < b.v[i]) << i;
  return m;
}
inline Quarter q_select(QuarterMask m, Quarter a, Quarter b) { MUSICGEN_EACH(a.v[i] = (m >> i & 1) ? a.v[i] : b.v[i]); }
inline Quarter q_shift_in(Quarter before, Quarter a) { return {{before.v[3], a.v[0], a.v[1], a.v[2]}}; }
#undef MUSICGEN_EACH

#endif

constexpr bool kManyRegisters = false;

struct V {
  Quarter q[4];
};
struct Mask {
  QuarterMask q[4];
};

#define MUSICGEN_QUARTERS(expression)              \
  V r;                                             \
  for (int i = 0; i < 4; ++i) r.q[i] = expression; \
  return r
inline V load(const float* p) { MUSICGEN_QUARTERS(q_load(p + 4 * i)); }
inline void store(float* p, V a) {
  for (int i = 0; i < 4; ++i) q_store(p + 4 * i, a.q[i]);
}
inline V set1(float x) { MUSICGEN_QUARTERS(q_set1(x)); }
inline V add(V a, V b) { MUSICGEN_QUARTERS(q_add(a.q[i], b.q[i])); }
inline V sub(V a, V b) { MUSICGEN_QUARTERS(q_sub(a.q[i], b.q[i])); }
inline V mul(V a, V b) { MUSICGEN_QUARTERS(q_mul(a.q[i], b.q[i])); }
inline V fma(V a, V b, V c) { MUSICGEN_QUARTERS(q_fma(a.q[i], b.q[i], c.q[i])); }
inline V sqrt(V a) { MUSICGEN_QUARTERS(q_sqrt(a.q[i])); }
inline V max(V a, V b) { MUSICGEN_QUARTERS(q_max(a.q[i], b.q[i])); }
inline V select(Mask m, V a, V b) { MUSICGEN_QUARTERS(q_select(m.q[i], a.q[i], b.q[i])); }
inline V shift_in(float first, V a) { MUSICGEN_QUARTERS(q_shift_in(i == 0 ? q_set1(first) : a.q[i - 1], a.q[i])); }
#undef MUSICGEN_QUARTERS
inline Mask less(V a, V b) {
  Mask m;
  for (int i = 0; i < 4; ++i) m.q[i] = q_less(a.q[i], b.q[i]);
  return m;
}
