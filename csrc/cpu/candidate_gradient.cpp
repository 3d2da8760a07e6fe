// The gradient of one row through its scores with other rows. The row and its gradient stay in the
// L1 cache while the other rows are streamed. Differences are recomputed, which is faster than
// loading them.
#include "candidate_gradient.h"

#include <cmath>
#include <type_traits>

#include "../common/clones.h"
#include "../common/gradient.h"
#include "modulus_avx512.h"

namespace mmkgc::cpu {
namespace {

constexpr int64_t kColumns = 16;  // columns with their gradient in registers

// 1 / norm of q - w * c over a pair, with the bounds of inverse_root.
template <bool Scaled, typename T>
MMKGC_INLINE T inverse_norm(const T* q, const T* c, const T* w, int64_t width) {
  T squares = 0;
  for (int64_t k = 0; k < width; ++k) {
    const T d = q[k] - (Scaled ? w[k] : T(1)) * c[k];
    squares += d * d;
  }
  return T(1) / std::sqrt(at_least_normal(squares));
}

// Columns [0, n) of a candidate, and under modulus columns [half, half + n): adds to dc the
// gradient of sum_i grad[i] * term(q_i, c).
template <Metric M, bool Scaled, bool Full, typename T>
MMKGC_INLINE void sum_columns(const T* const* queries, const T* const* scales, int64_t query,
                              int64_t candidate, int64_t half, int64_t columns, const T* c,
                              const T* grad, int64_t count, T* dc) {
  const int64_t n = Full ? kColumns : columns;
  constexpr bool kComplex = M == Metric::modulus;
  T re[kColumns], im[kComplex ? kColumns : 1];
  T d_re[kColumns], d_im[kComplex ? kColumns : 1];
  // Separate loops: in one loop the compiler would assume aliasing and not vectorise.
  for (int64_t k = 0; k < n; ++k) re[k] = c[k];
  for (int64_t k = 0; k < n; ++k) d_re[k] = dc[k];
  if constexpr (kComplex) {
    for (int64_t k = 0; k < n; ++k) im[k] = c[k + half];
    for (int64_t k = 0; k < n; ++k) d_im[k] = dc[k + half];
  }
  for (int64_t i = 0; i < count; ++i) {
    MMKGC_ONE_AT_A_TIME;
    const T* q = queries[i] + query;
    const T* w = Scaled ? scales[i] + candidate : nullptr;
    const T g = grad[i];
    MMKGC_NOT_UNROLLED
    for (int64_t k = 0; k < n; ++k) {
      const T v = Scaled ? w[k] : T(1);
      if constexpr (kComplex) {
        const T u = Scaled ? w[k + half] : T(1);
        const T x = q[k] - v * re[k], y = q[k + half] - u * im[k];
        const T f = g * inverse_root(x * x + y * y);
        d_re[k] += f * x * v;
        d_im[k] += f * y * u;
      } else if constexpr (M == Metric::dot) {
        d_re[k] += g * (q[k] * v);
      } else {
        const T d = q[k] - v * re[k];
        d_re[k] += g * v * (M == Metric::l1 ? sign_of(d) : d);
      }
    }
  }
  for (int64_t k = 0; k < n; ++k) dc[k] = d_re[k];
  if constexpr (kComplex) {
    for (int64_t k = 0; k < n; ++k) dc[k + half] = d_im[k];
  }
}

// The gradient of one candidate row over up to kGradientRows queries.
template <Metric M, bool Scaled, typename T>
MMKGC_INLINE void sum_candidate_gradient(const Terms& terms, const T* const* queries,
                                         const T* const* scales, const T* c, const T* grad,
                                         int64_t n, T* dc) {
  T weighted[kGradientRows];
  for (int64_t p = 0; p < terms.n_pairs; ++p) {
    const Pair& pair = terms.pairs[p];
    for (int64_t i = 0; i < n; ++i) {
      weighted[i] = static_cast<T>(pair.weight) * grad[i];
      if constexpr (M == Metric::l2) {
        MMKGC_ONE_AT_A_TIME;
        weighted[i] *= inverse_norm<Scaled>(queries[i] + pair.query, c + pair.candidate,
                                            Scaled ? scales[i] + pair.candidate : nullptr,
                                            pair.width);
      }
    }
    const int64_t half = M == Metric::modulus ? pair.width / 2 : 0;
    const int64_t width = M == Metric::modulus ? half : pair.width;
    int64_t k = 0;
    for (; k + kColumns <= width; k += kColumns) {
      sum_columns<M, Scaled, true, T>(queries, scales, pair.query + k, pair.candidate + k, half,
                                      kColumns, c + pair.candidate + k, weighted, n,
                                      dc + pair.candidate + k);
    }
    if (k < width) {
      sum_columns<M, Scaled, false, T>(queries, scales, pair.query + k, pair.candidate + k, half,
                                       width - k, c + pair.candidate + k, weighted, n,
                                       dc + pair.candidate + k);
    }
  }
}

#define MMKGC_CANDIDATE_GRADIENT(name, metric, scaled, T)                                     \
  MMKGC_CLONES void name(const Terms& terms, const T* const* queries, const T* const* scales, \
                         const T* c, const T* grad, int64_t n, T* dc) {                       \
    sum_candidate_gradient<metric, scaled, T>(terms, queries, scales, c, grad, n, dc);        \
  }
MMKGC_FOR_EACH_METRIC(MMKGC_CANDIDATE_GRADIENT, candidate_gradient)

MMKGC_PICK(candidate_gradient, CandidateGradient<float>, CandidateGradient<double>)

// The version for AVX-512.
void candidate_gradient_for_avx512(const Terms& terms, const float* const* queries,
                                  const float* const*, const float* c, const float* grad,
                                  int64_t n, float* dc) {
  const float* rows[kGradientRows];
  float weighted[kGradientRows];
  for (int64_t p = 0; p < terms.n_pairs; ++p) {
    const Pair& pair = terms.pairs[p];
    for (int64_t i = 0; i < n; ++i) {
      rows[i] = queries[i] + pair.query;
      weighted[i] = static_cast<float>(pair.weight) * grad[i];
    }
    candidate_gradient_avx512(rows, c + pair.candidate, weighted, n, pair.width / 2,
                              dc + pair.candidate);
  }
}

}  // namespace

template <typename T>
CandidateGradient<T> candidate_gradient(Metric metric, bool scaled) {
  if constexpr (std::is_same_v<T, float>) {
    if (metric == Metric::modulus && !scaled && has_avx512()) return candidate_gradient_for_avx512;
  }
  return pick_candidate_gradient(metric, scaled, T());
}

template CandidateGradient<float> candidate_gradient<float>(Metric, bool);
template CandidateGradient<double> candidate_gradient<double>(Metric, bool);

}  // namespace mmkgc::cpu
