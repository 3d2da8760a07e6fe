// Sums of neighbours weighted by basis coefficients, and their gradients: plain pointers only.
#pragma once

#include <cstdint>

#include "../common/segments.h"

namespace mmkgc::cpu {

// Edges of the segments of one direction. For the forward pass `other` is the source of an edge and
// a row is a receiving entity; for the backward pass it is the other way round.
template <typename T>
struct Edges {
  const int64_t* other;
  const int64_t* relation;
  const T* norm;
  // Row of `other` in its table, -1 where it has none; nullptr when row and entity are the same.
  const int64_t* place;
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

// Sums over the edges of one segment.
template <typename T>
void propagate_segment(const PropagateTask<T>& task, const Edges<T>& edges, const Segment& segment);

// The same for the gradients; that of the coefficients is added to `d_coefficients`
// [relations, bases], double so that many small terms keep their sum.
template <typename T>
void propagate_segment_backward(const PropagateBackwardTask<T>& task, const Edges<T>& edges,
                                const Segment& segment, double* d_coefficients);

// out[row] = the sum of the row's parts, in order.
template <typename T>
void sum_parts(const T* partial, const SplitRow& row, int64_t width, T* out);

}  // namespace mmkgc::cpu
