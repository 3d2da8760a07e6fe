// Scores of sampled candidates and their gradients, with pointer arguments.
#pragma once

#include <cstdint>

#include "../common/adam.h"
#include "../common/metric.h"

namespace mmkgc::cpu {

// The candidates of one entity, at positions [begin, end) of the sorted order.
struct Run {
  int64_t entity;
  int64_t begin;
  int64_t end;
};

// The inputs and outputs of the passes. All arrays are dense and row-major.
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

  // Candidates in sorted order: their positions, their query rows (of sides * batch), and runs.
  const int64_t* order;     // [batch * n]
  const int32_t* where;     // [batch * n]
  const Run* runs;
  int64_t n_runs;
  T* d_table;               // [entities, candidate_width]
  // Additional gradient rows of entities (RotatE's heads and tails): those of entity e are
  // extra_order[i] for extra_starts[e] <= i < extra_starts[e + 1].
  const T* extra;           // [n_extra, candidate_width] or nullptr
  const int64_t* extra_order;
  const int64_t* extra_starts;
};

// Adam on the rows of the table, instead of storing their gradients.
template <typename T>
struct AdamTask {
  AdamStep<T> step;
  T* table;        // [entities, width], the same memory as the task's `table`
  T* mean;         // [entities, width]
  T* square;       // [entities, width]
  const T* dense;  // [entities, width] gradient to add, or nullptr
};

// Gradients of the entities [begin, end); rows without candidates are set to 0. Each row is summed
// in the order of `order` by one thread, so that the result does not depend on the number of
// threads.
template <typename T>
void sampled_backward_table(const SampledTask<T>& task, int64_t begin, int64_t end);

// The same with an Adam step on each row after its gradient; `task.d_table` is not used. Entities
// without candidates are stepped too, as in dense Adam. Returns the sum of the squares of the
// gradients. (Other rows may be stepped concurrently: a gradient reads only its own row of the
// table, and `queries`, which does not share memory with the table.)
template <typename T>
double sampled_step_table(const SampledTask<T>& task, const AdamTask<T>& adam, int64_t begin,
                          int64_t end);

// Positions 0..n-1 of `ids` sorted by id, equal ids by position, and the start of each id.
void sort_by_id(const int64_t* ids, int64_t n, int64_t n_ids, int64_t* order, int64_t* starts);

// Boundaries of `parts` ranges of entities with about the same work; `bounds` has parts + 1
// entries.
void even_ranges(const Run* runs, int64_t n_runs, int64_t entities, int64_t parts,
                 int64_t* bounds);

}  // namespace mmkgc::cpu
