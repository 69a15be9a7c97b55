#include "audio/fft.h"

#include <cmath>
#include <complex>
#include <deque>
#include <vector>

#include "base/checked.h"

namespace musicgen::audio {

namespace {

using Root = std::complex<double>;

constexpr double kPi = 3.14159265358979323846;

// exp(-2 pi i k / n), exact at the eighths of the circle.
Root root_of_unity(std::int64_t k, std::int64_t n) {
  k %= n;
  const std::int64_t eighth = 8 * k / n, rest = 8 * k - eighth * n;
  // Odd eighths are measured back from their end, so that every angle lies within an eighth of an axis.
  const double steps = static_cast<double>(eighth % 2 == 0 ? rest : n - rest);
  const double angle = 2 * kPi * steps / (8.0 * static_cast<double>(n));
  const double c = std::cos(angle), s = std::sin(angle);
  switch (eighth) {
    case 0:
      return {c, -s};
    case 1:
      return {s, -c};
    case 2:
      return {-s, -c};
    case 3:
      return {-c, -s};
    case 4:
      return {-c, s};
    case 5:
      return {-s, c};
    case 6:
      return {s, c};
    default:
      return {c, s};
  }
}

// Whether every prime factor of n is at most kLargestRadix.
bool is_smooth(int n) {
  for (int p = 2; p <= kLargestRadix; ++p)
    while (n % p == 0) n /= p;
  return n == 1;
}

// Radices whose product is n: as many eights as go with fours (and a two where it must be), one of them first, then the
// others in rising order. Of the orders tried for 256 to 2048 points, this one is the fastest or next to it.
std::vector<int> radices_of(int n) {
  int twos = 0;
  for (; n % 2 == 0; n /= 2) ++twos;
  const int fours = twos % 3 == 0 ? 0 : twos % 3 == 2 ? 1 : 2;
  std::vector<int> radices;
  if (twos == 1) {
    radices = {2};
  } else {
    const int eights = (twos - 2 * fours) / 3;
    if (eights > 0) radices.push_back(8);
    radices.insert(radices.end(), static_cast<std::size_t>(fours), 4);
    if (eights > 1) radices.insert(radices.end(), static_cast<std::size_t>(eights - 1), 8);
  }
  for (int p = 3; n > 1; p += 2)
    for (; n % p == 0; n /= p) radices.push_back(p);
  return radices;
}

// Where output k of a decimation in frequency with these radices ends up.
int position_of(int k, int length, const std::vector<int>& radices) {
  int position = 0;
  for (const int radix : radices) {
    length /= radix;
    position += k % radix * length;
    k /= radix;
  }
  return position;
}

// In double precision and plain radix 2, for the kernel of a convolution; sorted as it goes (T. Stockham, 1966).
void transform(std::vector<Root>& a) {
  std::vector<Root> b(a.size());
  for (std::size_t half = a.size() / 2, parts = 1; half >= 1; half /= 2, parts *= 2) {
    for (std::size_t j = 0; j < half; ++j) {
      const Root w = root_of_unity(static_cast<std::int64_t>(j), static_cast<std::int64_t>(2 * half));
      for (std::size_t p = 0; p < parts; ++p) {
        const Root x = a[j * parts + p], y = a[(j + half) * parts + p];
        b[2 * j * parts + p] = x + y;
        b[(2 * j + 1) * parts + p] = (x - y) * w;
      }
    }
    a.swap(b);
  }
}

}  // namespace

template <typename T>
struct RealFft<T>::Storage {
  std::deque<std::vector<T>> tables;
  std::vector<Stage<T>> over_rows, along_rows;
  std::vector<std::int64_t> inner_where, where;

  const T* keep(const std::vector<Root>& roots) {
    if (roots.empty()) return nullptr;
    tables.emplace_back();
    for (const Root& z : roots) {
      tables.back().push_back(static_cast<T>(z.real()));
      tables.back().push_back(static_cast<T>(z.imag()));
    }
    return tables.back().data();
  }

