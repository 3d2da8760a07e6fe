// Losses over one positive and N negative scores per row: the tasks of the kernels of both devices,
// and the functions of one score that they share.
#pragma once

#include <cstdint>
#include <cstring>

#include "exponential.h"

namespace mmkgc {

// Scores and their gradients. Outputs are dense, inputs have a stride between rows.
template <typename T>
struct LossRows {
  const T* positive;         // [batch]
  int64_t positive_stride;
  const T* negative;         // [batch, n], dense within a row
  int64_t negative_stride;
  const uint8_t* mask;     // [batch, n], dense within a row; nullptr keeps all
  int64_t mask_stride;
  int64_t batch;
  int64_t n;

  T* d_positive;             // [batch]
  T* d_negative;             // [batch, n]
  double* losses;            // [batch]
};

// Values are part of the op's schema.
enum class AdversarialForm : int64_t { log_sigmoid = 0, margin_inside = 1, margin_outside = 2 };

template <typename T>
struct SelfAdversarialTask {
  LossRows<T> rows;
  T temperature;
  T margin;
  AdversarialForm form;
};

// Values are part of the op's schema.
enum class NegativeReduction : int64_t { mean = 0, sum = 1, self_adversarial = 2 };

template <typename T>
struct EntropyWeightedTask {
  LossRows<T> rows;
  T easy_above;  // a negative is easy if |s| is above this,
  T hard_upto;   // hard if |s| is at most this, and otherwise ambiguous
  T easy, ambiguous, hard;  // weights
  T temperature;            // of self_adversarial
  NegativeReduction reduction;
  bool one_sided;           // a negative with s > 0 is hard whatever its entropy
};

// Maps floats to integers of the same order, and back (the map is its own inverse). A maximum of
// the integers vectorises; a maximum of floats that respects NaN does not. NaN becomes the largest
// or the smallest integer.
MMKGC_HD int32_t ordered(float x) {
  int32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits ^ ((bits >> 31) & INT32_MAX);
}

MMKGC_HD int64_t ordered(double x) {
  int64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits ^ ((bits >> 63) & INT64_MAX);
}

MMKGC_HD float from_ordered(int32_t key) {
  const int32_t bits = key ^ ((key >> 31) & INT32_MAX);
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

MMKGC_HD double from_ordered(int64_t key) {
  const int64_t bits = key ^ ((key >> 63) & INT64_MAX);
  double x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// The weight of an easy negative with s > 0.
template <typename T>
MMKGC_HD T easy_above_zero(const EntropyWeightedTask<T>& task) {
  return task.one_sided ? task.hard : task.easy;
}

// The weight of a negative by its bucket. A loop over this function vectorises if `above`, the
// result of easy_above_zero, is computed before the loop; the compiler does not move it there.
template <typename T>
MMKGC_HD T bucket_weight(const EntropyWeightedTask<T>& task, T above, T x) {
  const T magnitude = x > 0 ? x : -x;
  const T ambiguous = x > 0 && task.one_sided ? task.hard : task.ambiguous;
  const T easy = x > 0 ? above : task.easy;
  return magnitude > task.easy_above ? easy : magnitude > task.hard_upto ? ambiguous : task.hard;
}

}  // namespace mmkgc
