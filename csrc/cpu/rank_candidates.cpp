// A tile of candidates is scored against a block of queries, compared with the scores of the
// targets and discarded: each thread stores one tile of scores, whatever the size of the graph.
//
// A score depends on the two rows alone: all scores, including those of the targets, are computed
// by score_rows.h, where all lanes use the same order of operations, so that equal rows have scores
// with equal bits.
#include "rank_candidates.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "../common/clones.h"
#include "score.h"

namespace mmkgc::cpu {
namespace {

constexpr int64_t kTile = 64;  // candidates per tile

// Counts scores above and equal to that of the target. NaN compares false and is not counted.
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
  const Score<T> score = score_function<T>(task.metric, task.scale != nullptr);
  const Terms terms{task.pairs, task.n_pairs};
  const auto query_row = [&](int64_t q) { return task.queries + q * task.query_width; };
  const auto scale_row = [&](int64_t q) {
    return task.scale ? task.scale + q * task.candidate_width : nullptr;
  };
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
        score(terms, query_row(q), scale_row(q), rows, 1, scores);
        target_scores[static_cast<size_t>(t - first_target)] = scores[0];
        task.better[t] = 0;
        // The comparison below includes the target itself unless it is filtered.
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
        score(terms, query_row(q), scale_row(q), rows, n, scores);
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
