// The work of each warp and lane in the grids of the CUDA kernels, as functions with tests on the
// CPU.
#pragma once

#include <cstdint>

#include "gradient.h"

namespace mmkgc {

inline constexpr int kLanesOfWarp = 32;

MMKGC_HD int64_t divide_up(int64_t n, int64_t by) { return (n + by - 1) / by; }

// The number of blocks for `n` items with `per_block` items each.
MMKGC_HD int64_t blocks_for(int64_t n, int64_t per_block) { return divide_up(n, per_block); }

// Rows cut into slices of 32 lanes times `vector` columns. A warp works on one slice of one row,
// and the slices of a row are consecutive. `columns` is a multiple of `vector`.
struct RowSlices {
  int64_t rows;
  int64_t columns;
  int vector;

  struct Place {
    int64_t row;
    int64_t column;  // first of `vector` columns; 0 in lanes beyond the row, which must not store
    bool inside;
  };

  MMKGC_HD int64_t slices() const {
    return divide_up(columns, static_cast<int64_t>(kLanesOfWarp) * vector);
  }

  MMKGC_HD int64_t warps() const { return rows * slices(); }

  MMKGC_HD Place place(int64_t warp, int lane) const {
    const int64_t n = slices(), row = warp / n;
    const int64_t column = ((warp - row * n) * kLanesOfWarp + lane) * vector;
    const bool inside = column < columns;
    return {row, inside ? column : 0, inside};
  }

  MMKGC_HD int64_t slice_by_slice(int64_t warp) const { return warp / rows; }

  // As `place`, with one slice of all rows before the next slice: rows that gather from a table
  // then read one slice of it at a time, which fits into a cache when the whole table does not.
  MMKGC_HD Place place_by_slice(int64_t warp, int lane) const {
    const int64_t slice = slice_by_slice(warp);
    return place((warp - slice * rows) * slices() + slice, lane);
  }
};

// Rows of `n` items cut into groups of `size`, within rows. A warp works on one group.
struct RowGroups {
  int64_t rows;
  int64_t n;
  int size;

  struct Place {
    int64_t row;
    int64_t first;  // item
  };

  MMKGC_HD int64_t groups() const { return divide_up(n, size); }
  MMKGC_HD int64_t warps() const { return rows * groups(); }

  MMKGC_HD Place place(int64_t warp) const {
    const int64_t per_row = groups(), row = warp / per_row;
    return {row, (warp - row * per_row) * size};
  }
};

// Long runs of a sorted sequence are cut at positions that are multiples of `length`. At most one
// part starts at each multiple, so that no list of parts is needed. The head of a run is the range
// before its first cut. Sums over the head and then the parts do not depend on the grid.
struct RunParts {
  int64_t length;

  // The number of possible parts of a sequence of n positions.
  MMKGC_HD int64_t count(int64_t n) const { return divide_up(n, length); }

  // The end of the head of the run [begin, end).
  MMKGC_HD int64_t head_end(int64_t begin, int64_t end) const {
    const int64_t cut = (begin / length + 1) * length;
    return cut < end ? cut : end;
  }

  // Whether `part` is a part of the run [begin, end) after its head.
  MMKGC_HD bool belongs(int64_t part, int64_t begin, int64_t end) const {
    return begin < part * length && part * length < end;
  }

  MMKGC_HD int64_t part_end(int64_t part, int64_t end) const {
    const int64_t cut = (part + 1) * length;
    return cut < end ? cut : end;
  }

  // The first part after the head.
  MMKGC_HD int64_t first(int64_t begin) const { return begin / length + 1; }
};

// The position of the first of `sorted[0..n)` that is at least `x`.
template <typename T>
MMKGC_HD int64_t lower_bound(const T* sorted, int64_t n, T x) {
  int64_t begin = 0;
  while (n > 0) {
    const int64_t half = n / 2;
    const bool below = sorted[begin + half] < x;
    begin += below ? half + 1 : 0;
    n = below ? n - half - 1 : half;
  }
  return begin;
}

// The position of the first of `sorted[0..n)` that is above `x`.
template <typename T>
MMKGC_HD int64_t upper_bound(const T* sorted, int64_t n, T x) {
  int64_t begin = 0;
  while (n > 0) {
    const int64_t half = n / 2;
    const bool upto = !(x < sorted[begin + half]);
    begin += upto ? half + 1 : 0;
    n = upto ? n - half - 1 : half;
  }
  return begin;
}

}  // namespace mmkgc
