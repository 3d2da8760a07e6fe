// The sums over transposed edges: one gather of a target's gradient serves the gradient of x and,
// by its products with x, that of the coefficients.
#include "rgcn_edges.h"

namespace mmkgc::cuda {
namespace {

constexpr int kAtOnce = 8;  // concurrent gathers, of a group of bases for some edges
constexpr int kBlocks = 4;  // minimum per multiprocessor: up to 128 registers without spilling

template <typename S, int V, int G>
__global__ void __launch_bounds__(kEdgeThreads, kBlocks)
    sum_targets(const PropagateBackwardTask<S> task) {
  using T = Accumulator<S>;
  constexpr int kEdges = kAtOnce / G, kLanes = kWarp / kAtOnce;
  const RowSlices map{count_pieces(task.from), task.width, V};
  const int64_t warp = warp_index();
  if (warp >= map.warps()) return;
  const int lane = lane_index();
  const RowSlices::Place place = map.place_by_slice(warp, lane);
  const Piece piece = find_piece(task.from, place.row);
  if (piece.row < 0) return;
  // The edge and basis of the product that the lane writes.
  const int writes_edge = lane / kLanes / G, writes_basis = lane / kLanes % G;
  T* dots = task.dots;
  if (dots) dots += map.slice_by_slice(warp) * task.from.edges * task.bases;
  const T* grad = task.grad + place.column;
  Packed<S, V> x{};
  if (dots && place.inside) {
    x = load_packed<V>(task.x + piece.row * task.width + place.column);
  }
  T sum[V] = {};
  for (int64_t at = piece.begin; at < piece.end; at += kWarp) {
    // Each lane reads one edge; all lanes then process the targets that have a row.
    const LaneEdge<T> edge =
        look_up(task.from, at + lane, piece.end, "back_target", "back_relation");
    const int64_t offset = edge.row >= 0 ? edge.row * task.bases * task.width : -1;
    const unsigned wanted = __ballot_sync(kAllLanes, edge.row >= 0);
    // A lane without an edge, to fill up the last step. It is not needed if all lanes have one.
    const int unused = __ffs(~wanted) - 1;
    for (int64_t basis = 0; basis < task.bases; basis += G) {
      T weights[G];
      basis_weights(edge, task.coefficients, task.bases, basis, weights);
      for (unsigned left = wanted; left;) {
        int from[kEdges];
        const T* rows[kEdges];
        bool full = basis + G <= task.bases;
#pragma unroll
        for (int u = 0; u < kEdges; ++u) {
          full = full && left;
          from[u] = left ? __ffs(left) - 1 : unused;
          left &= left - 1;
          const int64_t row = __shfl_sync(kAllLanes, offset, from[u]);
          rows[u] = row >= 0 ? grad + row + basis * task.width : nullptr;
        }
        Packed<T, V> values[kEdges][G];
        if (full) {  // unconditional loads can overlap
#pragma unroll
          for (int u = 0; u < kEdges; ++u) {
#pragma unroll
            for (int k = 0; k < G; ++k) values[u][k] = load_packed<V>(rows[u] + k * task.width);
          }
        } else {
#pragma unroll
          for (int u = 0; u < kEdges; ++u) {
#pragma unroll
            for (int k = 0; k < G; ++k) {
              values[u][k] = {};
              if (rows[u] && basis + k < task.bases) {
                values[u][k] = load_packed<V>(rows[u] + k * task.width);
              }
            }
          }
        }
#pragma unroll
        for (int u = 0; u < kEdges; ++u) {
#pragma unroll
          for (int k = 0; k < G; ++k) {
            const T weight = __shfl_sync(kAllLanes, weights[k], from[u]);
#pragma unroll
            for (int v = 0; v < V; ++v) sum[v] += weight * values[u][k].x[v];
          }
        }
        if (!dots) continue;
        T products[kAtOnce] = {};
        int mine = unused;
#pragma unroll
        for (int u = 0; u < kEdges; ++u) {
          mine = writes_edge == u ? from[u] : mine;
#pragma unroll
          for (int k = 0; k < G; ++k) {
            T& product = products[u * G + k];
#pragma unroll
            for (int v = 0; v < V; ++v) product += to_float(x.x[v]) * values[u][k].x[v];
            product = place.inside ? product : T(0);  // 0 times infinity is NaN
          }
        }
        const T product = warp_sums(products);
        const bool counts = mine >= 0 && (wanted >> mine & 1u) && basis + writes_basis < task.bases;
        if (lane % kLanes == 0 && counts) {
          dots[(at + mine) * task.bases + basis + writes_basis] = product;
        }
      }
    }
  }
  if (!task.d_x || !place.inside) return;
  if (piece.slot < 0) {
    store_columns<V>(task.d_x + piece.row * task.width + place.column, sum);
  } else {
    store_columns<V>(task.from.partial + piece.slot * task.width + place.column, sum);
  }
}

// The number of columns that a lane loads at once: 16 bytes of a gradient, or one column.
template <typename S>
int columns_at_once(const PropagateBackwardTask<S>& task) {
  constexpr int V = kWide<Accumulator<S>>;
  const bool wide = task.width % V == 0 && fits(task.grad, V) && fits(task.x, V) &&
                    fits(task.d_x, V) && fits(task.from.partial, V);
  return wide ? V : 1;
}

}  // namespace

template <typename S>
int64_t count_dot_slices(const PropagateBackwardTask<S>& task) {
  return RowSlices{0, task.width, columns_at_once(task)}.slices();
}

template <typename S>
void propagate_backward(const PropagateBackwardTask<S>& task, void* stream) {
  constexpr int V = kWide<Accumulator<S>>;
  const int vector = columns_at_once(task);
  const int64_t warps = RowSlices{count_pieces(task.from), task.width, vector}.warps();
  find_owners(task.from, stream);
  with_group(task.bases, [&]<int G>() {
    launch("rgcn_propagate: ", vector == V ? sum_targets<S, V, G> : sum_targets<S, 1, G>,
           {blocks_for(warps, kEdgeThreads / kWarp), kEdgeThreads}, stream, task);
  });
  if (task.d_x) add_parts(task.from, task.width, task.d_x, stream);
}

#define MMKGC_INSTANTIATE(S)                                                \
  template int64_t count_dot_slices<S>(const PropagateBackwardTask<S>&);    \
  template void propagate_backward<S>(const PropagateBackwardTask<S>&, void*);
MMKGC_INSTANTIATE(float)
MMKGC_INSTANTIATE(double)
MMKGC_INSTANTIATE(Half)
MMKGC_INSTANTIATE(BFloat16)

}  // namespace mmkgc::cuda
