// The entropy-weighted loss.
#include <algorithm>

#include "loss_rows.h"

namespace mmkgc::cpu {
namespace {

// 1 for unmasked negatives, 0 for the others; returns the number of unmasked negatives.
template <bool Masked, typename T>
MMKGC_INLINE T count_unmasked(const uint8_t* mask, int64_t n, T* ones) {
  int64_t count = 0;
  MMKGC_INDEPENDENT
  for (int64_t i = 0; i < n; ++i) {
    ones[i] = is_kept<Masked>(mask, i) ? T(1) : T(0);
    count += is_kept<Masked>(mask, i);
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
    const uint8_t* mask = Masked ? rows.mask + b * rows.mask_stride : nullptr;
    T* d = rows.d_negative + b * rows.n;
    T sum;
    if (task.reduction == NegativeReduction::self_adversarial) {
      sum = exponentials<Masked>(s, mask, rows.n, task.temperature, d);
    } else {
      sum = count_unmasked<Masked>(mask, rows.n, d);
      if (task.reduction == NegativeReduction::sum) sum = std::min(sum, T(1));
    }
    const T inverse = sum == 0 ? T(0) : 1 / sum;  // 0 if all negatives are masked
    T loss = 0;
    MMKGC_INDEPENDENT
    for (int64_t i = 0; i < rows.n; ++i) {
      T slope;
      const T value = softplus(s[i], &slope);
      const T weight = bucket_weight(task, above, s[i]) * inverse * d[i];
      const bool kept = is_kept<Masked>(mask, i);
      loss += kept ? weight * value : T(0);
      d[i] = kept ? scale * weight * slope : T(0);
    }
    rows.d_positive[b] = -scale * slopes[b - begin];
    rows.losses[b] = static_cast<double>(values[b - begin] + loss);
  }
}

}  // namespace

MMKGC_LOSS_ROWS(EntropyWeightedTask)

}  // namespace mmkgc::cpu
