// Aggregation before the transformation: one gather of a neighbour's row serves a group of bases,
// with sums in registers.
#include "rgcn_edges.h"

namespace mmkgc::cuda {
namespace {

constexpr int kAtOnce = 4;  // concurrent gathers

// Minimum per multiprocessor, so that a thread has up to 128 or 168 registers without spilling.
template <int Sums>
inline constexpr int kBlocks = Sums > 32 ? 3 : 4;

template <typename S, int V, int G>
__global__ void __launch_bounds__(kEdgeThreads, kBlocks<G * V>)
    sum_sources(const PropagateTask<S> task) {
  using T = Accumulator<S>;
  const int64_t groups = divide_up(task.bases, G);
  const RowSlices map{count_pieces(task.into) * groups, task.width, V};
  const int64_t warp = warp_index();
  if (warp >= map.warps()) return;
  const int lane = lane_index();
  const RowSlices::Place place = map.place_by_slice(warp, lane);
  const int64_t index = place.row / groups, basis = (place.row - index * groups) * G;
  const Piece piece = find_piece(task.into, index);
  if (piece.row < 0) return;
  const S* x = task.x + place.column;
  T sums[G][V] = {};
  for (int64_t at = piece.begin; at < piece.end; at += kWarp) {
    // Each lane reads one edge; all lanes then process its source.
    const LaneEdge<T> edge = look_up(task.into, at + lane, piece.end, "source", "relation");
    MMKGC_CHECK_VALUE("rgcn_propagate: ", edge.row >= 0 || at + lane >= piece.end, "entity ",
                      task.into.other[at + lane],
                      " has an edge into rows, but is missing from sources");
    const int64_t offset = edge.row >= 0 ? edge.row * task.width : -1;
    T weights[G];
    basis_weights(edge, task.coefficients, task.bases, basis, weights);
    const int n = static_cast<int>(piece.end - at < kWarp ? piece.end - at : kWarp);
    for (int i = 0; i < n; i += kAtOnce) {
      Packed<S, V> values[kAtOnce];
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) {
        const int64_t from = __shfl_sync(kAllLanes, offset, i + u);
        // Zeros without an edge: with a weight of 0, infinity would become NaN.
        values[u] = {};
        if (from >= 0 && place.inside) values[u] = load_packed<V>(x + from);
      }
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) {
#pragma unroll
        for (int k = 0; k < G; ++k) {
          const T weight = __shfl_sync(kAllLanes, weights[k], i + u);
#pragma unroll
          for (int v = 0; v < V; ++v) sums[k][v] += weight * to_float(values[u].x[v]);
        }
      }
    }
  }
  if (!place.inside) return;
  T* out = piece.slot < 0 ? task.out + piece.row * task.bases * task.width
                          : task.into.partial + piece.slot * task.bases * task.width;
#pragma unroll
  for (int k = 0; k < G; ++k) {
    if (basis + k < task.bases) {
      store_columns<V>(out + (basis + k) * task.width + place.column, sums[k]);
    }
  }
}

__global__ void __launch_bounds__(kEdgeThreads)
    place_each(const int64_t* ids, int64_t count, [[maybe_unused]] int64_t entities,
               [[maybe_unused]] bool sources, int64_t* place) {
  const int64_t i = thread_index();
  if (i >= count) return;
  MMKGC_CHECK_ID("rgcn_propagate: ", (sources ? "sources" : "rows"), i, ids[i], entities);
  place[ids[i]] = i;
}

template <typename T>
__global__ void __launch_bounds__(kEdgeThreads) own_parts(const EdgeRows<T> edges) {
  constexpr RunParts runs{kEdgePart};
  const int64_t part = thread_index();
  if (part >= runs.count(edges.edges)) return;
  const int64_t position = part * kEdgePart;
  const int64_t entity = upper_bound(edges.ptr + 1, edges.entities, position);
  const bool wanted = entity < edges.entities &&
                      runs.belongs(part, edges.ptr[entity], edges.ptr[entity + 1]) &&
                      (!edges.own.place || edges.own.place[entity] >= 0);
  edges.owner[part] = wanted ? entity : -1;
}

