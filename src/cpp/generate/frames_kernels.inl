// The kernels of networks over frames, in terms of the lanes and activations included before this file. No standard
// library calls: see base/target.h.

void add_to(float* sum, const float* x, int n) {
  for (int i = 0; i < n; i += kLanes) store(sum + i, add(load(sum + i), load(x + i)));
}

void ask(const KeyQuestions& questions, int first, int last) {
  const int width = questions.width;
  for (int k = first; k < last; ++k) {
    const float* sums = questions.sums + static_cast<std::size_t>(k) * static_cast<std::size_t>(width);
    const int* rows = questions.rows + k * questions.n_rows;
    V answer = set1(0.0f);
    for (int i = 0; i < width; i += kLanes) {
      V f = load(sums + i);
      for (int r = 0; r < questions.n_rows; ++r)
        f = add(f, load(questions.table + static_cast<std::size_t>(rows[r]) * static_cast<std::size_t>(width) + i));
      answer = fma(load(questions.output + i), max(f, set1(0.0f)), answer);
    }
    questions.z[k] = questions.start[k] + sum_of(answer);
  }
}

// ln(1 + u) of u = exp(-|z|) in [0, 1] by its series in u / (2 + u), which is at most 1/3: the first term that is left
// out is below 1e-8.
void softplus(const float* z, float* out, int n) {
  for (int i = 0; i < n; i += kLanes) {
    const V x = load(z + i), size = max(x, sub(set1(0.0f), x));
    const V u = exponential(sub(set1(0.0f), size));
    const V s = div(u, add(u, set1(2.0f))), square = mul(s, s);
    V p = set1(1.0f / 13.0f);
    p = fma(p, square, set1(1.0f / 11.0f));
    p = fma(p, square, set1(1.0f / 9.0f));
    p = fma(p, square, set1(1.0f / 7.0f));
    p = fma(p, square, set1(1.0f / 5.0f));
    p = fma(p, square, set1(1.0f / 3.0f));
    p = fma(p, square, set1(1.0f));
    store(out + i, fma(add(s, s), p, max(x, set1(0.0f))));
  }
}

constexpr FramesKernels kFramesKernels = {add_to, ask, softplus};
