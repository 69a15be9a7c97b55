// The arithmetic of spectra, once for every instruction set. Sixteen frames lie side by side, one to a lane, and no
// lane looks at another: what comes out of a frame does not depend on its neighbours, on the size of a call or on the
// number of threads. AVX2, AVX-512 and NEON do the same operations in the same order and give the same bits; the plain
// baseline has no fused multiply-add and rounds twice where they round once.
#pragma once

#include <cstddef>

#include "audio/fft.h"
#include "base/cpu.h"

namespace musicgen::audio {

// A matrix with one run of non-zero columns in a row.
struct SparseRow {
  int first, count;        // columns
  std::ptrdiff_t weights;  // index of the first weight
};
template <typename T>
struct SparseRows {
  const SparseRow* rows;
  int n_rows;
  const T* weights;
  T largest;  // of a result
};

// Values of sixteen frames lie in rows of kLanes. `frames`, `spectra` and `out` are arrays of kLanes pointers; n of the
// lanes are written out.
template <typename T>
struct Kernels {
  // The spectra of frames times window, interleaved complex numbers, `bins` of them at each of `out`. Even sizes want
  // half the window.
  void (*spectrum)(const RealPlan<T>& plan, const T* window, const T* const* frames, T* scratch, T* const* out, int n);
  // Their squared magnitudes in rows, one row to a bin.
  void (*power)(const RealPlan<T>& plan, const T* window, const T* const* frames, T* scratch, T* rows);
  // The unscaled real signals of spectra, times window, `size` values at each of `out`.
  void (*inverse)(const RealPlan<T>& plan, const T* window, const T* const* spectra, T* scratch, T* const* out, int n);
  // rows = sqrt(rows).
  void (*roots)(T* rows, std::ptrdiff_t count);
  // out = matrix * rows, at most `largest`.
  void (*apply_rows)(const SparseRows<T>& matrix, const T* rows, T* out);
  // rows = 10 log10(max(rows, least)), and the lowest and highest of these in each lane. `least` is positive and
  // normal.
  void (*decibels)(T* rows, std::ptrdiff_t count, T least, T* lowest, T* highest);
  // rows = max(rows, floor).
  void (*raise)(T* rows, std::ptrdiff_t count, T floor);
  // out = matrix * rows, the matrix of shape (n_out, count).
  void (*product)(const T* matrix, int n_out, std::ptrdiff_t count, const T* rows, T* out);
  // `count` rows to values first … first + count - 1 at each of `out`.
  void (*to_frames)(const T* rows, std::ptrdiff_t count, T* const* out, std::ptrdiff_t first, int n);
  // Whether there is a NaN or an infinity.
  bool (*any_not_finite)(const T* values, std::ptrdiff_t count);
};

template <typename T>
const Kernels<T>& kernels_for(Isa isa);

}  // namespace musicgen::audio
