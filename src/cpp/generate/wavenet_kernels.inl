// The kernels of a WaveNet's step, in terms of the lanes and activations included before this file. No standard library
// calls: see base/target.h.

inline V magnitude(V x) { return max(x, sub(set1(0.0f), x)); }

void gate(const float* sums, float* z, unsigned char* bytes, int n) {
  for (int i = 0; i < n; i += kLanes) {
    const V value = gated(load(sums + 2 * i + kLanes), load(sums + 2 * i));
    store(z + i, value);
    if (bytes != nullptr) store_bytes(bytes + i, mul(value, set1(127.0f)));
  }
}

void add_all(float* h, const float* x, int n) {
  for (int i = 0; i < n; i += kLanes) store(h + i, add(load(h + i), load(x + i)));
}

void relu(float* x, int n) {
  for (int i = 0; i < n; i += kLanes) store(x + i, max(load(x + i), set1(0.0f)));
}

float quantise(const float* x, unsigned char* bytes, int n) {
  V most = set1(0.0f);
  for (int i = 0; i < n; i += kLanes) most = max(magnitude(load(x + i)), most);
  const float largest = largest_of(most);
  const V factor = set1(largest > 0.0f ? 127.0f / largest : 0.0f), limit = set1(127.0f);
  for (int i = 0; i < n; i += kLanes) store_bytes(bytes + i, min(mul(load(x + i), factor), limit));
  return largest * kByteScale;
}

constexpr WaveNetKernels kWaveNetKernels = {gate, add_all, relu, quantise};
