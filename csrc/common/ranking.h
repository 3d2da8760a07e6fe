// The inputs and outputs of rank_candidates on both devices.
#pragma once

#include <cstdint>

#include "low_precision.h"
#include "metric.h"

namespace mmkgc {

// All arrays are dense and row-major. Tables of float16 or bfloat16 are scored in float.
template <typename Table>
struct RankTask {
  using T = Accumulator<Table>;

  const T* queries;            // [n_queries, query_width]
  const Table* table;          // [n_candidates, candidate_width]
  const T* scale;              // [n_queries, candidate_width] or nullptr
  const int64_t* target_ptr;   // [n_queries + 1] rows of target_ids
  const int64_t* target_ids;   // [n_targets]
  const int64_t* filter_ptr;   // [n_queries + 1] rows of filter_ids
  const int64_t* filter_ids;   // [n_filtered] ascending within a row
  int64_t* better;             // [n_targets] candidates that score above the target
  int64_t* equal;              // [n_targets] other candidates with the same score
  int64_t* nonfinite;          // [n_queries] candidates with a NaN or infinite score
  int64_t n_queries;
  int64_t n_candidates;
  int64_t n_targets;
  int64_t n_filtered;
  int64_t query_width;
  int64_t candidate_width;
  Metric metric;
  const Pair* pairs;  // host memory
  int64_t n_pairs;
};

}  // namespace mmkgc
