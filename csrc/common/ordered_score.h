// A score as a fixed sequence of roundings, column after column and term after term, which the
// compiler may not contract or reorder: the score of two rows has the same bits everywhere. Host
// and device.
#pragma once

#include <cmath>
#include <cstdint>

#include "gradient.h"
#include "metric.h"

namespace mmkgc {

#if defined(__CUDA_ARCH__)
MMKGC_HD float rounded_sum(float a, float b) { return __fadd_rn(a, b); }
MMKGC_HD double rounded_sum(double a, double b) { return __dadd_rn(a, b); }
MMKGC_HD float rounded_product(float a, float b) { return __fmul_rn(a, b); }
MMKGC_HD double rounded_product(double a, double b) { return __dmul_rn(a, b); }
MMKGC_HD float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }
MMKGC_HD double fused(double a, double b, double c) { return __fma_rn(a, b, c); }
#else
// The emulated build compiles this with -ffp-contract=off.
template <typename T>
MMKGC_HD T rounded_sum(T a, T b) {
  return a + b;
}

template <typename T>
MMKGC_HD T rounded_product(T a, T b) {
  return a * b;
}

template <typename T>
MMKGC_HD T fused(T a, T b, T c) {
  return std::fma(a, b, c);
}
#endif

// The number of parts of a column: under modulus a real and an imaginary part, half a block apart.
template <Metric M>
inline constexpr int kParts = M == Metric::modulus ? 2 : 1;

template <bool Scaled, typename T>
MMKGC_HD T difference(T q, T w, T c) {
  return Scaled ? fused(-w, c, q) : rounded_sum(q, -c);
}

// Adds the term of one column to `sum`. q, w and c hold the parts of the column; w only if
// `Scaled`.
template <Metric M, bool Scaled, typename T>
MMKGC_HD T add_column(T sum, const T* q, const T* w, const T* c) {
  if constexpr (M == Metric::dot) {
    return fused(Scaled ? rounded_product(q[0], w[0]) : q[0], c[0], sum);
  } else {
    const T x = difference<Scaled>(q[0], Scaled ? w[0] : T(1), c[0]);
    if constexpr (M == Metric::l1) {
      return rounded_sum(sum, std::abs(x));
    } else if constexpr (M == Metric::l2) {
      return fused(x, x, sum);
    } else {
      const T y = difference<Scaled>(q[1], Scaled ? w[1] : T(1), c[1]);
      return rounded_sum(sum, root(fused(x, x, rounded_product(y, y))));
    }
  }
}

// Adds a term to `score`; `sum` is the sum of its columns.
template <Metric M, typename T>
MMKGC_HD T add_term(T score, T weight, T sum) {
  return fused(weight, M == Metric::l2 ? root(sum) : sum, score);
}

// One pair in the form of the kernels: the parts of a column are `columns` apart. Weights of
// distances are negated.
template <typename T>
struct Term {
  int query;
  int candidate;
  int columns;
  T weight;
};

// Terms are passed to kernels by value, since kernels do not read memory of the host.
inline constexpr int kMostTerms = 64;

template <typename T>
struct Terms {
  int n;
  Term<T> at[kMostTerms];
};

// Pairs without columns are omitted.
template <typename T>
Terms<T> terms_of(Metric metric, const Pair* pairs, int64_t n) {
  Terms<T> out{};
  const int parts = metric == Metric::modulus ? 2 : 1;
  for (const Pair* pair = pairs; pair != pairs + n; ++pair) {
    if (pair->width == 0) continue;
    const auto weight = static_cast<T>(metric == Metric::dot ? pair->weight : -pair->weight);
    out.at[out.n++] = {static_cast<int>(pair->query), static_cast<int>(pair->candidate),
                       static_cast<int>(pair->width) / parts, weight};
  }
  return out;
}

}  // namespace mmkgc
