// A tile of candidates is scored against a block of queries, compared with the targets' scores
// and forgotten: memory is one tile of scores per thread, whatever the size of the graph.
//
// The score of a pair depends on the two rows alone: every score, the targets' own included,
// comes out of score_rows, whose lanes run the same reduction, so equal rows score equal bits.
#include "rank_candidates.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "../common/clones.h"

namespace mmkgc::cpu {
namespace {

constexpr int64_t kTile = 64;  // candidates scored before counting
constexpr int64_t kLanes = 4;  // candidates that share one read of the query row

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

template <Metric M, bool Scaled, typename T>
MMKGC_INLINE void score_lanes(const RankTask<T>& task, int64_t query, const T* const* rows,
                              T* out) {
  const T* q = task.queries + query * task.query_width;
  const T* scale = Scaled ? task.scale + query * task.candidate_width : nullptr;
  for (int64_t lane = 0; lane < kLanes; ++lane) out[lane] = 0;
  for (int64_t p = 0; p < task.n_pairs; ++p) {
    const Pair& pair = task.pairs[p];
    add_pair<M, Scaled, T>(q + pair.query, rows, scale, pair.candidate, pair.width,
                           static_cast<T>(pair.weight), out);
  }
}

// Scores n rows of the table against one query. `rows` holds n pointers rounded up to a multiple
// of kLanes; the extra ones repeat a valid row and their scores are not used.
template <Metric M, bool Scaled, typename T>
MMKGC_INLINE void score_rows_impl(const RankTask<T>& task, int64_t query, const T* const* rows,
                                  int64_t n, T* scores) {
  for (int64_t i = 0; i < n; i += kLanes) {
    score_lanes<M, Scaled, T>(task, query, rows + i, scores + i);
  }
}

// target_clones wants plain functions, so each combination is spelled out once.
#define MMKGC_SCORE_ROWS(name, metric, scaled, T)                                           \
  MMKGC_CLONES void name(const RankTask<T>& task, int64_t query, const T* const* rows,      \
                         int64_t n, T* scores) {                                            \
    score_rows_impl<metric, scaled, T>(task, query, rows, n, scores);                       \
  }
#define MMKGC_SCORE_METRIC(name, metric)                            \
  MMKGC_SCORE_ROWS(name##_f32, metric, false, float)                \
  MMKGC_SCORE_ROWS(name##_scaled_f32, metric, true, float)          \
  MMKGC_SCORE_ROWS(name##_f64, metric, false, double)               \
  MMKGC_SCORE_ROWS(name##_scaled_f64, metric, true, double)

MMKGC_SCORE_METRIC(score_dot, Metric::dot)
MMKGC_SCORE_METRIC(score_l1, Metric::l1)
MMKGC_SCORE_METRIC(score_l2, Metric::l2)
MMKGC_SCORE_METRIC(score_modulus, Metric::modulus)

template <typename T>
using ScoreRows = void (*)(const RankTask<T>&, int64_t, const T* const*, int64_t, T*);

ScoreRows<float> pick(const RankTask<float>& task) {
  const bool scaled = task.scale != nullptr;
  switch (task.metric) {
    case Metric::dot: return scaled ? score_dot_scaled_f32 : score_dot_f32;
    case Metric::l1: return scaled ? score_l1_scaled_f32 : score_l1_f32;
    case Metric::l2: return scaled ? score_l2_scaled_f32 : score_l2_f32;
    default: return scaled ? score_modulus_scaled_f32 : score_modulus_f32;
  }
}

ScoreRows<double> pick(const RankTask<double>& task) {
  const bool scaled = task.scale != nullptr;
  switch (task.metric) {
    case Metric::dot: return scaled ? score_dot_scaled_f64 : score_dot_f64;
    case Metric::l1: return scaled ? score_l1_scaled_f64 : score_l1_f64;
    case Metric::l2: return scaled ? score_l2_scaled_f64 : score_l2_f64;
    default: return scaled ? score_modulus_scaled_f64 : score_modulus_f64;
  }
}

// Counts scores above and equal to the target's; NaN compares false and so counts nowhere.
#define MMKGC_COUNT(T)                                                                        \
  MMKGC_CLONES void count(const T* scores, int64_t n, T target, int32_t* above, int32_t* same) { \
    int32_t a = 0, s = 0;                                                                     \
    for (int64_t i = 0; i < n; ++i) {                                                         \
      a += scores[i] > target;                                                                \
      s += scores[i] == target;                                                               \
    }                                                                                         \
    *above = a;                                                                               \
    *same = s;                                                                                \
  }                                                                                           \
  MMKGC_CLONES int32_t count_nonfinite(const T* scores, int64_t n) {                          \
    int32_t bad = 0;                                                                          \
    for (int64_t i = 0; i < n; ++i) {                                                         \
      bad += !(std::abs(scores[i]) <= std::numeric_limits<T>::max());                         \
    }                                                                                         \
    return bad;                                                                               \
  }
MMKGC_COUNT(float)
MMKGC_COUNT(double)

}  // namespace

template <typename T>
void rank_queries(const RankTask<T>& task, int64_t begin, int64_t end) {
  const ScoreRows<T> score_rows = pick(task);
  const T* rows[kTile];
  T scores[kTile];
  std::vector<T> target_scores;
  std::vector<int64_t> filter_at;
  for (int64_t q0 = begin; q0 < end; q0 += kQueryBlock) {
    const int64_t q1 = std::min(q0 + kQueryBlock, end);
    const int64_t first_target = task.target_ptr[q0];
    target_scores.resize(static_cast<size_t>(task.target_ptr[q1] - first_target));
    filter_at.assign(task.filter_ptr + q0, task.filter_ptr + q1);
    for (int64_t q = q0; q < q1; ++q) {
      task.nonfinite[q] = 0;
      for (int64_t t = task.target_ptr[q]; t < task.target_ptr[q + 1]; ++t) {
        std::fill(rows, rows + kLanes, task.table + task.target_ids[t] * task.candidate_width);
        score_rows(task, q, rows, 1, scores);
        target_scores[static_cast<size_t>(t - first_target)] = scores[0];
        task.better[t] = 0;
        // The sweep below meets the target itself unless the filter takes it out.
        const int64_t* f0 = task.filter_ids + task.filter_ptr[q];
        const int64_t* f1 = task.filter_ids + task.filter_ptr[q + 1];
        task.equal[t] = std::binary_search(f0, f1, task.target_ids[t]) ? 0 : -1;
      }
    }
    for (int64_t c0 = 0; c0 < task.n_candidates; c0 += kTile) {
      const int64_t n = std::min(kTile, task.n_candidates - c0);
      for (int64_t i = 0; i < kTile; ++i) {
        rows[i] = task.table + (c0 + std::min(i, n - 1)) * task.candidate_width;
      }
      for (int64_t q = q0; q < q1; ++q) {
        score_rows(task, q, rows, n, scores);
        task.nonfinite[q] += count_nonfinite(scores, n);
        int64_t& at = filter_at[static_cast<size_t>(q - q0)];
        for (; at < task.filter_ptr[q + 1] && task.filter_ids[at] < c0 + n; ++at) {
          scores[task.filter_ids[at] - c0] = std::numeric_limits<T>::quiet_NaN();
        }
        for (int64_t t = task.target_ptr[q]; t < task.target_ptr[q + 1]; ++t) {
          int32_t above, same;
          count(scores, n, target_scores[static_cast<size_t>(t - first_target)], &above, &same);
          task.better[t] += above;
          task.equal[t] += same;
        }
      }
    }
  }
}

template void rank_queries<float>(const RankTask<float>&, int64_t, int64_t);
template void rank_queries<double>(const RankTask<double>&, int64_t, int64_t);

}  // namespace mmkgc::cpu
