// The losses and their gradients on the CPU, with pointer arguments. Blocks of rows do not depend
// on the number of threads. Loops that write are marked as independent: otherwise the compiler adds
// a second version for arrays that may overlap, which rounds differently.
#pragma once

#include <cstdint>
#include <algorithm>
#include <limits>
#include <vector>

#include "../common/clones.h"
#include "../common/losses.h"

namespace mmkgc::cpu {

// The number of rows per call. Blocks are fixed, since a vector loop and its scalar remainder may
// differ in the last bit of a row.
inline constexpr int64_t kLossBlock = 16;

// The mask is in bytes, since loops that load bool do not vectorise.
template <bool Masked>
MMKGC_INLINE bool is_kept(const uint8_t* mask, int64_t i) {
  return !Masked || mask[i];
}

// weights[i] = exp(temperature * (s[i] - extreme)) for unmasked scores and 0 for the others, where
// `extreme` is the score with the largest exponent. Returns the sum of the weights: 0 if and only
// if all scores are masked, NaN if an unmasked score is NaN. (temperature * s[i] - maximum would
// not be 0 at the maximum when computed by one fused instruction, since the maximum was rounded.)
template <bool Masked, typename T>
MMKGC_INLINE T exponentials(const T* s, const uint8_t* mask, int64_t n, T temperature,
                            T* weights) {
  constexpr T kLowest = -std::numeric_limits<T>::infinity();
  const auto lowest = ordered(kLowest);
  const T direction = temperature < 0 ? T(-1) : T(1);
  auto highest = lowest;
  for (int64_t i = 0; i < n; ++i) {
    const auto key = is_kept<Masked>(mask, i) ? ordered(direction * s[i]) : lowest;
    highest = key > highest ? key : highest;
  }
  const T extreme = direction * from_ordered(highest);
  T sum = 0;
  MMKGC_INDEPENDENT
  for (int64_t i = 0; i < n; ++i) {
    const T x = is_kept<Masked>(mask, i) ? temperature * (s[i] - extreme) : kLowest;
    weights[i] = exp_nonpositive(x);
    sum += weights[i];
  }
  return sum;
}

// The mean over rows; 0 without rows, so that an empty batch has no effect.
inline double mean_of_rows(const std::vector<double>& losses) {
  double sum = 0;
  for (const double loss : losses) sum += loss;
  return sum / static_cast<double>(std::max<size_t>(1, losses.size()));
}

// Losses and gradients of the rows of one block.
template <typename T>
void loss_rows(const SelfAdversarialTask<T>& task, int64_t block);
template <typename T>
void loss_rows(const EntropyWeightedTask<T>& task, int64_t block);

// Defines `loss_rows` of a task from `work_on_rows<Masked>(task, begin, end)`. target_clones needs
// plain functions.
#define MMKGC_LOSS_CLONES(Task, T)                                                                 \
  MMKGC_CLONES void masked_rows(const Task<T>& task, int64_t begin, int64_t end) {                 \
    work_on_rows<true>(task, begin, end);                                                          \
  }                                                                                                \
  MMKGC_CLONES void all_rows(const Task<T>& task, int64_t begin, int64_t end) {                    \
    work_on_rows<false>(task, begin, end);                                                         \
  }

#define MMKGC_LOSS_ROWS(Task)                                                                      \
  namespace {                                                                                      \
  MMKGC_LOSS_CLONES(Task, float)                                                                   \
  MMKGC_LOSS_CLONES(Task, double)                                                                  \
  }                                                                                                \
  template <typename T>                                                                            \
  void loss_rows(const Task<T>& task, int64_t block) {                                             \
    const int64_t begin = block * kLossBlock, end = std::min(begin + kLossBlock, task.rows.batch); \
    task.rows.mask ? masked_rows(task, begin, end) : all_rows(task, begin, end);                   \
  }                                                                                                \
  template void loss_rows<float>(const Task<float>&, int64_t);                                     \
  template void loss_rows<double>(const Task<double>&, int64_t);

}  // namespace mmkgc::cpu
