// The tiles of the matrix of scores of queries and candidates, and the work of each thread of a
// block in a tile, as functions of sizes. The tests of the emulated kernels cover them.
#pragma once

#include <cstdint>

#include "mapping.h"

namespace mmkgc {

inline constexpr int kTile = 64;          // queries, and candidates, per tile
inline constexpr int kTileThreads = 256;  // threads per block
inline constexpr int kOwn = 4;            // queries, and candidates, per thread: 4 x 4 scores

// Each block works on one tile of queries and a range of tiles of candidates.
struct TileGrid {
  int64_t queries;
  int64_t candidates;

  // A GPU runs some hundreds of blocks at once. With many times that number, the idle time at the
  // end is short. In emulation blocks run one after another, and long ranges are needed to test
  // them.
#if defined(MMKGC_EMULATE)
  static constexpr int64_t kEnoughBlocks = 6;
#else
  static constexpr int64_t kEnoughBlocks = 8192;
#endif

  struct Place {
    int64_t query;           // first of the tile
    int64_t candidate;       // first of the range
    int64_t candidates_end;
  };

  MMKGC_HD int64_t query_tiles() const { return divide_up(queries, kTile); }
  MMKGC_HD int64_t candidate_tiles() const { return divide_up(candidates, kTile); }

  // The number of ranges of candidates.
  MMKGC_HD int64_t splits() const {
    const int64_t wanted = queries > 0 ? divide_up(kEnoughBlocks, query_tiles()) : 0;
    const int64_t most = candidate_tiles();
    return wanted < most ? wanted : most;
  }

  MMKGC_HD int64_t blocks() const { return query_tiles() * splits(); }

  // Blocks that run at once share their candidates, which are then read from the L2 cache.
  MMKGC_HD Place place(int64_t block) const {
    const int64_t tiles = query_tiles(), n = splits(), split = block / tiles;
    const int64_t end = candidate_tiles() * (split + 1) / n * kTile;
    return {(block - split * tiles) * kTile, candidate_tiles() * split / n * kTile,
            end < candidates ? end : candidates};
  }
};

// The number of rows of the tile that starts at row `first`; 0 or less beyond the last row.
MMKGC_HD int rows_of_tile(int64_t first, int64_t end) {
  return end - first < kTile ? static_cast<int>(end - first) : kTile;
}

// The first query and the first candidate of a thread within the tile.
struct TilePlace {
  int query;
  int candidate;
};

// A warp works on 16 queries by 32 candidates. Lanes are ordered so that their simultaneous 16-byte
// reads from shared memory are equal or in different banks.
MMKGC_HD TilePlace place_in_tile(int thread) {
  const int warp = thread / kLanesOfWarp, lane = thread % kLanesOfWarp;
  const int query = (lane & 1) | ((lane >> 4) << 1), candidate = (lane >> 1) & 7;
  return {(warp / 2 * 4 + query) * kOwn, (warp % 2 * 8 + candidate) * kOwn};
}

// The number of columns of a tile in shared memory: 64 bytes of each row.
template <typename T>
inline constexpr int kChunk = 64 / static_cast<int>(sizeof(T));

// The values that a thread copies there: one column of the kCount rows `row`, `row + kStep` and so
// on. Neighbouring threads copy neighbouring columns, so that they read whole sectors.
template <typename T>
struct ChunkPlace {
  int column;
  int row;

  MMKGC_HD explicit ChunkPlace(int thread) : column(thread % kChunk<T>), row(thread / kChunk<T>) {}

  static constexpr int kStep = kTileThreads / kChunk<T>;
  static constexpr int kCount = kTile / kStep;
};

// The stride of a row of 64 in shared memory. The padding of 16 bytes spreads columns over the
// banks.
template <typename T>
inline constexpr int kTileStride = kTile + 16 / static_cast<int>(sizeof(T));

// The number of threads that share the 64 scores of one query, so that a block covers a whole tile.
// Thread i of them reads the scores i, i + 4, i + 8 and so on.
inline constexpr int kTogether = kTileThreads / kTile;

}  // namespace mmkgc
