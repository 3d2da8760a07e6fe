// Shared parts of the losses on a GPU. A warp works on a row and its lanes on different negatives.
// Each gradient is read and written by one lane, so that it can hold the weight before.
#pragma once

#include <cmath>

#include "../common/losses.h"
#include "../common/mapping.h"
#include "losses.h"
#include "warp.h"

namespace mmkgc::cuda {

// Launch bounds of the kernels. Without the second bound, the compiler spills registers to fit more
// blocks.
inline constexpr int kLossThreads = 128, kLossBlocks = 1;

// The negatives of one row and their gradient; `d` first holds the unscaled weights.
template <typename T>
struct LossRow {
  const T* negative;
  const uint8_t* mask;
  int64_t n;
  T* d;

  __device__ __forceinline__ LossRow(const LossRows<T>& rows, int64_t b)
      : negative(rows.negative + b * rows.negative_stride),
        mask(rows.mask ? rows.mask + b * rows.mask_stride : nullptr),
        n(rows.n),
        d(rows.d_negative + b * rows.n) {}

  __device__ __forceinline__ bool is_kept(int64_t i) const { return !mask || mask[i]; }
};

// Computes the weights of `exponentials` in cpu/loss_rows.h and returns their sum: 0 if and only if
// all scores are masked, NaN if an unmasked score is NaN.
template <typename T>
__device__ __forceinline__ T exponentials(const LossRow<T>& row, T temperature) {
  constexpr T kLowest = -T(INFINITY);
  const auto lowest = ordered(kLowest);
  const T direction = temperature < 0 ? T(-1) : T(1);
  auto highest = lowest;
  for (int64_t i = lane_index(); i < row.n; i += kWarp) {
    const auto key = row.is_kept(i) ? ordered(direction * row.negative[i]) : lowest;
    highest = key > highest ? key : highest;
  }
  const T extreme = direction * from_ordered(warp_max(highest));
  T sum = 0;
  for (int64_t i = lane_index(); i < row.n; i += kWarp) {
    const T x = row.is_kept(i) ? temperature * (row.negative[i] - extreme) : kLowest;
    row.d[i] = exp_nonpositive(x);
    sum += row.d[i];
  }
  return warp_sum(sum);
}

// Writes the mean over the rows to *loss, in an order that does not depend on the grid; 0 without
// rows.
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

// Defines `loss_of_rows` of a task from the kernel `work_on_rows`.
#define MMKGC_LOSS_OF_ROWS(Task)                                                       \
  template <typename T>                                                                \
  void loss_of_rows(const char* op, const Task<T>& task, T* loss, void* stream) {      \
    pass_over_rows(op, work_on_rows<T>, task, loss, stream);                           \
  }                                                                                    \
  template void loss_of_rows<float>(const char*, const Task<float>&, float*, void*);   \
  template void loss_of_rows<double>(const char*, const Task<double>&, double*, void*);

}  // namespace mmkgc::cuda
