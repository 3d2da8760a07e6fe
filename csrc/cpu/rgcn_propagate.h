// Sums over neighbours with basis coefficients, and their gradients, with pointer arguments.
#pragma once

#include <cstdint>

#include "../common/segments.h"

namespace mmkgc::cpu {

// Edges of one direction. In the forward pass `other` is the source of an edge and rows are
// receivers; in the backward pass `other` is the receiver and rows are sources.
template <typename T>
struct Edges {
  const int64_t* other;
  const int64_t* relation;
  const T* norm;
  // The row of each entity in the table of `other`, or -1; nullptr if the table has all entities.
  const int64_t* row;
};

template <typename T>
struct PropagateTask {
  const T* x;             // [sources, width]
  const T* coefficients;  // [relations, bases]
  int64_t bases;
  int64_t width;
  T* out;                 // [rows, bases * width]
  T* partial;             // [parts, bases * width]
};

template <typename T>
struct PropagateBackwardTask {
  const T* grad;          // [rows, bases * width]
  const T* x;             // [sources, width]
  const T* coefficients;  // [relations, bases]
  int64_t bases;
  int64_t width;
  T* d_x;                 // [sources, width], or nullptr
  T* partial;             // [parts, width]
  bool with_coefficients;
};

// The sum over the edges of one segment.
template <typename T>
void propagate_segment(const PropagateTask<T>& task, const Edges<T>& edges, const Segment& segment);

// The gradients of one segment. The gradient of the coefficients is added to `d_coefficients`
// [relations, bases], in double so that many small terms are summed accurately.
template <typename T>
void propagate_segment_backward(const PropagateBackwardTask<T>& task, const Edges<T>& edges,
                                const Segment& segment, double* d_coefficients);

// out[row] = the sum of the row's parts, in order.
template <typename T>
void sum_parts(const T* partial, const SplitRow& row, int64_t width, T* out);

}  // namespace mmkgc::cpu
