// Functions of the lanes of a warp.
#pragma once

#include "launch.h"

namespace mmkgc::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

__device__ __forceinline__ int lane_index() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ __forceinline__ int warp_in_block() { return static_cast<int>(threadIdx.x) / kWarp; }

// The index among all warps of the grid.
__device__ __forceinline__ int64_t warp_index() {
  return static_cast<int64_t>(blockIdx.x) * (static_cast<int>(blockDim.x) / kWarp) + warp_in_block();
}

// The index among all threads of the grid.
__device__ __forceinline__ int64_t thread_index() {
  return static_cast<int64_t>(blockIdx.x) * static_cast<int>(blockDim.x) +
         static_cast<int>(threadIdx.x);
}

// The sum over the lanes, in every lane and always in the same order.
template <typename T>
__device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(kAllLanes, x, offset);
  return x;
}

// N sums over the lanes with fewer shuffles; a lane receives the sum of x[lane / (32 / N)].
template <int N, typename T>
__device__ __forceinline__ T warp_sums(T (&x)[N]) {
  static_assert(N > 0 && N <= kWarp && (N & (N - 1)) == 0);
  int offset = kWarp / 2;
#pragma unroll
  for (int half = N / 2; half > 0; half /= 2, offset /= 2) {
    // Lanes keep one half of the values and send the other half.
    const bool upper = lane_index() & offset;
#pragma unroll
    for (int i = 0; i < half; ++i) {
      const T kept = upper ? x[half + i] : x[i], sent = upper ? x[i] : x[half + i];
      x[i] = kept + __shfl_xor_sync(kAllLanes, sent, offset);
    }
  }
  T sum = x[0];
#pragma unroll
  for (; offset > 0; offset /= 2) sum += __shfl_xor_sync(kAllLanes, sum, offset);
  return sum;
}

template <typename T>
__device__ __forceinline__ T warp_max(T x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    const T other = __shfl_xor_sync(kAllLanes, x, offset);
    x = other > x ? other : x;
  }
  return x;
}

// The sum over the threads of a block of `Threads`, in every thread and always in the same order.
// `room` holds one number per warp; two sums of a block need a barrier in between.
template <int Threads, typename T>
__device__ __forceinline__ T block_sum(T x, T* room) {
  x = warp_sum(x);
  if (lane_index() == 0) room[warp_in_block()] = x;
  __syncthreads();
  T sum = 0;
#pragma unroll
  for (int warp = 0; warp < Threads / kWarp; ++warp) sum += room[warp];
  return sum;
}

}  // namespace mmkgc::cuda
