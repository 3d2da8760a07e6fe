// Filtered ranking without a score matrix, with pointer arguments.
#pragma once

#include <cstdint>

#include "../common/ranking.h"

namespace mmkgc::cpu {

// Ranks queries [begin, end). Calls on disjoint ranges may run concurrently.
template <typename T>
void rank_queries(const RankTask<T>& task, int64_t begin, int64_t end);

// The number of queries that share one pass over the table.
inline constexpr int64_t kQueryBlock = 128;

}  // namespace mmkgc::cpu
