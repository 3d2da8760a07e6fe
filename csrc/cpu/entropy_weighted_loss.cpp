#include "entropy_weighted_loss.h"

#include <algorithm>

namespace mmkgc::cpu {
namespace {

// 1 for usable negatives, 0 for the others; returns how many are usable.
template <bool Masked, typename T>
MMKGC_INLINE T count_usable(const uint8_t* usable, int64_t n, T* ones) {
  int64_t count = 0;
  MMKGC_INDEPENDENT
  for (int64_t i = 0; i < n; ++i) {
    ones[i] = is_usable<Masked>(usable, i) ? T(1) : T(0);
    count += is_usable<Masked>(usable, i);
  }
  return static_cast<T>(count);
}

template <bool Masked, typename T>
MMKGC_INLINE void work_on_rows(const EntropyWeightedTask<T>& task, int64_t begin, int64_t end) {
  const LossRows<T>& rows = task.rows;
  const T scale = T(1) / static_cast<T>(rows.batch);
  const T above = easy_above_zero(task);
  T values[kLossBlock] = {}, slopes[kLossBlock] = {};
  for (int64_t b = begin; b < end; ++b) {
    values[b - begin] = softplus(-rows.positive[b * rows.positive_stride], slopes + (b - begin));
  }
  for (int64_t b = begin; b < end; ++b) {
    const T* s = rows.negative + b * rows.negative_stride;
    const uint8_t* usable = Masked ? rows.usable + b * rows.usable_stride : nullptr;
    T* d = rows.d_negative + b * rows.n;
    T sum;
    if (task.reduction == NegativeReduction::self_adversarial) {
      sum = exponentials<Masked>(s, usable, rows.n, task.temperature, d);
    } else {
      sum = count_usable<Masked>(usable, rows.n, d);
      if (task.reduction == NegativeReduction::sum) sum = std::min(sum, T(1));
    }
    const T inverse = sum == 0 ? T(0) : 1 / sum;  // 0: no negative is usable
    T loss = 0;
    MMKGC_INDEPENDENT
    for (int64_t i = 0; i < rows.n; ++i) {
      T slope;
      const T value = softplus(s[i], &slope);
      const T weight = bucket_weight(task, above, s[i]) * inverse * d[i];
      const bool counts = is_usable<Masked>(usable, i);
      loss += counts ? weight * value : T(0);
      d[i] = counts ? scale * weight * slope : T(0);
    }
    rows.d_positive[b] = -scale * slopes[b - begin];
    rows.losses[b] = static_cast<double>(values[b - begin] + loss);
  }
}

#define MMKGC_ROWS(T)                                                                           \
  MMKGC_CLONES void masked_rows(const EntropyWeightedTask<T>& task, int64_t begin, int64_t end) { \
    work_on_rows<true>(task, begin, end);                                                       \
  }                                                                                             \
  MMKGC_CLONES void all_rows(const EntropyWeightedTask<T>& task, int64_t begin, int64_t end) {  \
    work_on_rows<false>(task, begin, end);                                                      \
  }
MMKGC_ROWS(float)
MMKGC_ROWS(double)

}  // namespace

template <typename T>
void entropy_weighted_rows(const EntropyWeightedTask<T>& task, int64_t block) {
  const int64_t begin = block * kLossBlock, end = std::min(begin + kLossBlock, task.rows.batch);
  if (task.rows.usable) masked_rows(task, begin, end); else all_rows(task, begin, end);
}

template void entropy_weighted_rows<float>(const EntropyWeightedTask<float>&, int64_t);
template void entropy_weighted_rows<double>(const EntropyWeightedTask<double>&, int64_t);

}  // namespace mmkgc::cpu
