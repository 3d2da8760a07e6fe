// Loads and stores of neighbouring columns.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../common/low_precision.h"
#include "launch.h"

namespace mmkgc::cuda {

// The number of columns of a load or store of 16 bytes.
template <typename T>
inline constexpr int kWide = 16 / static_cast<int>(sizeof(T));

// At most 16 bytes, loaded and stored by one instruction.
template <typename T, int V>
struct alignas(sizeof(T) * V) Packed {
  T x[V];
};

template <int V, typename T>
__device__ __forceinline__ Packed<T, V> load_packed(const T* from) {
  return *reinterpret_cast<const Packed<T, V>*>(from);
}

template <int V, typename T, typename A>
__device__ __forceinline__ void load_columns(const T* from, A (&to)[V]) {
  constexpr int kStep = V < kWide<T> ? V : kWide<T>;
#pragma unroll
  for (int at = 0; at < V; at += kStep) {
    const Packed<T, kStep> packed = load_packed<kStep>(from + at);
#pragma unroll
    for (int v = 0; v < kStep; ++v) to[at + v] = to_float(packed.x[v]);
  }
}

template <int V, typename T, typename A>
__device__ __forceinline__ void store_columns(T* to, const A (&from)[V]) {
  constexpr int kStep = V < kWide<T> ? V : kWide<T>;
#pragma unroll
  for (int at = 0; at < V; at += kStep) {
    Packed<T, kStep> packed;
#pragma unroll
    for (int v = 0; v < kStep; ++v) packed.x[v] = RoundTo<T>::from(from[at + v]);
    *reinterpret_cast<Packed<T, kStep>*>(to + at) = packed;
  }
}

// Whether rows at `pointer` are aligned for loads of `vector` columns.
template <typename T>
bool fits(const T* pointer, int vector) {
  const std::size_t bytes = sizeof(T) * static_cast<std::size_t>(vector);
  return reinterpret_cast<std::uintptr_t>(pointer) % (bytes < 16 ? bytes : 16) == 0;
}

}  // namespace mmkgc::cuda
