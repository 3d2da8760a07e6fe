// RotatE's queries and what their gradients mean for entities and phases; scoring itself is
// sampled_score.h.
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

  T* cosines;                // [relations, dim], of the relations in use
  T* sines;
  T* queries;                // [2, batch, 2 dim]: h o r for tails, t o conj(r) for heads
  // The gradients of the queries, [2, batch, 2 dim]; in their place come those of the heads, then of
  // the tails.
  T* d_known;
  T* d_phase_rows;           // [batch, dim]

  // Positions of `relations`, sorted by relation, and where each relation starts.
  const int64_t* order;
  const int64_t* starts;
  T* d_phases;               // [relations, dim]
};

// Cosines and sines of the relations [begin, end) that occur (as `starts` says).
template <typename T>
void rotate_angles(const RotateTask<T>& task, int64_t begin, int64_t end);

// Queries of the rows [begin, end) of the batch.
template <typename T>
void rotate_queries(const RotateTask<T>& task, int64_t begin, int64_t end);

// From the gradients of the queries of rows [begin, end) to those of known entities and phases.
template <typename T>
void rotate_backward(const RotateTask<T>& task, int64_t begin, int64_t end);

// Sums the phase gradients of the relations [begin, end), in the order of the batch.
template <typename T>
void rotate_sum_phases(const RotateTask<T>& task, int64_t begin, int64_t end);

}  // namespace mmkgc::cpu