  // The stages of transforms over `length` steps of `unit` columns each.
  std::vector<Stage<T>> stages_of(const std::vector<int>& radices, int length, int unit) {
    std::vector<Stage<T>> stages;
    for (const int radix : radices) {
      const std::int64_t butterflies = static_cast<std::int64_t>(length / radix) * unit;
      std::vector<Root> twiddles, roots;
      if (butterflies > 1) {
        for (std::int64_t j = 0; j < butterflies; ++j)
          for (int q = 1; q < radix; ++q)
            twiddles.push_back(root_of_unity(j * q, static_cast<std::int64_t>(length) * unit));
      }
      for (int k = 0; k < radix; ++k) roots.push_back(root_of_unity(k, radix));
      const T* kept = keep(twiddles);
      stages.push_back({radix, length, kept, keep(roots)});
      length /= radix;
    }
    return stages;
  }

  ComplexPlan<T> complex_plan(int points) {
    std::vector<int> row_radices, column_radices;
    int rows = 1, columns = points;
    for (const int radix : radices_of(points)) {
      if (column_radices.empty() && columns > kLongestRow && rows * radix <= kLanes) {
        row_radices.push_back(radix);
        rows *= radix;
        columns /= radix;
      } else {
        column_radices.push_back(radix);
      }
    }
    ComplexPlan<T> plan{};
    plan.points = points;
    plan.rows = rows;
    plan.columns = columns;
    plan.row_stride = (static_cast<std::ptrdiff_t>(columns) + 1) * kPoint;
    plan.tile_values = rows == 1 ? 0 : static_cast<std::ptrdiff_t>(rows) * kColumnGroup * kPoint;
    plan.values = rows * plan.row_stride;
    over_rows = stages_of(row_radices, rows, columns);
    along_rows = stages_of(column_radices, columns, 1);
    plan.over_rows = over_rows.data();
    plan.n_over_rows = static_cast<int>(over_rows.size());
    plan.along_rows = along_rows.data();
    plan.n_along_rows = static_cast<int>(along_rows.size());
    for (int k = 0; k < points; ++k)
      inner_where.push_back(position_of(k % rows, rows, row_radices) * plan.row_stride +
                            static_cast<std::int64_t>(position_of(k / rows, columns, column_radices)) * kPoint);
    plan.where = inner_where.data();
    return plan;
  }
};

template <typename T>
RealFft<T>::~RealFft() = default;

template <typename T>
RealFft<T>::RealFft(int size) : storage_(std::make_unique<Storage>()), plan_{} {
  const bool packed = size % 2 == 0;
  const std::int64_t points = packed ? size / 2 : size;
  const bool convolved = !is_smooth(static_cast<int>(points));
  std::int64_t inner = points;
  if (convolved)
    for (inner = 1; inner < 2 * points - 1; inner *= 2) continue;  // a power of two: its stages are the fastest

  plan_.size = size;
  plan_.bins = size / 2 + 1;
  plan_.packed = packed;
  plan_.points = static_cast<int>(points);
  plan_.inner = storage_->complex_plan(static_cast<int>(inner));
  plan_.convolved = convolved;
  plan_.scratch_values = plan_.inner.tile_values + (convolved ? 2 : 1) * plan_.inner.values +
                         static_cast<std::ptrdiff_t>(plan_.bins) * kPoint;
  if (packed) {
    std::vector<Root> roots;
    for (std::int64_t k = 0; k <= points / 2; ++k) roots.push_back(root_of_unity(k, 2 * points));
    plan_.split = storage_->keep(roots);
  }
  plan_.where = plan_.inner.where;
  if (!convolved) return;

  std::vector<Root> chirp, kernel(to_size(inner));
  for (std::int64_t k = 0; k < points; ++k) {
    chirp.push_back(root_of_unity(k * k % (2 * points), 2 * points));
    kernel[to_size(k)] = std::conj(chirp.back());
    if (k > 0) kernel[to_size(inner - k)] = std::conj(chirp.back());
    storage_->where.push_back(k * kPoint);
  }
  transform(kernel);
  for (Root& z : kernel) z /= static_cast<double>(inner);
  plan_.chirp = storage_->keep(chirp);
  plan_.kernel = storage_->keep(kernel);
  plan_.where = storage_->where.data();
}

template class RealFft<float>;
template class RealFft<double>;

}  // namespace musicgen::audio
