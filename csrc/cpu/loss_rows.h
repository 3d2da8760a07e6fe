// What the losses over one positive and N negative scores a row share. Rows are summed by one
// function each, in blocks that do not depend on the number of threads.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

#include "../common/clones.h"
#include "../common/exponential.h"

namespace mmkgc::cpu {

// Scores and where their gradients go; outputs are dense, inputs have a stride between rows.
template <typename T>
struct LossRows {
  const T* positive;         // [batch]
  int64_t positive_stride;
  const T* negative;         // [batch, n], dense within a row
  int64_t negative_stride;
  const uint8_t* usable;     // [batch, n], dense within a row, or nullptr: all are
  int64_t usable_stride;
  int64_t batch;
  int64_t n;

  T* d_positive;             // [batch]
  T* d_negative;             // [batch, n]
  double* losses;            // [batch], of each row
};

// Rows a call works on. A block is always the same rows, since what a vector loop and its scalar
// rest make of a row may differ in the last bit.
inline constexpr int64_t kLossBlock = 16;

// Bytes, since loops that load bool do not vectorise.
template <bool Masked>
MMKGC_INLINE bool is_usable(const uint8_t* usable, int64_t i) {
  return !Masked || usable[i];
}

// Floats as integers of the same order, and back (the map is its own inverse): a maximum of them
// vectorises, which one of floats does not where NaN counts. NaN comes out as the largest or the
// smallest.
MMKGC_INLINE int32_t ordered(float x) {
  int32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits ^ ((bits >> 31) & std::numeric_limits<int32_t>::max());
}

MMKGC_INLINE int64_t ordered(double x) {
  int64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits ^ ((bits >> 63) & std::numeric_limits<int64_t>::max());
}

template <typename T, typename Integer>
MMKGC_INLINE T from_ordered(Integer key) {
  const Integer bits = key ^ ((key >> (8 * sizeof key - 1)) & std::numeric_limits<Integer>::max());
  T x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// weights[i] = exp(temperature * (s[i] - extreme)) over the usable scores, 0 for the others, where the
// extreme score makes the exponent 0; returns what they add up to: 0 exactly when none is usable, NaN
// when one of the scores is. (Not temperature * s[i] - maximum: as one instruction, that would not be 0
// at the maximum, which was rounded, and for very large scores far from it.)
template <bool Masked, typename T>
MMKGC_INLINE T exponentials(const T* s, const uint8_t* usable, int64_t n, T temperature,
                            T* weights) {
  constexpr T kLowest = -std::numeric_limits<T>::infinity();
  const auto lowest = ordered(kLowest);
  const T direction = temperature < 0 ? T(-1) : T(1);
  auto highest = lowest;
  for (int64_t i = 0; i < n; ++i) {
    const auto key = is_usable<Masked>(usable, i) ? ordered(direction * s[i]) : lowest;
    highest = key > highest ? key : highest;
  }
  const T extreme = direction * from_ordered<T>(highest);
  T sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const T x = is_usable<Masked>(usable, i) ? temperature * (s[i] - extreme) : kLowest;
    weights[i] = exp_nonpositive(x);
    sum += weights[i];
  }
  return sum;
}

}  // namespace mmkgc::cpu
