// Properties of csrc/common, which CPU and GPU share: the work of warps, and 16-bit numbers. Prints
// the first property that does not hold and exits with 1.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <vector>

#include "common/low_precision.h"
#include "common/mapping.h"

using namespace mmkgc;

#define HOLDS(condition)                                             \
  do {                                                               \
    if (!(condition)) {                                              \
      std::printf("line %d does not hold: %s\n", __LINE__, #condition); \
      std::exit(1);                                                  \
    }                                                                \
  } while (0)

void slices_cover_every_column_once() {
  for (const int64_t rows : {0, 1, 3}) {
    for (int64_t columns = 0; columns <= 600; columns += columns < 140 ? 1 : 23) {
      for (const int vector : {1, 2, 4, 8}) {
        if (columns % vector) continue;
        const RowSlices map{rows, columns, vector};
        std::vector<int> seen(static_cast<std::size_t>(rows * columns));
        for (int64_t warp = 0; warp < map.warps(); ++warp) {
          for (int lane = 0; lane < kLanesOfWarp; ++lane) {
            const auto place = map.place(warp, lane);
            HOLDS(place.row >= 0 && place.row < rows);
            HOLDS(place.column >= 0 && place.column + vector <= columns);
            for (int v = 0; place.inside && v < vector; ++v) {
              ++seen[static_cast<std::size_t>(place.row * columns + place.column + v)];
            }
          }
        }
        for (const int times : seen) HOLDS(times == 1);
      }
    }
  }
}

void groups_cover_every_item_once() {
  for (const int64_t rows : {0, 1, 5}) {
    for (int64_t n = 0; n <= 40; ++n) {
      for (const int size : {1, 4, 7}) {
        const RowGroups map{rows, n, size};
        std::vector<int> seen(static_cast<std::size_t>(rows * n));
        for (int64_t warp = 0; warp < map.warps(); ++warp) {
          const auto place = map.place(warp);
          HOLDS(place.row < rows && place.first < n);
          for (int64_t i = place.first; i < place.first + size && i < n; ++i) {
            ++seen[static_cast<std::size_t>(place.row * n + i)];
          }
        }
        for (const int times : seen) HOLDS(times == 1);
      }
    }
  }
}

// Heads and parts of all runs cover the sequence, and none is too long.
void parts_cover_every_position_once() {
  for (const int64_t length : {1, 4, 128}) {
    const RunParts parts{length};
    for (int64_t first = 0; first <= 300; first += 7) {
      for (int64_t second = first; second <= 300; second += 31) {
        const int64_t n = 300, bounds[] = {0, first, second, n};
        std::vector<int> seen(static_cast<std::size_t>(n));
        for (int run = 0; run < 3; ++run) {
          const int64_t begin = bounds[run], end = bounds[run + 1];
          if (begin == end) continue;
          HOLDS(parts.head_end(begin, end) - begin <= length);
          for (int64_t i = begin; i < parts.head_end(begin, end); ++i) ++seen[static_cast<std::size_t>(i)];
          int64_t expected = parts.first(begin);
          for (int64_t part = 0; part < parts.count(n); ++part) {
            if (!parts.belongs(part, begin, end)) continue;
            HOLDS(part == expected++);  // the parts that the warp of the head adds
            for (int64_t i = part * length; i < parts.part_end(part, end); ++i) ++seen[static_cast<std::size_t>(i)];
          }
          HOLDS(expected * length >= end);
        }
        for (const int times : seen) HOLDS(times == 1);
      }
    }
  }
}

void bounds_are_those_of_the_standard_library() {
  const std::vector<int64_t> sorted{1, 1, 3, 4, 4, 4, 9};
  for (int64_t n = 0; n <= static_cast<int64_t>(sorted.size()); ++n) {
    for (int64_t x = 0; x <= 10; ++x) {
      int64_t below = 0, upto = 0;
      for (int64_t i = 0; i < n; ++i) {
        below += sorted[static_cast<std::size_t>(i)] < x;
        upto += sorted[static_cast<std::size_t>(i)] <= x;
      }
      HOLDS(lower_bound(sorted.data(), n, x) == below);
      HOLDS(upper_bound(sorted.data(), n, x) == upto);
    }
  }
}

// The value of a 16-bit number from its parts: sign, exponent bits, mantissa bits.
double value_of(uint32_t bits, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1, top = (1 << exponent_bits) - 1;
  const int exponent = static_cast<int>(bits >> mantissa_bits) & top;
  const double mantissa = bits & ((1u << mantissa_bits) - 1), one = 1u << mantissa_bits;
  const double sign = bits & 0x8000u ? -1 : 1;
  if (exponent == top) return mantissa == 0 ? sign * INFINITY : NAN;
  if (exponent == 0) return sign * std::ldexp(mantissa / one, 1 - bias);
  return sign * std::ldexp(1 + mantissa / one, exponent - bias);
}

template <typename T>
void all_numbers_of_16_bits_are_read_and_rounded(int exponent_bits, int mantissa_bits) {
  for (uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const T x{static_cast<uint16_t>(bits)};
    const double value = value_of(bits, exponent_bits, mantissa_bits);
    const float read = to_float(x);
    if (std::isnan(value)) {
      HOLDS(std::isnan(read) && std::isnan(to_float(RoundTo<T>::from(read))));
      continue;
    }
    HOLDS(static_cast<double>(read) == value);
    HOLDS(RoundTo<T>::from(read).bits == bits);
    // Between this number and the next: round to nearest, ties to even.
    const double next = value_of(bits + 1, exponent_bits, mantissa_bits);
    if ((bits & 0x7fffu) == 0x7fffu || !std::isfinite(next) || !std::isfinite(value)) continue;
    const auto middle = static_cast<float>((value + next) / 2);
    const auto towards = [&](float to) { return RoundTo<T>::from(std::nextafterf(middle, to)).bits; };
    HOLDS(RoundTo<T>::from(middle).bits == bits + (bits & 1));
    HOLDS(towards(static_cast<float>(value)) == bits);
    HOLDS(towards(static_cast<float>(next)) == bits + 1);
  }
}

int main() {
  slices_cover_every_column_once();
  groups_cover_every_item_once();
  parts_cover_every_position_once();
  bounds_are_those_of_the_standard_library();
  all_numbers_of_16_bits_are_read_and_rounded<Half>(5, 10);
  all_numbers_of_16_bits_are_read_and_rounded<BFloat16>(8, 7);
}
