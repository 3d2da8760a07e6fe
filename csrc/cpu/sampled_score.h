// Scores of sampled candidates and their gradients: plain pointers in, plain pointers out.
#pragma once

#include <cstdint>

#include "../common/metric.h"

namespace mmkgc::cpu {

// Everything the three passes read and write. All arrays are dense and row-major.
template <typename T>
struct SampledTask {
  const T* queries;     // [sides, batch, query_width]
  const T* table;       // [entities, candidate_width]
  const T* scale;       // [sides, batch, candidate_width] or nullptr
  const int64_t* ids;   // [batch, n]
  const int8_t* side;   // [batch, n], which of the queries each candidate meets
  int64_t batch;
  int64_t n;
  int64_t entities;
  int64_t query_width;
  int64_t candidate_width;
  Metric metric;
  const Pair* pairs;
  int64_t n_pairs;

  T* scores;            // [batch, n], of the forward pass
  const T* grad;        // [batch, n], of the backward passes
  T* d_queries;         // [sides, batch, query_width]
  T* d_scale;           // [sides, batch, candidate_width] or nullptr
  int64_t sides;

  // Of the pass over the table. `order` holds the positions of `ids`, sorted by id; position p of
  // id e is at order[i] for starts[e] <= i < starts[e + 1].
  const int64_t* order;
  const int64_t* starts;    // [entities + 1]
  T* d_table;               // [entities, candidate_width]
  // Further gradient rows that belong to entities (RotatE's known ones), sorted the same way.
  const T* extra;           // [n_extra, candidate_width] or nullptr
  const int64_t* extra_order;
  const int64_t* extra_starts;
};

// Scores of the rows [begin, end) of the batch.
template <typename T>
void sampled_forward(const SampledTask<T>& task, int64_t begin, int64_t end);

// Gradients of the queries (and scales) of the rows [begin, end) of the batch.
template <typename T>
void sampled_backward_queries(const SampledTask<T>& task, int64_t begin, int64_t end);

// Gradients of the entities [begin, end), rows without candidates set to 0. Each row is summed in
// the order of `order` by one thread, so the result does not depend on how many there are.
template <typename T>
void sampled_backward_table(const SampledTask<T>& task, int64_t begin, int64_t end);

// Positions 0..n-1 of `ids` sorted by id, equal ids in order; and where each id starts.
void sort_by_id(const int64_t* ids, int64_t n, int64_t n_ids, int64_t* order, int64_t* starts);

// The second half of that: where each id starts in a sorted order.
void count_ids(const int64_t* ids, int64_t n, int64_t n_ids, int64_t* starts);

// Boundaries of `parts` ranges of entities of about the same work; `bounds` holds parts + 1.
void even_ranges(const int64_t* starts, int64_t entities, int64_t parts, int64_t* bounds);

}  // namespace mmkgc::cpu
