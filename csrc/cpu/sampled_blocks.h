// Scores of sampled candidates and the gradients of their queries, one block of columns at a time.
//
// Every candidate row is scored by a few queries from the whole batch. In the sorted order of the
// candidates, the table is streamed once and the queries are accessed randomly. A packed block of
// their columns fits into the L2 cache, whatever the size of the graph.
#pragma once

#include <cstdint>
#include <vector>

#include "../common/metric.h"
#include "sampled_score.h"

namespace mmkgc::cpu {

inline constexpr int64_t kBlock = 32;  // columns per block; under modulus 16 complex columns

// Columns of one pair: `width` columns at `query` and `candidate`, and under modulus as many
// columns at an offset of `half`.
struct Block {
  int64_t pair;
  int64_t query;
  int64_t candidate;
  int64_t width;
  int64_t half;
};

std::vector<Block> make_blocks(const Pair* pairs, int64_t n_pairs, Metric metric);

// The input of one block. `where[i]` is the query row of the i-th candidate in sorted order.
template <typename T>
struct BlockTask {
  const T* table;
  int64_t stride;      // width of a table row
  Block block;
  Metric metric;
  const Run* runs;
  const int32_t* where;
  const T* queries;    // [rows, kBlock] packed
  const T* scales;     // [rows, kBlock] packed, or nullptr
};

// Packs the columns of a block from rows [n, row_width] of queries or of candidates.
template <typename T>
void pack_rows(const T* rows, int64_t n, int64_t row_width, const Block& block, bool of_candidate,
               T* packed);

// Adds packed columns to the rows.
template <typename T>
void unpack_rows(const T* packed, int64_t n, int64_t row_width, const Block& block,
                 bool of_candidate, T* rows);

// terms[i - origin] of the candidates i of the runs [begin, end): the term of the block in the sum
// of its pair, without sign and weight, and under l2 before the root.
template <typename T>
void block_terms(const BlockTask<T>& task, int64_t begin, int64_t end, int64_t origin, T* terms);

// Adds the gradients of all runs to d_queries and, with scales, to d_scales [rows, kBlock].
// grads[i] is d(loss)/d(score) times the weight of the pair, under l2 divided by the norm of the
// difference.
template <typename T>
void block_query_gradient(const BlockTask<T>& task, int64_t runs, const T* grads, T* d_queries,
                          T* d_scales);

}  // namespace mmkgc::cpu
