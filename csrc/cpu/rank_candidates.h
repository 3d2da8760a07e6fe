// Filtered ranking without a score matrix: plain pointers in, counts out.
#pragma once

#include <cstdint>

#include "../common/ranking.h"

namespace mmkgc::cpu {

// Ranks queries [begin, end); calls on disjoint ranges may run at once.
template <typename T>
void rank_queries(const RankTask<T>& task, int64_t begin, int64_t end);

// How many queries share one pass over the table.
inline constexpr int64_t kQueryBlock = 128;

}  // namespace mmkgc::cpu
