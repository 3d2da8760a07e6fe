// The self-adversarial losses.
#include <algorithm>

#include "loss_rows.h"

namespace mmkgc::cpu {
namespace {

// The scores and the gradient of one row; `d` first holds the unscaled weights.
template <typename T>
struct Row {
  T positive;
  const T* negative;
  const uint8_t* mask;
  int64_t n;
  T* d;
};

// sum_i w_i softplus(s_i), and its gradient times `scale`.
template <bool Masked, typename T>
MMKGC_INLINE T log_sigmoid_row(const Row<T>& row, T sum, T scale) {
  const T inverse = 1 / sum;
  T loss = 0;
  MMKGC_INDEPENDENT
  for (int64_t i = 0; i < row.n; ++i) {
    T slope;
    const T value = softplus(row.negative[i], &slope), weight = inverse * row.d[i];
    const bool kept = is_kept<Masked>(row.mask, i);
    loss += kept ? weight * value : T(0);
    row.d[i] = kept ? scale * weight * slope : T(0);
  }
  return loss;
}

// sum_i w_i max(0, margin - s+ + s_i), and its gradient times `scale`.
template <bool Masked, typename T>
MMKGC_INLINE T margin_inside_row(const Row<T>& row, T sum, T margin, T scale, T* d_positive) {
  const T inverse = 1 / sum, gap = margin - row.positive;
  T loss = 0, slopes = 0;
  MMKGC_INDEPENDENT
  for (int64_t i = 0; i < row.n; ++i) {
    T slope;
    const T value = hinge(gap + row.negative[i], &slope), weight = inverse * row.d[i];
    const bool kept = is_kept<Masked>(row.mask, i);
    loss += kept ? weight * value : T(0);
    row.d[i] = kept ? scale * weight * slope : T(0);
    slopes += row.d[i];
  }
  if (sum != sum) {  // all weights are NaN; where the slope is 0, the gradient is 0
    slopes = 0;
    for (int64_t i = 0; i < row.n; ++i) {
      if (gap + row.negative[i] <= 0) row.d[i] = 0;
      slopes += row.d[i];
    }
  }
  *d_positive = -slopes;
  return loss;
}

// max(0, margin - s+ + sum_i w_i s_i), and its gradient times `scale`.
template <bool Masked, typename T>
MMKGC_INLINE T margin_outside_row(const Row<T>& row, T sum, T margin, T scale, T* d_positive) {
  const T inverse = 1 / sum;
  T mean = 0;
  MMKGC_INDEPENDENT
  for (int64_t i = 0; i < row.n; ++i) {
    const bool kept = is_kept<Masked>(row.mask, i);
    row.d[i] = kept ? inverse * row.d[i] : T(0);  // 0 even if the sum is NaN
    mean += kept ? row.d[i] * row.negative[i] : T(0);
  }
  T slope;
  const T loss = hinge(margin - row.positive + mean, &slope);
  MMKGC_INDEPENDENT
  for (int64_t i = 0; i < row.n; ++i) row.d[i] *= scale * slope;
  *d_positive = -scale * slope;
  return loss;
}

template <bool Masked, typename T>
MMKGC_INLINE void work_on_rows(const SelfAdversarialTask<T>& task, int64_t begin, int64_t end) {
  const LossRows<T>& rows = task.rows;
  const T scale = T(1) / static_cast<T>(rows.batch);
  const bool log_sigmoid = task.form == AdversarialForm::log_sigmoid;
  T values[kLossBlock] = {}, slopes[kLossBlock] = {};
  if (log_sigmoid) {
    for (int64_t b = begin; b < end; ++b) {
      values[b - begin] = softplus(-rows.positive[b * rows.positive_stride], slopes + (b - begin));
    }
  }
  for (int64_t b = begin; b < end; ++b) {
    const Row<T> row{rows.positive[b * rows.positive_stride],
                     rows.negative + b * rows.negative_stride,
                     Masked ? rows.mask + b * rows.mask_stride : nullptr, rows.n,
                     rows.d_negative + b * rows.n};
    const T sum = exponentials<Masked>(row.negative, row.mask, row.n, task.temperature, row.d);
    const bool none = sum == 0;  // unmasked: row.d is 0, and so is the term of the negatives
    T loss = 0, d_positive = 0;
    if (log_sigmoid) {
      const T negatives = none ? T(0) : log_sigmoid_row<Masked>(row, sum, T(0.5) * scale);
      loss = T(0.5) * (values[b - begin] + negatives);
      d_positive = T(-0.5) * scale * slopes[b - begin];
    } else if (!none) {
      loss = task.form == AdversarialForm::margin_inside
                 ? margin_inside_row<Masked>(row, sum, task.margin, scale, &d_positive)
                 : margin_outside_row<Masked>(row, sum, task.margin, scale, &d_positive);
    }
    rows.d_positive[b] = d_positive;
    rows.losses[b] = static_cast<double>(loss);
  }
}

}  // namespace

MMKGC_LOSS_ROWS(SelfAdversarialTask)

}  // namespace mmkgc::cpu