template <typename S, int V>
__global__ void __launch_bounds__(kEdgeThreads)
    add_in_order(const EdgeRows<Accumulator<S>> edges, int64_t columns, S* out) {
  using T = Accumulator<S>;
  constexpr RunParts runs{kEdgePart};
  const int64_t parts = runs.count(edges.edges);
  const RowSlices map{parts, columns, V};
  const int64_t warp = warp_index();
  if (warp >= map.warps()) return;
  const RowSlices::Place place = map.place(warp, lane_index());
  const int64_t first = place.row, entity = edges.owner[first];
  if (entity < 0 || runs.first(edges.ptr[entity]) != first || !place.inside) return;
  const int64_t end = edges.ptr[entity + 1];
  const T* of = edges.partial + place.column;
  const Packed<T, V> head = load_packed<V>(of + (parts + first) * columns);
  T sum[V];
#pragma unroll
  for (int v = 0; v < V; ++v) sum[v] = head.x[v];
#pragma unroll 4
  for (int64_t part = first; part * kEdgePart < end; ++part) {
    const Packed<T, V> next = load_packed<V>(of + part * columns);
#pragma unroll
    for (int v = 0; v < V; ++v) sum[v] += next.x[v];
  }
  const int64_t row = edges.own.place ? edges.own.place[entity] : entity;
  store_columns<V>(out + row * columns + place.column, sum);
}

}  // namespace

void place_rows(const int64_t* ids, int64_t count, int64_t entities, bool sources, int64_t* place,
                void* stream) {
  launch("rgcn_propagate: ", place_each, {blocks_for(count, kEdgeThreads), kEdgeThreads}, stream,
         ids, count, entities, sources, place);
}

template <typename T>
void find_owners(const EdgeRows<T>& edges, void* stream) {
  const int64_t parts = count_edge_parts(edges.edges);
  launch("rgcn_propagate: ", own_parts<T>, {blocks_for(parts, kEdgeThreads), kEdgeThreads}, stream,
         edges);
}

template <typename S>
void add_parts(const EdgeRows<Accumulator<S>>& edges, int64_t columns, S* out, void* stream) {
  constexpr int V = kWide<Accumulator<S>>;
  const auto run = [&](auto kernel, int vector) {
    const RowSlices map{count_edge_parts(edges.edges), columns, vector};
    launch("rgcn_propagate: ", kernel, {blocks_for(map.warps(), kEdgeThreads / kWarp), kEdgeThreads},
           stream, edges, columns, out);
  };
  const bool wide = columns % V == 0 && fits(edges.partial, V) && fits(out, V);
  wide ? run(add_in_order<S, V>, V) : run(add_in_order<S, 1>, 1);
}

template <typename S>
void propagate(const PropagateTask<S>& task, void* stream) {
  const int64_t columns = task.bases * task.width;
  if (columns == 0) return;
  constexpr int V = kWide<S>;
  find_owners(task.into, stream);
  const bool wide = task.width % V == 0 && fits(task.x, V) && fits(task.into.partial, V) &&
                    fits(task.out, V);
  with_group(task.bases, [&]<int G>() {
    const int64_t pieces = count_pieces(task.into) * divide_up(task.bases, G);
    const int64_t warps = RowSlices{pieces, task.width, wide ? V : 1}.warps();
    launch("rgcn_propagate: ", wide ? sum_sources<S, V, G> : sum_sources<S, 1, G>,
           {blocks_for(warps, kEdgeThreads / kWarp), kEdgeThreads}, stream, task);
  });
  add_parts(task.into, columns, task.out, stream);
}

#define MMKGC_INSTANTIATE(S)                                                                   \
  template void add_parts<S>(const EdgeRows<Accumulator<S>>&, int64_t, S*, void*);             \
  template void propagate<S>(const PropagateTask<S>&, void*);
MMKGC_INSTANTIATE(float)
MMKGC_INSTANTIATE(double)
MMKGC_INSTANTIATE(Half)
MMKGC_INSTANTIATE(BFloat16)
template void find_owners<float>(const EdgeRows<float>&, void*);
template void find_owners<double>(const EdgeRows<double>&, void*);

}  // namespace mmkgc::cuda
