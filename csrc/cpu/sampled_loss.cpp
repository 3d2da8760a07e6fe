#include "sampled_loss.h"

#include <algorithm>
#include <vector>

#include "candidate_gradient.h"
#include "score.h"

namespace mmkgc::cpu {
namespace {

// Prefetches a row.
template <typename T>
MMKGC_INLINE void prefetch_row(const T* row, int64_t width) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t k = 0; k < width; k += kLine) __builtin_prefetch(row + k);
}

// The candidates of one query of a row of the batch.
template <typename T>
struct QueryCandidates {
  std::vector<const T*> rows;  // padded for score_rows by repeating the last row
  std::vector<int64_t> columns;
  std::vector<T> values;

  explicit QueryCandidates(int64_t n)
      : rows(static_cast<size_t>(n + kLanes)),
        columns(static_cast<size_t>(n)),
        values(static_cast<size_t>(n + kLanes)) {}
};

}  // namespace

template <typename T>
void sampled_loss_rows(const SampledLossTask<T>& task, int64_t begin, int64_t end) {
  const Score<T> score = score_function<T>(task.metric, false);
  const CandidateGradient<T> gradient = candidate_gradient<T>(task.metric, false);
  const Terms terms{task.pairs, task.n_pairs}, swapped{task.swapped, task.n_pairs};
  const int64_t n = task.n, width = task.candidate_width;
  QueryCandidates<T> candidates(n);
  std::vector<T> scores(static_cast<size_t>(n));
  for (int64_t b = begin; b < end; ++b) {
    const int64_t* ids = task.ids + b * n;
    const int8_t* side = task.corrupted_side + b * n;
    T* d = task.d_scores + b * n;
    const auto gather = [&](int64_t s) {
      int64_t count = 0;
      for (int64_t i = 0; i < n; ++i) {
        candidates.columns[static_cast<size_t>(count)] = i;
        candidates.rows[static_cast<size_t>(count)] = task.table + ids[i] * width;
        count += side[i] == s;
      }
      for (int64_t i = 0; count && i < kLanes; ++i) {
        const auto last = static_cast<size_t>(count - 1);
        candidates.rows[static_cast<size_t>(count + i)] = candidates.rows[last];
      }
      return count;
    };
    for (int64_t s = 0; s < task.sides; ++s) {
      const T* q = task.queries + (s * task.batch + b) * task.query_width;
      const int64_t count = gather(s);
      for (int64_t i = 0; i < count; i += kLanes) {
        if (i + kLanes < count) {
          for (int64_t lane = 0; lane < kLanes; ++lane) {
            prefetch_row(candidates.rows[static_cast<size_t>(i + kLanes + lane)], width);
          }
        }
        score(terms, q, nullptr, candidates.rows.data() + i, kLanes, candidates.values.data() + i);
      }
      for (int64_t i = 0; i < count; ++i) {
        const auto at = static_cast<size_t>(i);
        scores[static_cast<size_t>(candidates.columns[at])] = task.offset + candidates.values[at];
      }
    }
    task.losses[b] = task.loss(
        scores.data(), scores.data() + 1,
        task.mask ? task.mask + b * task.mask_stride + 1 : nullptr, n - 1, d, d + 1);
    const T share = T(1) / static_cast<T>(task.batch);  // weight of the row in the mean
    for (int64_t i = 0; i < n; ++i) d[i] *= share;
    for (int64_t s = 0; s < task.sides; ++s) {
      const int64_t at = (s * task.batch + b) * task.query_width;
      T* dq = task.d_queries + at;
      std::fill_n(dq, task.query_width, T(0));
      const int64_t count = gather(s);
      for (int64_t i = 0; i < count; ++i) {
        candidates.values[static_cast<size_t>(i)] = d[candidates.columns[static_cast<size_t>(i)]];
      }
      for (int64_t i = 0; i < count; i += kGradientRows) {
        gradient(swapped, candidates.rows.data() + i, nullptr, task.queries + at,
                 candidates.values.data() + i, std::min(kGradientRows, count - i), dq);
      }
    }
  }
}

template void sampled_loss_rows<float>(const SampledLossTask<float>&, int64_t, int64_t);
template void sampled_loss_rows<double>(const SampledLossTask<double>&, int64_t, int64_t);

}  // namespace mmkgc::cpu
