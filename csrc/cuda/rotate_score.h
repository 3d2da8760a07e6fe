// RotatE's queries, and the gradients of entities and phases from those of the queries, on a GPU.
// The scores are computed by sampled_task.h.
#pragma once

#include <cstdint>

#include "../common/low_precision.h"

namespace mmkgc::cuda {

// All arrays are dense and row-major; complex rows are [re | im] of dim columns each.
template <typename T>
struct RotateTask {
  using A = Accumulator<T>;
  const char* op;
  const T* table;            // [entities, 2 dim]
  const A* phases;           // [relations, dim]
  const int64_t* heads;      // [batch]
  const int64_t* relations;  // [batch]
  const int64_t* tails;      // [batch]
  int64_t entities;
  int64_t n_relations;
  int64_t batch;
  int64_t dim;
  A* queries;                // [2, batch, 2 dim]: h o r for tails, t o conj(r) for heads
};

template <typename T>
void rotate_queries(const RotateTask<T>& task, void* stream);

// Replaces the gradients of the queries in `d_known` [2, batch, 2 dim] with those of heads and
// tails, and writes the gradients of the phases of each positive to `d_phase_rows` [batch, dim].
template <typename T>
void rotate_backward(const RotateTask<T>& task, Accumulator<T>* d_known,
                     Accumulator<T>* d_phase_rows, void* stream);

// Sums `d_phase_rows` by relation in the order of the batch. `order` sorts the positives by
// relation; those of relation r start at starts[r].
template <typename T>
void rotate_sum_phases(const RotateTask<T>& task, const Accumulator<T>* d_phase_rows,
                       const int64_t* order, const int64_t* starts, Accumulator<T>* d_phases,
                       void* stream);

}  // namespace mmkgc::cuda
