// The kernels, in terms of the lanes and activations included before this file.

template <Activation A>
inline V activated(V x) {
  if constexpr (A == Activation::relu) return max(x, set1(0.0f));
  if constexpr (A == Activation::leaky_relu) return max(x, mul(x, set1(kLeak)));
  if constexpr (A == Activation::tanh) return tanh_of(x);
  if constexpr (A == Activation::sigmoid) return sigmoid(x);
  return x;
}

template <Activation A>
inline void activate_all(float* values, int n, float scale) {
  const V by = set1(scale);
  for (int i = 0; i < n; i += kLanes) store(values + i, activated<A>(mul(load(values + i), by)));
}

void activate(float* values, int n, Activation activation, float scale) {
  switch (activation) {
    case Activation::none:
      return activate_all<Activation::none>(values, n, scale);
    case Activation::relu:
      return activate_all<Activation::relu>(values, n, scale);
    case Activation::leaky_relu:
      return activate_all<Activation::leaky_relu>(values, n, scale);
    case Activation::tanh:
      return activate_all<Activation::tanh>(values, n, scale);
    case Activation::sigmoid:
      return activate_all<Activation::sigmoid>(values, n, scale);
  }
}

float largest_magnitude(const float* values, int n) {
  V most = set1(0.0f);
  for (int i = 0; i < n; i += kLanes) {
    const V x = load(values + i);
    most = max(max(x, sub(set1(0.0f), x)), most);
  }
  return largest_of(most);
}

constexpr FeedForwardKernels kKernels = {activate, largest_magnitude};
