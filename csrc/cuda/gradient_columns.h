// The columns of one row that a lane owns, and their gradient from the other rows, which are
// streamed. Differences are recomputed instead of kept from the forward pass.
#pragma once

#include "../common/sampled_terms.h"
#include "columns.h"

namespace mmkgc::cuda {

// The number of rows loaded at once, the most that fits into registers without spilling.
template <int V>
inline constexpr int kAtOnce = V == 8 ? 2 : 4;

// V columns of a row. Under modulus a lane also needs the other part of its complex columns: it
// owns both parts of a whole row (Whole), but only reads the other part in a block of a row.
template <Metric M, int V, bool Whole>
struct Owned {
  static constexpr int kParts = M == Metric::modulus ? 2 : 1;
  static constexpr int kOwned = Whole && M == Metric::modulus ? 2 : 1;

  // The position of the columns within a pair, and the offset of their other part.
  struct Place {
    int offset;
    int other;
    bool covered;  // otherwise the position is valid, but the result is not used
  };

  // The place of the columns from `column` in a pair with a block that starts at `begin`.
  __device__ static __forceinline__ Place place(int64_t column, int begin, int width) {
    const auto offset = static_cast<int>(column) - begin;
    const bool covered = offset >= 0 && offset < width;
    const int half = width / 2, at = covered ? offset : 0;
    return {at, M != Metric::modulus ? 0 : at < half ? half : -half, covered};
  }

  template <typename T, typename A>
  __device__ static __forceinline__ void load(const T* from, int other, A (&to)[kParts][V]) {
    load_columns<V>(from, to[0]);
    if constexpr (kParts == 2) load_columns<V>(from + other, to[1]);
  }

  template <Variable O, typename A>
  __device__ static __forceinline__ void add(A g, const A (&q)[kParts][V], const A (&w)[kParts][V],
                                             const A (&c)[kParts][V], A (&sum)[kOwned][V]) {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      if constexpr (M == Metric::dot) {
        sum[0][v] += dot_gradient<O>(g, q[0][v], w[0][v], c[0][v]);
      } else if constexpr (M == Metric::modulus) {
        const A x = q[0][v] - w[0][v] * c[0][v], y = q[1][v] - w[1][v] * c[1][v];
        const A f = g * inverse_root(x * x + y * y);
        sum[0][v] += from_pull<O>(f * x, w[0][v], c[0][v]);
        if constexpr (kOwned == 2) sum[1][v] += from_pull<O>(f * y, w[1][v], c[1][v]);
      } else {
        const A d = q[0][v] - w[0][v] * c[0][v];
        sum[0][v] += from_pull<O>(pull<M>(g, d), w[0][v], c[0][v]);
      }
    }
  }

  template <typename A>
  __device__ static __forceinline__ void fill(A (&to)[kParts][V], A value) {
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
#pragma unroll
      for (int v = 0; v < V; ++v) to[part][v] = value;
    }
  }
};

// d(loss) / d(score) of a candidate at `position`, times the weight of a pair.
template <Metric M, typename A>
__device__ __forceinline__ A weighted(const ScoreGradient<A>& grad, int64_t position, int pair,
                                      int64_t n, A weight) {
  return M == Metric::l2 ? grad.factors[pair * n + position] : weight * grad.grad[position];
}

// The widest load for a pass over gradients, as template arguments. Complex columns have wide loads
// only in whole rows.
template <Metric M, typename T, typename Use>
void with_owned(const SampledTask<T>& task, Use use) {
  with_vector(task, [&]<int V, bool Scaled>() {
    if constexpr (M == Metric::modulus && V > 1) {
      if (is_whole(task)) return use.template operator()<V, true, Scaled>();
      return use.template operator()<1, false, Scaled>();
    } else {
      return use.template operator()<V, false, Scaled>();
    }
  });
}

}  // namespace mmkgc::cuda
