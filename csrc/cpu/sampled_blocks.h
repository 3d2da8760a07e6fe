// Scores of sampled candidates and the gradients of their queries, a block of columns at a time.
//
// Every candidate row is wanted by a few queries from all over the batch. Going candidate by
// candidate in sorted order, the table streams by once and it is the queries that are looked up at
// random; a block of their columns, packed, fits the second cache, whatever the size of the graph.
#pragma once

#include <cstdint>
#include <vector>

#include "../common/metric.h"
#include "sampled_score.h"

namespace mmkgc::cpu {

inline constexpr int64_t kBlock = 32;  // columns of a block: 16 real parts and 16 imaginary ones

// Columns of one pair: `width` of them at `query` and `candidate`, and under modulus as many again
// `half` further on.
struct Block {
  int64_t pair;
  int64_t query;
  int64_t candidate;
  int64_t width;
  int64_t half;
};

std::vector<Block> make_blocks(const Pair* pairs, int64_t n_pairs, Metric metric);

// What one block works on. `where[i]` is the query row that the i-th candidate in sorted order meets.
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

// Copies the columns of a block out of rows [n, row_width], those of the query or of the candidate.
template <typename T>
void pack_rows(const T* rows, int64_t n, int64_t row_width, const Block& block, bool of_candidate,
               T* packed);

// Adds packed columns back to where they came from.
template <typename T>
void unpack_rows(const T* packed, int64_t n, int64_t row_width, const Block& block,
                 bool of_candidate, T* rows);

// terms[i - origin] of the candidates i of the runs [begin, end): what the block adds to the sum of
// its pair, without sign and weight, and under l2 before the root.
template <typename T>
void block_terms(const BlockTask<T>& task, int64_t begin, int64_t end, int64_t origin, T* terms);

// Adds the gradients of all runs to d_queries and, where scaled, d_scales [rows, kBlock]. grads[i] is
// d(loss)/d(score) times the weight of the pair, and under l2 over the norm of the difference.
template <typename T>
void block_query_gradient(const BlockTask<T>& task, int64_t runs, const T* grads, T* d_queries,
                          T* d_scales);

}  // namespace mmkgc::cpu
