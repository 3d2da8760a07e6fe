// Filtered ranking without a score matrix: plain pointers in, counts out.
#pragma once

#include <cstdint>

#include "../common/metric.h"

namespace mmkgc::cpu {

// Everything one call reads and writes. All arrays are dense and row-major.
template <typename T>
struct RankTask {
  const T* queries;            // [n_queries, query_width]
  const T* table;              // [n_candidates, candidate_width]
  const T* scale;              // [n_queries, candidate_width] or nullptr
  const int64_t* target_ptr;   // [n_queries + 1] rows of target_ids
  const int64_t* target_ids;   // [target_ptr[n_queries]]
  const int64_t* filter_ptr;   // [n_queries + 1] rows of filter_ids
  const int64_t* filter_ids;   // ascending within a row
  int64_t* better;             // [n_targets] candidates that score above the target
  int64_t* equal;              // [n_targets] other candidates that score the same
  int64_t* nonfinite;          // [n_queries] candidates whose score is NaN or infinite
  int64_t n_queries;
  int64_t n_candidates;
  int64_t query_width;
  int64_t candidate_width;
  Metric metric;
  const Pair* pairs;
  int64_t n_pairs;
};

// Ranks queries [begin, end); calls on disjoint ranges may run at once.
template <typename T>
void rank_queries(const RankTask<T>& task, int64_t begin, int64_t end);

// How many queries share one pass over the table.
inline constexpr int64_t kQueryBlock = 128;

}  // namespace mmkgc::cpu
