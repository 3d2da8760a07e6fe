// Shared parts of the kernels of rgcn_propagate: the edges of a warp, and the edge of a lane.
#pragma once

#include "check.h"
#include "packed.h"
#include "rgcn_propagate.h"
#include "warp.h"

namespace mmkgc::cuda {

inline constexpr int kEdgeThreads = 128;

// Fills edges.owner, which the other kernels over these edges need.
template <typename T>
void find_owners(const EdgeRows<T>& edges, void* stream);

// Adds the partial sums of rows with several pieces to `out` [rows, columns], after all pieces.
template <typename S>
void add_parts(const EdgeRows<Accumulator<S>>& edges, int64_t columns, S* out, void* stream);

// Neighbouring edges that are summed by one warp.
struct Piece {
  int64_t row;    // -1 if none of these edges is needed
  int64_t begin;
  int64_t end;
  int64_t slot;   // of the partial sum, or -1 if the piece has all edges of the row
};

// Parts come before rows, so that long pieces do not start last.
template <typename T>
MMKGC_HD int64_t count_pieces(const EdgeRows<T>& edges) {
  return RunParts{kEdgePart}.count(edges.edges) + edges.own.count;
}

template <typename T>
__device__ __forceinline__ Piece find_piece(const EdgeRows<T>& edges, int64_t index) {
  constexpr RunParts runs{kEdgePart};
  const int64_t parts = runs.count(edges.edges);
  if (index < parts) {
    const int64_t entity = edges.owner[index];
    if (entity < 0) return {-1, 0, 0, -1};
    const int64_t row = edges.own.place ? edges.own.place[entity] : entity;
    return {row, index * kEdgePart, runs.part_end(index, edges.ptr[entity + 1]), index};
  }
  const int64_t row = index - parts, entity = edges.own.ids ? edges.own.ids[row] : row;
  const int64_t begin = edges.ptr[entity], end = edges.ptr[entity + 1];
  const int64_t cut = runs.head_end(begin, end);
  return {row, begin, cut, cut < end ? parts + runs.first(begin) : -1};
}

template <typename T>
struct LaneEdge {
  int64_t row;       // of the entity at the other end, or -1 without a row or an edge
  int64_t relation;
  T norm;
};

template <typename T>
__device__ __forceinline__ LaneEdge<T> look_up(const EdgeRows<T>& edges, int64_t edge, int64_t end,
                                               [[maybe_unused]] const char* other_name,
                                               [[maybe_unused]] const char* relation_name) {
  if (edge >= end) return {-1, 0, T(0)};
  const int64_t other = edges.other[edge], relation = edges.relation[edge];
  MMKGC_CHECK_ID("rgcn_propagate: ", other_name, edge, other, edges.entities);
  MMKGC_CHECK_ID("rgcn_propagate: ", relation_name, edge, relation, edges.relations);
  return {edges.others.place ? edges.others.place[other] : other, relation, edges.norm[edge]};
}

// The weights of G bases from `basis`; 0 beyond the last basis.
template <int G, typename T>
__device__ __forceinline__ void basis_weights(const LaneEdge<T>& edge, const T* coefficients,
                                              int64_t bases, int64_t basis, T (&weights)[G]) {
  const T* basis_row = coefficients + edge.relation * bases + basis;
#pragma unroll
  for (int k = 0; k < G; ++k) {
    weights[k] = edge.row >= 0 && basis + k < bases ? edge.norm * basis_row[k] : T(0);
  }
}

// The smallest group size for all bases, at most 8, as a template argument.
template <typename Use>
void with_group(int64_t bases, Use use) {
  if (bases <= 1) return use.template operator()<1>();
  if (bases <= 2) return use.template operator()<2>();
  if (bases <= 4) return use.template operator()<4>();
  return use.template operator()<8>();
}

}  // namespace mmkgc::cuda
