// How the scores of all queries against all candidates are cut into tiles, and a tile among the threads
// of a block: functions of sizes alone, which the tests of the emulated kernels cover.
#pragma once

#include <cstdint>

#include "mapping.h"

namespace mmkgc {

inline constexpr int kTile = 64;          // queries, and candidates, of a tile
inline constexpr int kTileThreads = 256;  // of the block that has it
inline constexpr int kOwn = 4;            // queries, and candidates, of one thread: 4 x 4 scores

// Each block has one tile of queries and a range of the tiles of candidates.
struct TileGrid {
  int64_t queries;
  int64_t candidates;

  // A GPU runs some hundreds of blocks at once. With many times as many, it is not long that some of
  // it has nothing left to do at the end. Emulated, one runs after another, and ranges should be long
  // enough for tests to see them.
#if defined(MMKGC_EMULATE)
  static constexpr int64_t kEnoughBlocks = 6;
#else
  static constexpr int64_t kEnoughBlocks = 8192;
#endif

  struct Place {
    int64_t query;           // the first of the tile
    int64_t candidate;       // the first of the range
    int64_t candidates_end;
  };

  MMKGC_HD int64_t query_tiles() const { return divide_up(queries, kTile); }
  MMKGC_HD int64_t candidate_tiles() const { return divide_up(candidates, kTile); }

  // Ranges that the candidates are cut into.
  MMKGC_HD int64_t splits() const {
    const int64_t wanted = queries > 0 ? divide_up(kEnoughBlocks, query_tiles()) : 0;
    const int64_t most = candidate_tiles();
    return wanted < most ? wanted : most;
  }

  MMKGC_HD int64_t blocks() const { return query_tiles() * splits(); }

  // Blocks that run at once have the same candidates, so that these are read from the L2 cache.
  MMKGC_HD Place place(int64_t block) const {
    const int64_t tiles = query_tiles(), n = splits(), split = block / tiles;
    const int64_t end = candidate_tiles() * (split + 1) / n * kTile;
    return {(block - split * tiles) * kTile, candidate_tiles() * split / n * kTile,
            end < candidates ? end : candidates};
  }
};

// Rows of the tile that begins with row `first`, of `end` in all; none or fewer beyond the last.
MMKGC_HD int rows_of_tile(int64_t first, int64_t end) {
  return end - first < kTile ? static_cast<int>(end - first) : kTile;
}

// The first query and the first candidate of a thread's scores, within the tile.
struct TilePlace {
  int query;
  int candidate;
};

// A warp has 16 queries by 32 candidates. Lanes are ordered so that the 16 bytes they read at once
// from shared memory either are the same or lie in other banks.
MMKGC_HD TilePlace place_in_tile(int thread) {
  const int warp = thread / kLanesOfWarp, lane = thread % kLanesOfWarp;
  const int query = (lane & 1) | ((lane >> 4) << 1), candidate = (lane >> 1) & 7;
  return {(warp / 2 * 4 + query) * kOwn, (warp % 2 * 8 + candidate) * kOwn};
}

// Columns of a tile's rows that are in shared memory at once: 64 bytes of each row.
template <typename T>
inline constexpr int kChunk = 64 / static_cast<int>(sizeof(T));

// Which of them a thread brings there: one column of rows `row`, `row + step()` and so on, `count()`
// of them. Neighbours have columns beside each other, so that they read whole sectors.
template <typename T>
struct ChunkPlace {
  int column;
  int row;

  MMKGC_HD explicit ChunkPlace(int thread) : column(thread % kChunk<T>), row(thread / kChunk<T>) {}

  static constexpr int kStep = kTileThreads / kChunk<T>;
  static constexpr int kCount = kTile / kStep;
};

// The room of a row of 64 in shared memory. 16 bytes more than that spread columns over the banks.
template <typename T>
inline constexpr int kTileStride = kTile + 16 / static_cast<int>(sizeof(T));

// Threads that look at the 64 scores of one query together, so that a block looks at a whole tile.
// Thread i of them has the scores i, i + 4, i + 8 and so on.
inline constexpr int kTogether = kTileThreads / kTile;

}  // namespace mmkgc
