// The subset of CUDA that is needed to run kernels on the CPU, one block after another (`make
// emulate`).
//
// The threads of a block are fibers that run until a barrier (`__syncthreads`, or a warp function
// such as a shuffle), so that kernels have the same source here and on a GPU. Undefined behaviour
// of a GPU is an error: a barrier that only some threads reach, or a shuffle by part of a warp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace mmkgc::emulate {

struct Index {
  unsigned x = 0, y = 0, z = 0;
};

struct Thread {
  Index thread, block, block_size, grid_size;
};

// The thread of the running fiber.
extern Thread* current;

// Waits for all threads of the block.
void sync_block();

// Exchanges 8 bytes per lane within the warp: returns slots[lane]. All 32 lanes must call.
const uint64_t* exchange(uint64_t mine);

// The dynamic shared memory of the block.
void* dynamic_shared();

// Runs `body` for each thread of each block. Throws std::runtime_error if only some threads reach a
// barrier.
void run(int64_t blocks, int threads, std::size_t shared, const std::function<void()>& body);

template <typename T>
T shuffle(T value, int from) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof value);
  const uint64_t* slots = exchange(bits);
  T out;
  __builtin_memcpy(&out, slots + from, sizeof out);
  return out;
}

inline int lane() { return static_cast<int>(current->thread.x % 32); }

}  // namespace mmkgc::emulate

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
// Blocks run one at a time, so that one copy is enough.
#define __shared__ static
#define threadIdx (::mmkgc::emulate::current->thread)
#define blockIdx (::mmkgc::emulate::current->block)
#define blockDim (::mmkgc::emulate::current->block_size)
#define gridDim (::mmkgc::emulate::current->grid_size)

inline void __syncthreads() { mmkgc::emulate::sync_block(); }
inline void __syncwarp() { mmkgc::emulate::exchange(0); }

template <typename T>
T __shfl_sync(unsigned, T value, int from) {
  return mmkgc::emulate::shuffle(value, from);
}

template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return mmkgc::emulate::shuffle(value, mmkgc::emulate::lane() ^ mask);
}

inline unsigned __ballot_sync(unsigned, int predicate) {
  const uint64_t* slots = mmkgc::emulate::exchange(predicate != 0);
  unsigned bits = 0;
  for (int i = 0; i < 32; ++i) bits |= static_cast<unsigned>(slots[i]) << i;
  return bits;
}

inline int __ffs(unsigned bits) { return __builtin_ffs(static_cast<int>(bits)); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }

template <typename T>
T atomicAdd(T* at, T value) {
  const T old = *at;
  *at += value;
  return old;
}
