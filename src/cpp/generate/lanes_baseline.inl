// The baseline: four quarters of four floats. NEON on 64-bit ARM, SSE2 on x86-64, plain C++ elsewhere.

#if MUSICGEN_ARM64

using Quarter = float32x4_t;
using QuarterInt = int32x4_t;
inline Quarter q_load(const float* p) { return vld1q_f32(p); }
inline void q_store(float* p, Quarter a) { vst1q_f32(p, a); }
inline Quarter q_set1(float x) { return vdupq_n_f32(x); }
inline Quarter q_add(Quarter a, Quarter b) { return vaddq_f32(a, b); }
inline Quarter q_sub(Quarter a, Quarter b) { return vsubq_f32(a, b); }
inline Quarter q_mul(Quarter a, Quarter b) { return vmulq_f32(a, b); }
inline Quarter q_div(Quarter a, Quarter b) { return vdivq_f32(a, b); }
inline Quarter q_fma(Quarter a, Quarter b, Quarter c) { return vfmaq_f32(c, a, b); }
// x86 semantics, so that NaN takes the same way everywhere: the second operand where the comparison fails.
inline Quarter q_max(Quarter a, Quarter b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
inline Quarter q_min(Quarter a, Quarter b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
inline Quarter q_nearest(Quarter a) { return vrndnq_f32(a); }
inline QuarterInt q_to_int(Quarter a) { return vcvtnq_s32_f32(a); }
inline Quarter q_from_int(QuarterInt a) { return vcvtq_f32_s32(a); }
inline Quarter q_power_of_two(Quarter n) {
  return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127)), 23));
}
inline Quarter q_zero_where_less(Quarter a, Quarter x, Quarter limit) {
  return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(a), vcltq_f32(x, limit)));
}
inline QuarterInt q_load_bits(const char* p) {
  return vreinterpretq_s32_s8(vld1q_s8(reinterpret_cast<const signed char*>(p)));
}
inline Quarter q_even(QuarterInt a) { return vreinterpretq_f32_s32(vshlq_n_s32(a, 16)); }
inline Quarter q_odd(QuarterInt a) {
  return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_s32(a), vdupq_n_u32(0xffff0000u)));
}
inline QuarterInt q_zero_int() { return vdupq_n_s32(0); }
inline QuarterInt q_dot(QuarterInt s, QuarterInt w, QuarterInt x) {
#if defined(__ARM_FEATURE_DOTPROD)
  return vdotq_s32(s, vreinterpretq_s8_s32(w), vreinterpretq_s8_s32(x));
#else
  const int8x16_t wb = vreinterpretq_s8_s32(w), xb = vreinterpretq_s8_s32(x);
  const int16x8_t low = vmull_s8(vget_low_s8(wb), vget_low_s8(xb)), high = vmull_s8(vget_high_s8(wb), vget_high_s8(xb));
  return vaddq_s32(s, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
#endif
}
inline QuarterInt q_set1_int(int x) { return vdupq_n_s32(x); }

#elif MUSICGEN_X86

using Quarter = __m128;
using QuarterInt = __m128i;
inline Quarter q_load(const float* p) { return _mm_loadu_ps(p); }
inline void q_store(float* p, Quarter a) { _mm_storeu_ps(p, a); }
inline Quarter q_set1(float x) { return _mm_set1_ps(x); }
inline Quarter q_add(Quarter a, Quarter b) { return _mm_add_ps(a, b); }
inline Quarter q_sub(Quarter a, Quarter b) { return _mm_sub_ps(a, b); }
inline Quarter q_mul(Quarter a, Quarter b) { return _mm_mul_ps(a, b); }
inline Quarter q_div(Quarter a, Quarter b) { return _mm_div_ps(a, b); }
inline Quarter q_max(Quarter a, Quarter b) { return _mm_max_ps(a, b); }
inline Quarter q_min(Quarter a, Quarter b) { return _mm_min_ps(a, b); }

inline Quarter fma_lane_by_lane(Quarter a, Quarter b, Quarter c) {
  float x[4], y[4], z[4];
  _mm_storeu_ps(x, a);
  _mm_storeu_ps(y, b);
  _mm_storeu_ps(z, c);
  for (int i = 0; i < 4; ++i) z[i] = __builtin_fmaf(x[i], y[i], z[i]);
  return _mm_loadu_ps(z);
}

// A fused multiply-add without the instruction. The product of two floats is exact in double, so only the sum rounds:
// once to double, then to float. That differs from rounding once only where the double lies exactly half-way between
// two floats, or where the float is subnormal; those lanes, about one in 2^29, take the slow exact way.
inline Quarter q_fma(Quarter a, Quarter b, Quarter c) {
  const __m128d s0 = _mm_add_pd(_mm_mul_pd(_mm_cvtps_pd(a), _mm_cvtps_pd(b)), _mm_cvtps_pd(c));
  const __m128d s1 = _mm_add_pd(_mm_mul_pd(_mm_cvtps_pd(_mm_movehl_ps(a, a)), _mm_cvtps_pd(_mm_movehl_ps(b, b))),
                                _mm_cvtps_pd(_mm_movehl_ps(c, c)));
  const __m128 r = _mm_movelh_ps(_mm_cvtpd_ps(s0), _mm_cvtpd_ps(s1));
  const __m128i low_words = _mm_castps_si128(_mm_shuffle_ps(_mm_castpd_ps(s0), _mm_castpd_ps(s1), 0x88));
  const __m128i half_way =
      _mm_cmpeq_epi32(_mm_and_si128(low_words, _mm_set1_epi32(0x1fffffff)), _mm_set1_epi32(0x10000000));
  const __m128d zero = _mm_setzero_pd();
  const __m128 not_zero =
      _mm_shuffle_ps(_mm_castpd_ps(_mm_cmpneq_pd(s0, zero)), _mm_castpd_ps(_mm_cmpneq_pd(s1, zero)), 0x88);
  const __m128 magnitude = _mm_andnot_ps(_mm_set1_ps(-0.0f), r);
  const __m128 tiny = _mm_and_ps(_mm_cmple_ps(magnitude, _mm_set1_ps(1.17549435e-38f)), not_zero);
  if (_mm_movemask_ps(_mm_or_ps(_mm_castsi128_ps(half_way), tiny)) != 0) return fma_lane_by_lane(a, b, c);
  return r;
}
// Adding 1.5 * 2^23 leaves the nearest integer in the low bits; right for |a| < 2^22, and callers stay below 2^8.
inline Quarter q_nearest(Quarter a) {
  const __m128 magic = _mm_set1_ps(12582912.0f);
  return _mm_sub_ps(_mm_add_ps(a, magic), magic);
}
inline QuarterInt q_to_int(Quarter a) { return _mm_cvtps_epi32(a); }
inline Quarter q_from_int(QuarterInt a) { return _mm_cvtepi32_ps(a); }
inline Quarter q_power_of_two(Quarter n) {
  return _mm_castsi128_ps(_mm_slli_epi32(_mm_add_epi32(_mm_cvtps_epi32(n), _mm_set1_epi32(127)), 23));
}
inline Quarter q_zero_where_less(Quarter a, Quarter x, Quarter limit) { return _mm_and_ps(a, _mm_cmpnlt_ps(x, limit)); }
inline QuarterInt q_load_bits(const char* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
inline Quarter q_even(QuarterInt a) { return _mm_castsi128_ps(_mm_slli_epi32(a, 16)); }
inline Quarter q_odd(QuarterInt a) {
  return _mm_castsi128_ps(_mm_and_si128(a, _mm_set1_epi32(static_cast<int>(0xffff0000u))));
}
inline QuarterInt q_zero_int() { return _mm_setzero_si128(); }
inline QuarterInt q_dot(QuarterInt s, QuarterInt w, QuarterInt x) {
  // Bytes to 16 bits with their sign: even and odd bytes apart, then two products a lane.
  const __m128i w_odd = _mm_srai_epi16(w, 8), w_even = _mm_srai_epi16(_mm_slli_epi16(w, 8), 8);
  const __m128i x_odd = _mm_srai_epi16(x, 8), x_even = _mm_srai_epi16(_mm_slli_epi16(x, 8), 8);
  return _mm_add_epi32(s, _mm_add_epi32(_mm_madd_epi16(w_odd, x_odd), _mm_madd_epi16(w_even, x_even)));
}
inline QuarterInt q_set1_int(int x) { return _mm_set1_epi32(x); }

#else

struct Quarter {
  float v[4];
};
struct QuarterInt {
  int v[4];
};
#define MUSICGEN_EACH(expression)           \
  do {                                      \
    for (int i = 0; i < 4; ++i) expression; \
  } while (false)
inline Quarter q_load(const float* p) { return {{p[0], p[1], p[2], p[3]}}; }
inline void q_store(float* p, Quarter a) { MUSICGEN_EACH(p[i] = a.v[i]); }
inline Quarter q_set1(float x) { return {{x, x, x, x}}; }
inline Quarter q_add(Quarter a, Quarter b) {
  MUSICGEN_EACH(a.v[i] = a.v[i] + b.v[i]);
  return a;
}
inline Quarter q_sub(Quarter a, Quarter b) {
  MUSICGEN_EACH(a.v[i] = a.v[i] - b.v[i]);
  return a;
}
inline Quarter q_mul(Quarter a, Quarter b) {
  MUSICGEN_EACH(a.v[i] = a.v[i] * b.v[i]);
  return a;
}
inline Quarter q_div(Quarter a, Quarter b) {
  MUSICGEN_EACH(a.v[i] = a.v[i] / b.v[i]);
  return a;
}
inline Quarter q_fma(Quarter a, Quarter b, Quarter c) {
  MUSICGEN_EACH(c.v[i] = std::fma(a.v[i], b.v[i], c.v[i]));
  return c;
}
inline Quarter q_max(Quarter a, Quarter b) {
  MUSICGEN_EACH(a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i]);
  return a;
}
inline Quarter q_min(Quarter a, Quarter b) {
  MUSICGEN_EACH(a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i]);
  return a;
}
inline Quarter q_nearest(Quarter a) {
  MUSICGEN_EACH(a.v[i] = std::nearbyint(a.v[i]));
  return a;
}
inline QuarterInt q_to_int(Quarter a) {
  QuarterInt r;
  MUSICGEN_EACH(r.v[i] = static_cast<int>(std::nearbyint(a.v[i])));
  return r;
}
inline Quarter q_from_int(QuarterInt a) {
  Quarter r;
  MUSICGEN_EACH(r.v[i] = static_cast<float>(a.v[i]));
  return r;
}
inline Quarter q_power_of_two(Quarter n) {
  MUSICGEN_EACH(n.v[i] = std::ldexp(1.0f, static_cast<int>(n.v[i])));
  return n;
}
inline Quarter q_zero_where_less(Quarter a, Quarter x, Quarter limit) {
  MUSICGEN_EACH(a.v[i] = x.v[i] < limit.v[i] ? 0.0f : a.v[i]);
  return a;
}
inline QuarterInt q_load_bits(const char* p) {
  QuarterInt r;
  std::memcpy(r.v, p, 16);
  return r;
}
inline Quarter q_even(QuarterInt a) {
  Quarter r;
  MUSICGEN_EACH(a.v[i] = static_cast<int>(static_cast<unsigned>(a.v[i]) << 16));
  std::memcpy(r.v, a.v, 16);
  return r;
}
inline Quarter q_odd(QuarterInt a) {
  Quarter r;
  MUSICGEN_EACH(a.v[i] = static_cast<int>(static_cast<unsigned>(a.v[i]) & 0xffff0000u));
  std::memcpy(r.v, a.v, 16);
  return r;
}
inline QuarterInt q_zero_int() { return {{0, 0, 0, 0}}; }
inline QuarterInt q_dot(QuarterInt s, QuarterInt w, QuarterInt x) {
  signed char wb[16], xb[16];
  std::memcpy(wb, w.v, 16);
  std::memcpy(xb, x.v, 16);
  for (int i = 0; i < 16; ++i) s.v[i / 4] += wb[i] * xb[i];
  return s;
}
inline QuarterInt q_set1_int(int x) { return {{x, x, x, x}}; }
#undef MUSICGEN_EACH

