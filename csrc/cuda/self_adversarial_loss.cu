// The self-adversarial losses.
#include "loss_rows.h"

namespace mmkgc::cuda {
namespace {

// sum_i w_i softplus(s_i), and its gradient times `scale`.
template <typename T>
__device__ __forceinline__ T log_sigmoid_row(const LossRow<T>& row, T sum, T scale) {
  const T inverse = 1 / sum;
  T loss = 0;
  for (int64_t i = lane_index(); i < row.n; i += kWarp) {
    T slope;
    const T value = softplus(row.negative[i], &slope), weight = inverse * row.d[i];
    const bool kept = row.is_kept(i);
    loss += kept ? weight * value : T(0);
    row.d[i] = kept ? scale * weight * slope : T(0);
  }
  return warp_sum(loss);
}

// sum_i w_i max(0, gap + s_i), and its gradient times `scale`.
template <typename T>
__device__ __forceinline__ T margin_inside_row(const LossRow<T>& row, T sum, T gap, T scale,
                                               T* d_positive) {
  const T inverse = 1 / sum;
  T loss = 0, slopes = 0;
  for (int64_t i = lane_index(); i < row.n; i += kWarp) {
    T slope;
    const T value = hinge(gap + row.negative[i], &slope), weight = inverse * row.d[i];
    const bool kept = row.is_kept(i);
    loss += kept ? weight * value : T(0);
    row.d[i] = kept && slope != 0 ? scale * weight * slope : T(0);  // 0 even if the weight is NaN
    slopes += row.d[i];
  }
  *d_positive = -warp_sum(slopes);
  return warp_sum(loss);
}

// max(0, gap + sum_i w_i s_i), and its gradient times `scale`.
template <typename T>
__device__ __forceinline__ T margin_outside_row(const LossRow<T>& row, T sum, T gap, T scale,
                                                T* d_positive) {
  const T inverse = 1 / sum;
  T mean = 0;
  for (int64_t i = lane_index(); i < row.n; i += kWarp) {
    const bool kept = row.is_kept(i);
    row.d[i] = kept ? inverse * row.d[i] : T(0);  // 0 even if the sum is NaN
    mean += kept ? row.d[i] * row.negative[i] : T(0);
  }
  T slope;
  const T loss = hinge(gap + warp_sum(mean), &slope);
  for (int64_t i = lane_index(); i < row.n; i += kWarp) row.d[i] *= scale * slope;
  *d_positive = -scale * slope;
  return loss;
}

template <typename T>
__global__ void __launch_bounds__(kLossThreads, kLossBlocks)
    work_on_rows(const SelfAdversarialTask<T> task) {
  const LossRows<T>& rows = task.rows;
  const int64_t b = warp_index();
  if (b >= rows.batch) return;
  const LossRow<T> row(rows, b);
  const T positive = rows.positive[b * rows.positive_stride], gap = task.margin - positive;
  const T scale = T(1) / static_cast<T>(rows.batch);
  const T sum = exponentials(row, task.temperature);
  const bool none = sum == 0;  // unmasked: row.d is 0, and so is the term of the negatives
  T loss = 0, d_positive = 0;
  if (task.form == AdversarialForm::log_sigmoid) {
    T slope;
    const T value = softplus(-positive, &slope);
    const T negatives = none ? T(0) : log_sigmoid_row(row, sum, T(0.5) * scale);
    loss = T(0.5) * (value + negatives);
    d_positive = T(-0.5) * scale * slope;
  } else if (!none) {
    loss = task.form == AdversarialForm::margin_inside
               ? margin_inside_row(row, sum, gap, scale, &d_positive)
               : margin_outside_row(row, sum, gap, scale, &d_positive);
  }
  if (lane_index() == 0) {
    rows.d_positive[b] = d_positive;
    rows.losses[b] = static_cast<double>(loss);
  }
}

}  // namespace

MMKGC_LOSS_OF_ROWS(SelfAdversarialTask)

}  // namespace mmkgc::cuda
