// Neighbouring columns that a lane moves at once.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../common/low_precision.h"
#include "launch.h"

namespace mmkgc::cuda {

// Columns that a lane moves at once: 16 bytes where rows and pointers allow it.
template <typename T>
inline constexpr int kWide = 16 / static_cast<int>(sizeof(T));

// At most 16 bytes; loaded and stored as one.
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
  constexpr int kOnce = V < kWide<T> ? V : kWide<T>;
#pragma unroll
  for (int at = 0; at < V; at += kOnce) {
    const Packed<T, kOnce> packed = load_packed<kOnce>(from + at);
#pragma unroll
    for (int v = 0; v < kOnce; ++v) to[at + v] = to_float(packed.x[v]);
  }
}

template <int V, typename T, typename A>
__device__ __forceinline__ void store_columns(T* to, const A (&from)[V]) {
  constexpr int kOnce = V < kWide<T> ? V : kWide<T>;
#pragma unroll
  for (int at = 0; at < V; at += kOnce) {
    Packed<T, kOnce> packed;
#pragma unroll
    for (int v = 0; v < kOnce; ++v) packed.x[v] = From<T>::of(from[at + v]);
    *reinterpret_cast<Packed<T, kOnce>*>(to + at) = packed;
  }
}

// Whether a lane may move `vector` columns at a time of rows that begin at `pointer`.
template <typename T>
bool fits(const T* pointer, int vector) {
  const std::size_t bytes = sizeof(T) * static_cast<std::size_t>(vector);
  return reinterpret_cast<std::uintptr_t>(pointer) % (bytes < 16 ? bytes : 16) == 0;
}

}  // namespace mmkgc::cuda