#endif

struct V {
  Quarter q[4];
};
struct Sums {
  QuarterInt q[4];
};

#if MUSICGEN_ARM64
constexpr int kSoloVecs = 6;  // 24 of 32 registers
constexpr int kBatchVecs = 1;
constexpr int kBatchRows = 5;
#else
constexpr int kSoloVecs = 2;
constexpr int kBatchVecs = 1;
constexpr int kBatchRows = 2;
#endif
constexpr int kByteBias = 0;

inline V load(const float* p) { return {{q_load(p), q_load(p + 4), q_load(p + 8), q_load(p + 12)}}; }
inline void store(float* p, V a) {
  for (int i = 0; i < 4; ++i) q_store(p + 4 * i, a.q[i]);
}
inline V set1(float x) { return {{q_set1(x), q_set1(x), q_set1(x), q_set1(x)}}; }
#define MUSICGEN_LANEWISE(name)                                                                                        \
  inline V name(V a, V b) {                                                                                            \
    return {{q_##name(a.q[0], b.q[0]), q_##name(a.q[1], b.q[1]), q_##name(a.q[2], b.q[2]), q_##name(a.q[3], b.q[3])}}; \
  }
MUSICGEN_LANEWISE(add)
MUSICGEN_LANEWISE(sub)
MUSICGEN_LANEWISE(mul)
MUSICGEN_LANEWISE(div)
MUSICGEN_LANEWISE(max)
MUSICGEN_LANEWISE(min)
#undef MUSICGEN_LANEWISE
inline V fma(V a, V b, V c) {
  for (int i = 0; i < 4; ++i) c.q[i] = q_fma(a.q[i], b.q[i], c.q[i]);
  return c;
}
inline V nearest(V a) {
  for (int i = 0; i < 4; ++i) a.q[i] = q_nearest(a.q[i]);
  return a;
}
inline V times_power_of_two(V a, V n) {
  for (int i = 0; i < 4; ++i) a.q[i] = q_mul(a.q[i], q_power_of_two(n.q[i]));
  return a;
}
inline V zero_where_less(V a, V x, V limit) {
  for (int i = 0; i < 4; ++i) a.q[i] = q_zero_where_less(a.q[i], x.q[i], limit.q[i]);
  return a;
}

struct Pair {
  QuarterInt q[4];
};
inline Pair load_pair(const char* p) {
  return {{q_load_bits(p), q_load_bits(p + 16), q_load_bits(p + 32), q_load_bits(p + 48)}};
}
inline V even(Pair a) { return {{q_even(a.q[0]), q_even(a.q[1]), q_even(a.q[2]), q_even(a.q[3])}}; }
inline V odd(Pair a) { return {{q_odd(a.q[0]), q_odd(a.q[1]), q_odd(a.q[2]), q_odd(a.q[3])}}; }

struct Bytes {
  QuarterInt q[4];
};
struct Four {
  QuarterInt x;
};
inline Bytes load_bytes(const char* p) {
  return {{q_load_bits(p), q_load_bits(p + 16), q_load_bits(p + 32), q_load_bits(p + 48)}};
}
inline Four four(const unsigned char* x) {
  int bits;
  std::memcpy(&bits, x, 4);
  return {q_set1_int(bits)};
}
inline Sums sums_from(const int*) { return {{q_zero_int(), q_zero_int(), q_zero_int(), q_zero_int()}}; }
inline void add_dot(Sums& s, Bytes w, Four x) {
  for (int i = 0; i < 4; ++i) s.q[i] = q_dot(s.q[i], w.q[i], x.x);
}
inline void add_product(V& acc, V a, V b) { acc = fma(a, b, acc); }
inline V to_float(Sums s) { return {{q_from_int(s.q[0]), q_from_int(s.q[1]), q_from_int(s.q[2]), q_from_int(s.q[3])}}; }
inline void store_bytes(unsigned char* p, V scaled) {
  float lanes[16];
  store(lanes, {{q_nearest(scaled.q[0]), q_nearest(scaled.q[1]), q_nearest(scaled.q[2]), q_nearest(scaled.q[3])}});
  for (int i = 0; i < 16; ++i) p[i] = static_cast<unsigned char>(static_cast<signed char>(lanes[i]));
}

inline float sum_of(V a) {
  float s[4];
  q_store(s, q_add(q_add(a.q[0], a.q[2]), q_add(a.q[1], a.q[3])));
  return (s[0] + s[2]) + (s[1] + s[3]);
}
inline float largest_of(V a) {
  float s[4];
  q_store(s, q_max(q_max(a.q[0], a.q[2]), q_max(a.q[1], a.q[3])));
  const float x = s[0] > s[2] ? s[0] : s[2], y = s[1] > s[3] ? s[1] : s[3];
  return x > y ? x : y;
}
