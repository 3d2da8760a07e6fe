// What the losses share on a GPU: a warp works on a row. Lanes stride over its negatives, and each
// alone reads and writes its own of them, so that the gradients hold the weights until then.
#pragma once

#include <cmath>

#include "../common/losses.h"
#include "../common/mapping.h"
#include "warp.h"

namespace mmkgc::cuda {

// Bounds of the kernels. Without the second, the compiler spills registers so that more blocks fit.
inline constexpr int kLossThreads = 128, kLossBlocks = 1;

// Negatives of one row, and where their gradient goes; `d` holds the weights before they are scaled.
template <typename T>
struct LossRow {
  const T* negative;
  const uint8_t* usable;
  int64_t n;
  T* d;

  __device__ __forceinline__ LossRow(const LossRows<T>& rows, int64_t b)
      : negative(rows.negative + b * rows.negative_stride),
        usable(rows.usable ? rows.usable + b * rows.usable_stride : nullptr),
        n(rows.n),
        d(rows.d_negative + b * rows.n) {}

  __device__ __forceinline__ bool is_usable(int64_t i) const { return !usable || usable[i]; }
};

// The weights of the CPU's function of this name, and what they add up to: 0 exactly when no score is
// usable, NaN when one of those that are is.
template <typename T>
__device__ __forceinline__ T exponentials(const LossRow<T>& row, T temperature) {
  constexpr T kLowest = -T(INFINITY);
  const auto lowest = ordered(kLowest);
  const T direction = temperature < 0 ? T(-1) : T(1);
  auto highest = lowest;
  for (int64_t i = lane_index(); i < row.n; i += kWarp) {
    const auto key = row.is_usable(i) ? ordered(direction * row.negative[i]) : lowest;
    highest = key > highest ? key : highest;
  }
  const T extreme = direction * from_ordered(warp_max(highest));
  T sum = 0;
  for (int64_t i = lane_index(); i < row.n; i += kWarp) {
    const T x = row.is_usable(i) ? temperature * (row.negative[i] - extreme) : kLowest;
    row.d[i] = exp_nonpositive(x);
    sum += row.d[i];
  }
  return warp_sum(sum);
}

// Writes the mean over the rows to *loss, in an order that does not depend on the grid; 0 for none.
template <typename T>
void mean_of_rows(const char* op, const LossRows<T>& rows, T* loss, Stream stream);

// Runs `kernel` with a warp for each row, then takes the mean.
template <typename T, typename Task>
void pass_over_rows(const char* op, void (*kernel)(Task), const Task& task, T* loss,
                    Stream stream) {
  const int64_t blocks = blocks_for(task.rows.batch, kLossThreads / kWarp);
  launch(op, kernel, {blocks, kLossThreads}, stream, task);
  mean_of_rows(op, task.rows, loss, stream);
}

}  // namespace mmkgc::cuda
