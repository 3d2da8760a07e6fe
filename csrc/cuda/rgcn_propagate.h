// Sums over neighbours with basis coefficients, and their gradients, on a GPU. S is the dtype of x;
// all other tensors and the sums are of type T = Accumulator<S>.
//
// Edges are cut at positions that are multiples of kEdgePart. The parts of a hub are summed by
// different warps and then added in order (see RunParts).
#pragma once

#include <cstdint>

#include "../common/low_precision.h"
#include "../common/mapping.h"

namespace mmkgc::cuda {

inline constexpr int64_t kEdgePart = 256;

inline int64_t count_edge_parts(int64_t edges) { return RunParts{kEdgePart}.count(edges); }

// The entities of the rows of a table; all entities in order if the pointers are nullptr.
struct TableRows {
  const int64_t* ids;    // [count]
  const int64_t* place;  // [entities] row of each entity, or -1
  int64_t count;
};

// One direction of the graph: the rows of the sums, and the rows at the other ends of the edges.
template <typename T>
struct EdgeRows {
  const int64_t* ptr;       // [entities + 1]
  const int64_t* other;     // [edges]
  const int64_t* relation;  // [edges]
  const T* norm;            // [edges]
  int64_t entities;
  int64_t edges;
  int64_t relations;
  TableRows own;
  TableRows others;
  // Temporary memory; parts = count_edge_parts(edges).
  int64_t* owner;           // [parts] the entity of each part, or -1
  T* partial;               // [2 * parts, columns] sums of parts, then of heads with parts
};

template <typename S>
struct PropagateTask {
  using T = Accumulator<S>;
  EdgeRows<T> into;       // the sources of each row
  const S* x;             // [sources, width]
  const T* coefficients;  // [relations, bases]
  int64_t bases;
  int64_t width;
  T* out;                 // [rows, bases * width]
};

template <typename S>
struct PropagateBackwardTask {
  using T = Accumulator<S>;
  EdgeRows<T> from;       // the targets of each source
  const T* grad;          // [rows, bases * width]
  const S* x;             // [sources, width]
  const T* coefficients;  // [relations, bases]
  int64_t bases;
  int64_t width;
  S* d_x;                 // [sources, width], or nullptr
  // [slices, edges, bases] products of x and the gradient of the target, which are later summed by
  // relation, or nullptr. Written for edges with a row at both ends.
  T* dots;
};

// The gradient of the coefficients from these products.
template <typename T>
struct CoefficientsTask {
  const int64_t* relation;  // [edges] ascending
  const int64_t* order;     // [edges] the edge at each position
  const T* norm;            // [edges]
  const T* dots;            // [slices, edges, bases]
  int64_t slices;
  int64_t edges;
  int64_t bases;
  int64_t relations;
  double* partial;          // [count_edge_parts(edges), bases]
  T* out;                   // [relations, bases]
};

// Sets place[ids[i]] = i. `sources` is only used in messages.
void place_rows(const int64_t* ids, int64_t count, int64_t entities, bool sources, int64_t* place,
                void* stream);

template <typename S>
void propagate(const PropagateTask<S>& task, void* stream);

// The number of slices of a row, over which `dots` is summed.
template <typename S>
int64_t count_dot_slices(const PropagateBackwardTask<S>& task);

template <typename S>
void propagate_backward(const PropagateBackwardTask<S>& task, void* stream);

template <typename T>
void coefficients_gradient(const CoefficientsTask<T>& task, void* stream);

}  // namespace mmkgc::cuda
