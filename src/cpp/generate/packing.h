// How a model's tensors are laid into memory: in the order in which a step reads them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/arena.h"
#include "base/checked.h"
#include "generate/kernels.h"

namespace musicgen::generate {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
constexpr std::size_t kSecondLevelCache = std::size_t{1} << 20;  // or more, on today's machines

// A matrix or vector as it lies in the model file: floats, or bytes with a scale for every row.
struct Tensor {
  const float* values = nullptr;
  const std::int8_t* bytes = nullptr;
  const float* scale = nullptr;
  std::int64_t rows = 0, cols = 1;
  float at(std::int64_t r, std::int64_t c) const {
    return bytes ? static_cast<float>(bytes[r * cols + c]) * scale[r] : values[r * cols + c];
  }
};
using Tensors = std::map<std::string, Tensor>;

// By name, or std::invalid_argument.
const Tensor& tensor_of(const Tensors& tensors, const std::string& name);

// To nearest, ties to even; x is finite.
std::uint16_t bfloat16_of(float x);

// Packed row or column -> that of the tensor, -1 where it only pads.
using Indices = std::vector<std::int64_t>;
// 0 … n - 1, padded to whole vectors.
Indices plain_indices(int n);
// first, first + step, … (n of them), padded to whole vectors.
Indices spaced_indices(std::int64_t first, std::int64_t step, int n);
// Blocks of 16 units, each with all of its gates side by side; the tensor has one gate below the other.
Indices gate_indices(int gates, int units);

// Lays matrices, biases and tables into one arena. A model's packer derives from it and makes its calls in lay_out(),
// which runs twice: first to count bytes, then to write.
class Packing {
 public:
  Packing(Precision precision, Arena& arena) : precision_(precision), arena_(arena) {}
  virtual ~Packing() = default;
  void run();

 protected:
  struct Part {
    Matrix* matrix;
    const Tensor* tensor;
    Indices columns;
  };

  virtual void lay_out() = 0;

  bool writing() const { return writing_; }
  std::byte* take(std::size_t bytes);
  template <class T>
  T* take_of(std::size_t count) {
    return reinterpret_cast<T*>(take(checked_product(count, sizeof(T))));
  }

  template <class ValueOf>
  const float* row_of(const Indices& rows, ValueOf value_of, float padding = 0.0f) {
    float* out = take_of<float>(rows.size());
    if (writing_)
      for (std::size_t i = 0; i < rows.size(); ++i) out[i] = rows[i] < 0 ? padding : value_of(rows[i]);
    return out;
  }

  // Matrices with the same rows, tile by tile behind one another.
  void pack(const std::vector<Part>& parts, const Indices& rows, const std::vector<int>& tiles, Precision precision);

  static void describe(Matrix& matrix, std::size_t rows, const std::vector<int>& tiles, std::size_t columns,
                       Precision precision);
  // All tiles of a float32 matrix, end to end.
  void write_matrix(std::byte* out, const Tensor& tensor, const Indices& columns, const Indices& rows,
                    const std::vector<int>& tiles) const;
  static std::size_t matrix_bytes(const std::vector<int>& tiles, std::size_t columns);

  // What is left of a float in the model's precision: tables are made of weights as they are stored.
  float stored(float value) const;

 private:
  void prepare(const Part& part, const Indices& rows, const std::vector<int>& tiles, Precision precision);
  void write_tile(std::byte* out, const Tensor& tensor, const Indices& columns, const std::int64_t* rows, int vecs,
                  Precision precision) const;
  int lines_ahead(Precision precision) const;

  Precision precision_;
  Arena& arena_;
  bool writing_ = false;
  std::size_t bytes_ = 0;  // of the whole model, once counted
  std::size_t used_ = 0;
};

}  // namespace musicgen::generate
