// Scores of sampled candidates, a loss of them and the gradients of the queries in one pass: plain
// pointers in, plain pointers out.
#pragma once

#include <cstdint>

#include "../common/metric.h"
#include "row_loss.h"

namespace mmkgc::cpu {

// All arrays are dense and row-major unless said otherwise. The first of the n candidates of a row is
// its positive.
template <typename T>
struct SampledLossTask {
  const T* queries;       // [sides, batch, query_width]
  const T* table;         // [entities, candidate_width]
  const int64_t* ids;     // [batch, n]
  const int8_t* side;     // [batch, n]
  const uint8_t* usable;  // [batch, n], dense within a row, or nullptr: all are
  int64_t usable_stride;
  int64_t sides;
  int64_t batch;
  int64_t n;
  int64_t query_width;
  int64_t candidate_width;
  Metric metric;
  const Pair* pairs;
  const Pair* swapped;    // the same with query and candidate in each other's place
  int64_t n_pairs;
  T offset;               // added to every score
  RowLoss<T> loss;

  T* d_scores;            // [batch, n]
  T* d_queries;           // [sides, batch, query_width]
  double* losses;         // [batch]
};

// The rows [begin, end). The candidates of a row come from all over the table, but stay in the second
// cache from their scores to the gradient of the query.
template <typename T>
void sampled_loss_rows(const SampledLossTask<T>& task, int64_t begin, int64_t end);

}  // namespace mmkgc::cpu
