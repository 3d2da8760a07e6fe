// Scores of sampled candidates and their gradients: plain pointers in, plain pointers out.
#pragma once

#include <cstdint>

#include "../common/adam.h"
#include "../common/metric.h"

namespace mmkgc::cpu {

// The candidates of one entity: positions [begin, end) of the sorted order.
struct Run {
  int64_t entity;
  int64_t begin;
  int64_t end;
};

// Everything the passes read and write. All arrays are dense and row-major.
template <typename T>
struct SampledTask {
  const T* queries;     // [sides, batch, query_width]
  const T* table;       // [entities, candidate_width]
  const T* scale;       // [sides, batch, candidate_width] or nullptr
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

  // Candidates in sorted order: their positions, the query rows (of sides * batch) that they meet,
  // and the runs of one entity.
  const int64_t* order;     // [batch * n]
  const int32_t* where;     // [batch * n]
  const Run* runs;
  int64_t n_runs;
  T* d_table;               // [entities, candidate_width]
  // Further gradient rows that belong to entities (RotatE's known ones): those of entity e are
  // extra_order[i] for extra_starts[e] <= i < extra_starts[e + 1].
  const T* extra;           // [n_extra, candidate_width] or nullptr
  const int64_t* extra_order;
  const int64_t* extra_starts;
};

// Adam on the rows of the table in place of writing their gradients out.
template <typename T>
struct AdamTask {
  AdamStep<T> step;
  T* table;        // [entities, width], the same memory as the task's `table`
  T* mean;         // [entities, width]
  T* square;       // [entities, width]
  const T* dense;  // [entities, width] of further gradients, or nullptr
};

// Gradients of the entities [begin, end), rows without candidates set to 0. Each row is summed in
// the order of `order` by one thread, so the result does not depend on how many there are.
template <typename T>
void sampled_backward_table(const SampledTask<T>& task, int64_t begin, int64_t end);

// The same with an Adam step on each row once its gradient is known; `task.d_table` is not used. An
// entity without candidates is stepped too, as dense Adam does. Returns the sum of the squares of
// the gradients. (Other rows may be stepped meanwhile: a gradient reads its own row of the table
// and `queries`, which are copies.)
template <typename T>
double sampled_step_table(const SampledTask<T>& task, const AdamTask<T>& adam, int64_t begin,
                          int64_t end);

// Positions 0..n-1 of `ids` sorted by id, equal ids in order; and where each id starts.
void sort_by_id(const int64_t* ids, int64_t n, int64_t n_ids, int64_t* order, int64_t* starts);

// Boundaries of `parts` ranges of entities of about the same work; `bounds` holds parts + 1.
void even_ranges(const Run* runs, int64_t n_runs, int64_t entities, int64_t parts,
                 int64_t* bounds);

}  // namespace mmkgc::cpu
