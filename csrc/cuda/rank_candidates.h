// Filtered ranking without a score matrix, on a GPU.
#pragma once

#include "../common/ordered_score.h"
#include "../common/ranking.h"

namespace mmkgc::cuda {

// Offsets within the rows of a tile have 32 bits, which saves a quarter of the instructions that
// copy columns to shared memory.
inline constexpr int64_t kMostColumns = int64_t{1} << 25;

// Temporary memory for each target: its score, and the row of its query within the tile.
template <typename T>
struct TargetRoom {
  T* scores;
  int8_t* rows;
};

// Pointers are on the device, except `task.pairs`, which has at most kMostTerms entries. Rows have
// at most kMostColumns columns. Instantiated for float, double, Half and BFloat16.
template <typename Table>
void rank_candidates(const char* op, const RankTask<Table>& task,
                     const TargetRoom<Accumulator<Table>>& room, void* stream);

}  // namespace mmkgc::cuda
