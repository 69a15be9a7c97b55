// Plans for Fourier transforms of sixteen signals at a time, one to each lane.
//
// A point is sixteen real parts followed by sixteen imaginary ones. A transform of rows * columns points runs in two
// phases, so that each works on a few kilobytes: transforms over the rows, a few columns at a time, then one transform
// along each row. Both are decimations in frequency with radices 2, 3, 4, 5, 8 and small primes; outputs stay where the
// butterflies leave them, and `where` tells. A size with a prime factor above kLargestRadix goes through a convolution
// whose size has none (L. Bluestein, 1970).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace musicgen::audio {

constexpr int kLanes = 16;          // signals side by side
constexpr int kPoint = 2 * kLanes;  // values of a point
constexpr int kLargestRadix = 31;   // larger primes are cheaper by convolution
constexpr int kColumnGroup = 8;     // columns that are transformed together
constexpr int kLongestRow = 64;     // points of a row, where the factors allow it: 8 KiB of floats

template <typename T>
struct Stage {
  int radix;
  int length;         // of the transforms that this stage splits, in rows or in columns
  const T* twiddles;  // for each butterfly, cos and -sin for legs 1 … radix - 1; null: all of them are 1
  const T* roots;     // cos and -sin of 2 pi k / radix
};

// A complex transform of `points` = rows * columns points without a prime factor above kLargestRadix.
template <typename T>
struct ComplexPlan {
  int points, rows, columns;
  std::ptrdiff_t row_stride;  // in values; a little more than a row, so that rows do not share cache sets
  std::ptrdiff_t tile_values, values;
  int n_over_rows, n_along_rows;
  const Stage<T>*over_rows, *along_rows;
  const std::int64_t* where;  // offset in values of output k
};

// A real transform of `size` values. Even sizes take two values as one complex point.
template <typename T>
struct RealPlan {
  int size, bins;
  bool packed;           // an even size
  int points;            // of the complex transform: size / 2 or size
  ComplexPlan<T> inner;  // of `points`, or of the convolution
  const T* split;        // packed: cos and -sin of pi k / points, k = 0 … points / 2
  bool convolved;
  const T* chirp;             // convolved: cos and -sin of pi k^2 / points
  const T* kernel;            // the transform of the conjugate chirp over the inner size, divided by that size
  const std::int64_t* where;  // offset in values of output k
  std::ptrdiff_t scratch_values;
};

// What a plan points to, made once. Twiddles are computed in double precision and rounded.
template <typename T>
class RealFft {
 public:
  explicit RealFft(int size);  // > 0
  ~RealFft();
  const RealPlan<T>& plan() const { return plan_; }

 private:
  struct Storage;
  std::unique_ptr<Storage> storage_;
  RealPlan<T> plan_;
};

}  // namespace musicgen::audio
