// The gradient of a candidate row through its scores. Without a scale, the same function computes
// the gradient of a query row, with query and candidate swapped.
#pragma once

#include <cstdint>

#include "score_rows.h"

namespace mmkgc::cpu {

inline constexpr int64_t kGradientRows = 64;  // the most query rows per call

// Adds to dc the gradient of sum_i grad[i] * score(queries[i], scales[i], c) over n <=
// kGradientRows query rows.
template <typename T>
using CandidateGradient = void (*)(const Terms&, const T* const* queries, const T* const* scales,
                                   const T* c, const T* grad, int64_t n, T* dc);

template <typename T>
CandidateGradient<T> candidate_gradient(Metric metric, bool scaled);

}  // namespace mmkgc::cpu
