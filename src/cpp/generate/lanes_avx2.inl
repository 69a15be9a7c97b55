// AVX2 with FMA: two registers hold sixteen floats. Included inside a namespace compiled for this instruction set.

struct V {
  __m256 lo, hi;
};
struct Sums {
  __m256i lo, hi;
};

constexpr int kSoloVecs = 4;
constexpr int kBatchVecs = 1;
constexpr int kBatchRows = 6;
constexpr int kByteBias = 0;

inline V load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, V a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
inline V set1(float x) {
  const __m256 all = _mm256_set1_ps(x);
  return {all, all};
}
inline V add(V a, V b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
inline V sub(V a, V b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
inline V mul(V a, V b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
inline V div(V a, V b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
inline V fma(V a, V b, V c) { return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)}; }
inline V max(V a, V b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
inline V min(V a, V b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
inline V nearest(V a) {
  return {_mm256_round_ps(a.lo, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
          _mm256_round_ps(a.hi, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline __m256 power_of_two(__m256 n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
inline V times_power_of_two(V a, V n) {
  return {_mm256_mul_ps(a.lo, power_of_two(n.lo)), _mm256_mul_ps(a.hi, power_of_two(n.hi))};
}
inline V zero_where_less(V a, V x, V limit) {
  return {_mm256_and_ps(a.lo, _mm256_cmp_ps(x.lo, limit.lo, _CMP_NLT_UQ)),
          _mm256_and_ps(a.hi, _mm256_cmp_ps(x.hi, limit.hi, _CMP_NLT_UQ))};
}

struct Pair {
  __m256i lo, hi;
};
inline Pair load_pair(const char* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))};
}
inline V even(Pair a) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(a.lo, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(a.hi, 16))};
}
inline V odd(Pair a) {
  const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  return {_mm256_castsi256_ps(_mm256_and_si256(a.lo, upper)), _mm256_castsi256_ps(_mm256_and_si256(a.hi, upper))};
}

// Without VNNI: vpmaddubsw multiplies unsigned by signed bytes and saturates the sum of two products at 16 bits. With
// |x| <= 127 on one side and w, carrying the sign of x, in [-127, 127] on the other, 2 * 127 * 127 = 32258 fits: exact.
struct Bytes {
  __m256i lo, hi;
};
struct Four {
  __m256i x, magnitude;
};
inline Bytes load_bytes(const char* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))};
}
inline Four four(const unsigned char* x) {
  int bits;
  __builtin_memcpy(&bits, x, 4);
  const __m256i all = _mm256_set1_epi32(bits);
  return {all, _mm256_abs_epi8(all)};
}
inline Sums sums_from(const int*) { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
inline __m256i dot_half(__m256i s, __m256i w, Four x) {
  const __m256i pairs = _mm256_maddubs_epi16(x.magnitude, _mm256_sign_epi8(w, x.x));
  return _mm256_add_epi32(s, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
inline void add_dot(Sums& s, Bytes w, Four x) { s = {dot_half(s.lo, w.lo, x), dot_half(s.hi, w.hi, x)}; }
inline void add_product(V& acc, V a, V b) { acc = fma(a, b, acc); }
inline V to_float(Sums s) { return {_mm256_cvtepi32_ps(s.lo), _mm256_cvtepi32_ps(s.hi)}; }
inline void store_bytes(unsigned char* p, V scaled) {
  const __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(scaled.lo), _mm256_cvtps_epi32(scaled.hi));
  const __m256i ordered = _mm256_permute4x64_epi64(words, 0xd8);
  const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
}

inline float sum_of(V a) {
  const __m256 eight = _mm256_add_ps(a.lo, a.hi);
  const __m128 quad = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(quad, _mm_movehl_ps(quad, quad));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
inline float largest_of(V a) {
  const __m256 eight = _mm256_max_ps(a.lo, a.hi);
  const __m128 quad = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(quad, _mm_movehl_ps(quad, quad));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}
