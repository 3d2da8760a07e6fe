// RotatE's queries, and the gradients of entities and phases from those of the queries. The scores
// are computed by sampled_score.h.
#pragma once

#include <cstdint>

namespace mmkgc::cpu {

// All arrays are dense and row-major; complex rows are [re | im] of dim columns each.
template <typename T>
struct RotateTask {
  const T* table;            // [entities, 2 dim]
  const T* phases;           // [relations, dim]
  const int64_t* heads;      // [batch]
  const int64_t* relations;  // [batch]
  const int64_t* tails;      // [batch]
  int64_t batch;
  int64_t dim;

  T* cosines;                // [relations, dim], filled for relations in use
  T* sines;
  T* queries;                // [2, batch, 2 dim]: h o r for tails, t o conj(r) for heads
  // The gradients of the queries, [2, batch, 2 dim], which are replaced in place by those of heads
  // and tails.
  T* d_known;
  T* d_phase_rows;           // [batch, dim]

  // Positions of `relations` sorted by relation, and the start of each relation.
  const int64_t* order;
  const int64_t* starts;
  T* d_phases;               // [relations, dim]
};

// Cosines and sines of the relations [begin, end) that occur in the batch.
template <typename T>
void rotate_angles(const RotateTask<T>& task, int64_t begin, int64_t end);

// Queries of the rows [begin, end) of the batch.
template <typename T>
void rotate_queries(const RotateTask<T>& task, int64_t begin, int64_t end);

// The gradients of heads, tails and phases from those of the queries of rows [begin, end).
template <typename T>
void rotate_backward(const RotateTask<T>& task, int64_t begin, int64_t end);

// Sums the gradients of the phases of relations [begin, end) in the order of the batch.
template <typename T>
void rotate_sum_phases(const RotateTask<T>& task, int64_t begin, int64_t end);

}  // namespace mmkgc::cpu
