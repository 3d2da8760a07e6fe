// Scores of rows against a query, compiled for each metric and instruction set.
#pragma once

#include <cstdint>

#include "score_rows.h"

namespace mmkgc::cpu {

// Scores n rows against query q; see score_rows. `scale` may be nullptr.
template <typename T>
using Score = void (*)(const Terms&, const T* q, const T* scale, const T* const* rows, int64_t n,
                       T* scores);

template <typename T>
Score<T> score_function(Metric metric, bool scaled);

}  // namespace mmkgc::cpu
