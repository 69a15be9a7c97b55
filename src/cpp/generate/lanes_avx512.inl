// AVX-512: one register holds sixteen floats. Included inside a namespace compiled for this instruction set.

struct V {
  __m512 v;
};
struct Sums {  // sixteen exact integer sums
  __m512i v;
};

constexpr int kSoloVecs = 12;  // accumulators of one sequence: enough to hide the latency of an fma, few enough to stay
constexpr int kBatchVecs = 4;  // accumulators of a batch: kBatchVecs x kBatchRows registers
constexpr int kBatchRows = 6;
constexpr int kByteBias = 128;  // vpdpbusd multiplies unsigned by signed bytes: activations are stored shifted by this

inline V load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, V a) { _mm512_storeu_ps(p, a.v); }
inline V set1(float x) { return {_mm512_set1_ps(x)}; }
inline V add(V a, V b) { return {_mm512_add_ps(a.v, b.v)}; }
inline V sub(V a, V b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline V mul(V a, V b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline V div(V a, V b) { return {_mm512_div_ps(a.v, b.v)}; }
inline V fma(V a, V b, V c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline V max(V a, V b) { return {_mm512_max_ps(a.v, b.v)}; }
inline V min(V a, V b) { return {_mm512_min_ps(a.v, b.v)}; }
inline V nearest(V a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
inline V times_power_of_two(V a, V n) { return {_mm512_scalef_ps(a.v, n.v)}; }
inline V zero_where_less(V a, V x, V limit) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.v, limit.v, _CMP_NLT_UQ), a.v)};
}

// Two bfloat16 weights of one row, in the halves of a 32-bit lane: the even column below, the odd column above.
struct Pair {
  __m512i v;
};
inline Pair load_pair(const char* p) { return {_mm512_loadu_si512(p)}; }
inline V even(Pair a) { return {_mm512_castsi512_ps(_mm512_slli_epi32(a.v, 16))}; }
inline V odd(Pair a) {
  return {_mm512_castsi512_ps(_mm512_and_si512(a.v, _mm512_set1_epi32(static_cast<int>(0xffff0000u))))};
}

// Four signed bytes of one row in a 32-bit lane against the same four columns of the input.
struct Bytes {
  __m512i v;
};
struct Four {
  __m512i v;
};
inline Bytes load_bytes(const char* p) { return {_mm512_loadu_si512(p)}; }
inline Four four(const unsigned char* x) {
  int bits;
  __builtin_memcpy(&bits, x, 4);
  return {_mm512_set1_epi32(bits)};
}
inline Sums sums_from(const int* minus_bias) { return {_mm512_loadu_si512(minus_bias)}; }
// GCC 12 copies every accumulator to another register and back around these instructions when it is given the
// intrinsics: 16 moves for 8 products in the inner loop. The instruction by name leaves it no choice.
inline void add_dot(Sums& s, Bytes w, Four x) {
#if defined(__GNUC__)
  __asm__("vpdpbusd %1, %2, %0" : "+v"(s.v) : "vm"(w.v), "v"(x.v));
#else
  s.v = _mm512_dpbusd_epi32(s.v, x.v, w.v);
#endif
}
inline void add_product(V& acc, V a, V b) {
#if defined(__GNUC__)
  __asm__("vfmadd231ps %1, %2, %0" : "+v"(acc.v) : "v"(a.v), "v"(b.v));
#else
  acc.v = _mm512_fmadd_ps(a.v, b.v, acc.v);
#endif
}
inline V to_float(Sums s) { return {_mm512_cvtepi32_ps(s.v)}; }
inline void store_bytes(unsigned char* p, V scaled) {
  const __m512i q = _mm512_add_epi32(_mm512_cvtps_epi32(scaled.v), _mm512_set1_epi32(kByteBias));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(q));
}

// Sum of the lanes in the order that every path keeps: halves, quarters, pairs, single lanes.
inline float sum_of(V a) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 quad = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(quad, _mm_movehl_ps(quad, quad));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
inline float largest_of(V a) { return _mm512_reduce_max_ps(a.v); }
