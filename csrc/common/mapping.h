// Which warp and lane works on what: the grids of the CUDA kernels, as functions that the CPU tests.
#pragma once

#include <cstdint>

#include "gradient.h"

namespace mmkgc {

inline constexpr int kLanesOfWarp = 32;

MMKGC_HD int64_t divide_up(int64_t n, int64_t by) { return (n + by - 1) / by; }

// Blocks of `per_block` that hold `n` of something.
MMKGC_HD int64_t blocks_for(int64_t n, int64_t per_block) { return divide_up(n, per_block); }

// Rows of columns, cut into slices of 32 lanes times `vector` columns: a warp takes one slice of one
// row, slices of a row beside each other. `columns` is a multiple of `vector`.
struct RowSlices {
  int64_t rows;
  int64_t columns;
  int vector;

  struct Place {
    int64_t row;
    int64_t column;  // the first of `vector`; 0 in a lane beyond the row, which may load but not store
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

  // The same with a slice of all rows before the next slice: rows that gather from a table then meet
  // a slice of it at a time, which fits into a cache that the table is too large for.
  MMKGC_HD Place place_by_slice(int64_t warp, int lane) const {
    const int64_t slice = slice_by_slice(warp);
    return place((warp - slice * rows) * slices() + slice, lane);
  }
};

// Rows of `n` items, cut into groups of `size` that do not cross rows: a warp takes one group.
struct RowGroups {
  int64_t rows;
  int64_t n;
  int size;

  struct Place {
    int64_t row;
    int64_t first;  // of the items
  };

  MMKGC_HD int64_t groups() const { return divide_up(n, size); }
  MMKGC_HD int64_t warps() const { return rows * groups(); }

  MMKGC_HD Place place(int64_t warp) const {
    const int64_t per_row = groups(), row = warp / per_row;
    return {row, (warp - row * per_row) * size};
  }
};

// Long runs of a sorted sequence are cut where positions are multiples of `length`, so that each
// multiple starts at most one part, and where the parts are needs no list of them. What comes before
// the first cut is the run's head. Sums over head and parts, in this order, do not depend on the grid.
struct RunParts {
  int64_t length;

  // Of a sequence of n positions, counting those that no run has.
  MMKGC_HD int64_t count(int64_t n) const { return divide_up(n, length); }

  // Where the head of the run [begin, end) ends.
  MMKGC_HD int64_t head_end(int64_t begin, int64_t end) const {
    const int64_t cut = (begin / length + 1) * length;
    return cut < end ? cut : end;
  }

  // Whether `part` belongs to the run [begin, end), but is not its head.
  MMKGC_HD bool belongs(int64_t part, int64_t begin, int64_t end) const {
    return begin < part * length && part * length < end;
  }

  MMKGC_HD int64_t part_end(int64_t part, int64_t end) const {
    const int64_t cut = (part + 1) * length;
    return cut < end ? cut : end;
  }

  // The first part behind the head.
  MMKGC_HD int64_t first(int64_t begin) const { return begin / length + 1; }
};

// The first of `sorted[0..n)` that is not below `x`.
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

// The first of `sorted[0..n)` that is above `x`.
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
