// Sixteen lanes through exp, tanh and the logistic sigmoid, in terms of the lanes included before this file.

inline V exponential(V x) {
  // Cody and Waite's reduction and the polynomial of Cephes' expf: within 2 ulp on [-87, 88].
  x = min(max(x, set1(-87.0f)), set1(88.0f));
  const V n = nearest(mul(x, set1(1.44269504088896341f)));
  V r = fma(n, set1(-0.693359375f), x);
  r = fma(n, set1(2.12194440e-4f), r);
  V p = set1(1.9875691500e-4f);
  p = fma(p, r, set1(1.3981999507e-3f));
  p = fma(p, r, set1(8.3334519073e-3f));
  p = fma(p, r, set1(4.1665795894e-2f));
  p = fma(p, r, set1(1.6666665459e-1f));
  p = fma(p, r, set1(5.0000001201e-1f));
  return times_power_of_two(add(fma(p, mul(r, r), r), set1(1.0f)), n);
}

inline V magnitude(V x) { return max(x, sub(set1(0.0f), x)); }
inline V clamp(V x, float limit) { return min(max(x, set1(-limit)), set1(limit)); }

// exp(-x), bounded so that products of three such terms stay finite.
inline V exp_minus(V x) { return exponential(sub(set1(0.0f), clamp(x, 30.0f))); }
// exp(2x), bounded where tanh is 1 to the last bit.
inline V exp_twice(V x) {
  const V bounded = clamp(x, 10.0f);
  return exponential(add(bounded, bounded));
}
inline V sigmoid(V x) { return div(set1(1.0f), add(set1(1.0f), exp_minus(x))); }
inline V tanh_of(V x) {
  const V e = exp_twice(x);
  return div(sub(e, set1(1.0f)), add(e, set1(1.0f)));
}
// sigmoid(a) * tanh(b) with one division.
inline V gated(V a, V b) {
  const V e = exp_twice(b), one = set1(1.0f);
  return div(sub(e, one), mul(add(one, exp_minus(a)), add(e, one)));
}
