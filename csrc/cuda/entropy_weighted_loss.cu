// The entropy-weighted loss.
#include "loss_rows.h"

namespace mmkgc::cuda {
namespace {

// 1 for unmasked negatives, 0 for the others; returns the number of unmasked negatives.
template <typename T>
__device__ __forceinline__ T count_unmasked(const LossRow<T>& row) {
  int64_t count = 0;
  for (int64_t i = lane_index(); i < row.n; i += kWarp) {
    row.d[i] = row.is_kept(i) ? T(1) : T(0);
    count += row.is_kept(i);
  }
  return static_cast<T>(warp_sum(count));
}

template <typename T>
__global__ void __launch_bounds__(kLossThreads, kLossBlocks)
    work_on_rows(const EntropyWeightedTask<T> task) {
  const LossRows<T>& rows = task.rows;
  const int64_t b = warp_index();
  if (b >= rows.batch) return;
  const LossRow<T> row(rows, b);
  T sum;
  if (task.reduction == NegativeReduction::self_adversarial) {
    sum = exponentials(row, task.temperature);
  } else {
    sum = count_unmasked(row);
    if (task.reduction == NegativeReduction::sum && sum > 1) sum = 1;
  }
  const T inverse = sum == 0 ? T(0) : 1 / sum;  // 0 if all negatives are masked
  const T scale = T(1) / static_cast<T>(rows.batch), above = easy_above_zero(task);
  T loss = 0;
  for (int64_t i = lane_index(); i < row.n; i += kWarp) {
    T slope;
    const T x = row.negative[i], value = softplus(x, &slope);
    const T weight = bucket_weight(task, above, x) * inverse * row.d[i];
    const bool kept = row.is_kept(i);
    loss += kept ? weight * value : T(0);
    row.d[i] = kept ? scale * weight * slope : T(0);
  }
  loss = warp_sum(loss);
  if (lane_index() == 0) {
    T slope;
    const T value = softplus(-rows.positive[b * rows.positive_stride], &slope);
    rows.d_positive[b] = -scale * slope;
    rows.losses[b] = static_cast<double>(value + loss);
  }
}

}  // namespace

MMKGC_LOSS_OF_ROWS(EntropyWeightedTask)

}  // namespace mmkgc::cuda
