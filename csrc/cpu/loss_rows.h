// What the losses share on the CPU. Rows are summed by one function each, in blocks that do not
// depend on the number of threads. Loops that write are marked independent: else they have a second
// version for arrays that lie close together in memory, which rounds differently.
#pragma once

#include <cstdint>
#include <limits>

#include "../common/clones.h"
#include "../common/losses.h"

namespace mmkgc::cpu {

// Rows a call works on. A block is always the same rows, since what a vector loop and its scalar
// rest make of a row may differ in the last bit.
inline constexpr int64_t kLossBlock = 16;

// Bytes, since loops that load bool do not vectorise.
template <bool Masked>
MMKGC_INLINE bool is_usable(const uint8_t* usable, int64_t i) {
  return !Masked || usable[i];
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
  const T extreme = direction * from_ordered(highest);
  T sum = 0;
  MMKGC_INDEPENDENT
  for (int64_t i = 0; i < n; ++i) {
    const T x = is_usable<Masked>(usable, i) ? temperature * (s[i] - extreme) : kLowest;
    weights[i] = exp_nonpositive(x);
    sum += weights[i];
  }
  return sum;
}

}  // namespace mmkgc::cpu
