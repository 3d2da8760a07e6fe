// Columns as the lanes of a warp load and store them, and which width of load a task allows.
#pragma once

#include <cstdint>

#include "../common/low_precision.h"
#include "sampled_task.h"
#include "warp.h"

namespace mmkgc::cuda {

// Columns that a lane moves at once: 16 bytes where rows and pointers allow it.
template <typename T>
inline constexpr int kWide = 16 / static_cast<int>(sizeof(T));

// At most 16 bytes; loaded and stored as one.
template <typename T, int V>
struct alignas(sizeof(T) * V) Packed {
  T x[V];
};

template <int V, typename T, typename A>
__device__ __forceinline__ void load_columns(const T* from, A (&to)[V]) {
  constexpr int kOnce = V < kWide<T> ? V : kWide<T>;
#pragma unroll
  for (int at = 0; at < V; at += kOnce) {
    const Packed<T, kOnce> packed = *reinterpret_cast<const Packed<T, kOnce>*>(from + at);
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

// Whether a lane may move V columns at once, of table, queries and scale alike.
template <typename T>
bool allows(const SampledTask<T>& task, int vector) {
  using A = Accumulator<T>;
  const auto fits = [vector](const void* pointer, std::size_t size) {
    const std::size_t bytes = size * static_cast<std::size_t>(vector);
    return reinterpret_cast<std::uintptr_t>(pointer) % (bytes < 16 ? bytes : 16) == 0;
  };
  bool even = fits(task.table, sizeof(T)) && fits(task.queries, sizeof(A)) &&
              task.query_width % vector == 0 && task.candidate_width % vector == 0;
  for (int p = 0; p < task.terms.n; ++p) {
    const auto& term = task.terms.term[p];
    const int width = task.metric == Metric::modulus ? term.width / 2 : term.width;
    even = even && term.query % vector == 0 && term.candidate % vector == 0 && width % vector == 0;
  }
  return even;
}

// Whether the one pair takes whole rows, so that a lane can own both parts of complex columns.
template <typename T>
bool is_whole(const SampledTask<T>& task) {
  const auto& term = task.terms.term[0];
  return task.terms.n == 1 && term.query == 0 && term.candidate == 0 &&
         term.width == task.query_width && term.width == task.candidate_width;
}

template <typename Use>
void with_metric(Metric metric, Use use) {
  switch (metric) {
    case Metric::dot: return use.template operator()<Metric::dot>();
    case Metric::l1: return use.template operator()<Metric::l1>();
    case Metric::l2: return use.template operator()<Metric::l2>();
    default: return use.template operator()<Metric::modulus>();
  }
}

// The widest load that a task allows, as a template argument: 16 bytes, 8 (float only: rows of an odd
// number of pairs, such as 250 complex columns, are common), or one column. With a scale, one.
template <typename T, typename Use>
void with_vector(const SampledTask<T>& task, Use use) {
  if (task.scale) return use.template operator()<1, true>();
  if (allows(task, kWide<T>)) return use.template operator()<kWide<T>, false>();
  if constexpr (sizeof(T) == 4) {
    if (allows(task, 2)) return use.template operator()<2, false>();
  }
  return use.template operator()<1, false>();
}

}  // namespace mmkgc::cuda
