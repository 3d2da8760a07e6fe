// Scores of sampled candidates, their loss and the gradients of the queries in one pass, with
// pointer arguments.
#pragma once

#include <cstdint>

#include "../common/metric.h"
#include "row_loss.h"

namespace mmkgc::cpu {

// Arrays are dense and row-major unless noted otherwise. The first of the n candidates of a row is
// the positive.
template <typename T>
struct SampledLossTask {
  const T* queries;       // [sides, batch, query_width]
  const T* table;         // [entities, candidate_width]
  const int64_t* ids;     // [batch, n]
  const int8_t* corrupted_side;  // [batch, n]
  const uint8_t* mask;    // [batch, n], dense within a row; nullptr keeps all
  int64_t mask_stride;
  int64_t sides;
  int64_t batch;
  int64_t n;
  int64_t query_width;
  int64_t candidate_width;
  Metric metric;
  const Pair* pairs;
  const Pair* swapped;    // the pairs with query and candidate swapped
  int64_t n_pairs;
  T offset;               // added to every score
  RowLoss<T> loss;

  T* d_scores;            // [batch, n]
  T* d_queries;           // [sides, batch, query_width]
  double* losses;         // [batch]
};

// Rows [begin, end). The candidates of a row are scattered over the table, but stay in the L2 cache
// from their scores to the gradient of the query.
template <typename T>
void sampled_loss_rows(const SampledLossTask<T>& task, int64_t begin, int64_t end);

}  // namespace mmkgc::cpu
