// Scores of a query row against candidate rows.
#pragma once

#include <cmath>
#include <cstdint>

#include "../common/clones.h"
#include "../common/metric.h"

namespace mmkgc::cpu {

inline constexpr int64_t kLanes = 4;  // candidates per read of the query row

// The terms of a score.
struct Terms {
  const Pair* pairs;
  int64_t n_pairs;
};

// Adds weight * term(query block, candidate block) to out for kLanes candidates.
template <Metric M, bool Scaled, typename T>
MMKGC_INLINE void add_pair(const T* q, const T* const* rows, const T* scale, int64_t offset,
                           int64_t width, T weight, T* out) {
  const T* c0 = rows[0] + offset;
  const T* c1 = rows[1] + offset;
  const T* c2 = rows[2] + offset;
  const T* c3 = rows[3] + offset;
  const T* w = Scaled ? scale + offset : nullptr;
  T s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  if constexpr (M == Metric::modulus) {
    const int64_t half = width / 2;
    for (int64_t k = 0; k < half; ++k) {
      const T re = q[k], im = q[k + half];
      const T wr = Scaled ? w[k] : T(1), wi = Scaled ? w[k + half] : T(1);
      const T r0 = re - wr * c0[k], i0 = im - wi * c0[k + half];
      const T r1 = re - wr * c1[k], i1 = im - wi * c1[k + half];
      const T r2 = re - wr * c2[k], i2 = im - wi * c2[k + half];
      const T r3 = re - wr * c3[k], i3 = im - wi * c3[k + half];
      s0 += std::sqrt(r0 * r0 + i0 * i0);
      s1 += std::sqrt(r1 * r1 + i1 * i1);
      s2 += std::sqrt(r2 * r2 + i2 * i2);
      s3 += std::sqrt(r3 * r3 + i3 * i3);
    }
  } else {
    for (int64_t k = 0; k < width; ++k) {
      const T x = q[k];
      const T v = Scaled ? w[k] : T(1);
      if constexpr (M == Metric::dot) {
        const T y = x * v;
        s0 += y * c0[k];
        s1 += y * c1[k];
        s2 += y * c2[k];
        s3 += y * c3[k];
      } else if constexpr (M == Metric::l1) {
        s0 += std::abs(x - v * c0[k]);
        s1 += std::abs(x - v * c1[k]);
        s2 += std::abs(x - v * c2[k]);
        s3 += std::abs(x - v * c3[k]);
      } else {
        const T d0 = x - v * c0[k], d1 = x - v * c1[k];
        const T d2 = x - v * c2[k], d3 = x - v * c3[k];
        s0 += d0 * d0;
        s1 += d1 * d1;
        s2 += d2 * d2;
        s3 += d3 * d3;
      }
    }
    if constexpr (M == Metric::l2) {
      s0 = std::sqrt(s0);
      s1 = std::sqrt(s1);
      s2 = std::sqrt(s2);
      s3 = std::sqrt(s3);
    }
  }
  const T signed_weight = M == Metric::dot ? weight : -weight;
  out[0] += signed_weight * s0;
  out[1] += signed_weight * s1;
  out[2] += signed_weight * s2;
  out[3] += signed_weight * s3;
}

// Scores n rows against one query. `rows` holds n pointers, padded to a multiple of kLanes with any
// valid row; the scores of the padding are not used. A score depends on the two rows alone, so that
// equal rows have scores with equal bits.
template <Metric M, bool Scaled, typename T>
MMKGC_INLINE void score_rows(const Terms& terms, const T* q, const T* scale, const T* const* rows,
                             int64_t n, T* scores) {
  for (int64_t i = 0; i < n; i += kLanes) {
    T* out = scores + i;
    for (int64_t lane = 0; lane < kLanes; ++lane) out[lane] = 0;
    for (int64_t p = 0; p < terms.n_pairs; ++p) {
      const Pair& pair = terms.pairs[p];
      add_pair<M, Scaled, T>(q + pair.query, rows + i, scale, pair.candidate, pair.width,
                             static_cast<T>(pair.weight), out);
    }
  }
}

// target_clones needs plain functions, so that each combination of metric, scale and type is
// listed. MACRO(name, metric, scaled, type) defines NAME##_metric(_scaled)_f32|f64.
#define MMKGC_FOR_EACH_METRIC(MACRO, NAME)                     \
  MACRO(NAME##_dot_f32, Metric::dot, false, float)             \
  MACRO(NAME##_dot_scaled_f32, Metric::dot, true, float)       \
  MACRO(NAME##_dot_f64, Metric::dot, false, double)            \
  MACRO(NAME##_dot_scaled_f64, Metric::dot, true, double)      \
  MACRO(NAME##_l1_f32, Metric::l1, false, float)               \
  MACRO(NAME##_l1_scaled_f32, Metric::l1, true, float)         \
  MACRO(NAME##_l1_f64, Metric::l1, false, double)              \
  MACRO(NAME##_l1_scaled_f64, Metric::l1, true, double)        \
  MACRO(NAME##_l2_f32, Metric::l2, false, float)               \
  MACRO(NAME##_l2_scaled_f32, Metric::l2, true, float)         \
  MACRO(NAME##_l2_f64, Metric::l2, false, double)              \
  MACRO(NAME##_l2_scaled_f64, Metric::l2, true, double)        \
  MACRO(NAME##_modulus_f32, Metric::modulus, false, float)     \
  MACRO(NAME##_modulus_scaled_f32, Metric::modulus, true, float) \
  MACRO(NAME##_modulus_f64, Metric::modulus, false, double)    \
  MACRO(NAME##_modulus_scaled_f64, Metric::modulus, true, double)

// The function of a family for a metric, as `pick_NAME(metric, scaled, T())`.
#define MMKGC_PICK(NAME, TYPE_F32, TYPE_F64)                                      \
  TYPE_F32 pick_##NAME(Metric metric, bool scaled, float) {                       \
    switch (metric) {                                                             \
      case Metric::dot: return scaled ? NAME##_dot_scaled_f32 : NAME##_dot_f32;   \
      case Metric::l1: return scaled ? NAME##_l1_scaled_f32 : NAME##_l1_f32;      \
      case Metric::l2: return scaled ? NAME##_l2_scaled_f32 : NAME##_l2_f32;      \
      default: return scaled ? NAME##_modulus_scaled_f32 : NAME##_modulus_f32;    \
    }                                                                             \
  }                                                                               \
  TYPE_F64 pick_##NAME(Metric metric, bool scaled, double) {                      \
    switch (metric) {                                                             \
      case Metric::dot: return scaled ? NAME##_dot_scaled_f64 : NAME##_dot_f64;   \
      case Metric::l1: return scaled ? NAME##_l1_scaled_f64 : NAME##_l1_f64;      \
      case Metric::l2: return scaled ? NAME##_l2_scaled_f64 : NAME##_l2_f64;      \
      default: return scaled ? NAME##_modulus_scaled_f64 : NAME##_modulus_f64;    \
    }                                                                             \
  }

}  // namespace mmkgc::cpu
