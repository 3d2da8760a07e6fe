// Filtered ranking without a score matrix, on a GPU.
#pragma once

#include "../common/ordered_score.h"
#include "../common/ranking.h"

namespace mmkgc::cuda {

// Offsets among the rows of a tile are 32 bits wide, which saves a quarter of the instructions that
// bring columns to shared memory.
inline constexpr int64_t kMostColumns = int64_t{1} << 25;

// Room for what is computed of each target before candidates are counted: its score, and the place of
// its query among those that share a block.
template <typename T>
struct TargetRoom {
  T* scores;
  int8_t* rows;
};

// Pointers are of the device, but for `task.pairs`, of which there are at most kMostTerms. Rows have at
// most kMostColumns columns. For float, double, Half and BFloat16.
template <typename Table>
void rank_candidates(const char* op, const RankTask<Table>& task,
                     const TargetRoom<Accumulator<Table>>& room, void* stream);

}  // namespace mmkgc::cuda
