// Gradients of queries and scales. A block works on a slice of the columns of one positive; its
// warps divide the candidates by side, and their sums are added in shared memory in a fixed order.
#include "../common/mapping.h"
#include "gradient_columns.h"

namespace mmkgc::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kBlocks = 4;  // minimum per multiprocessor: 128 registers without spilling

template <typename T, Metric M, int V, bool Whole, bool Scaled, Variable O>
__global__ void __launch_bounds__(kWarps * kWarp, kBlocks)
    own_rows(const SampledTask<T> task, const ScoreGradient<Accumulator<T>> grad,
             Accumulator<T>* out) {
  using A = Accumulator<T>;
  using Mine = Owned<M, V, Whole>;
  __shared__ A room[kWarps][Mine::kOwned * V][kWarp];
  const int64_t width = O == Variable::query ? task.query_width : task.candidate_width;
  const RowSlices map{task.batch, width / Mine::kOwned, V};
  const int lane = lane_index(), warp = warp_in_block();
  const RowSlices::Place place = map.place(blockIdx.x, lane);
  // Warps alternate between the two sides.
  const int sides = static_cast<int>(task.sides), side = warp % sides;
  const int share = warp / sides, shares = kWarps / sides;
  const int64_t b = place.row, row = side * task.batch + b, first = b * task.n;
  A sum[Mine::kOwned][V] = {};
  for (int p = 0; p < task.terms.n; ++p) {
    const auto term = task.terms.term[p];
    if (term.width == 0) continue;
    const auto at = Mine::place(place.column, O == Variable::query ? term.query : term.candidate,
                                term.width);
    A q[Mine::kParts][V], w[Mine::kParts][V], of_pair[Mine::kOwned][V] = {};
    Mine::load(task.queries + row * task.query_width + term.query + at.offset, at.other, q);
    Mine::fill(w, A(1));
    if constexpr (Scaled) {
      Mine::load(task.scale + row * task.candidate_width + term.candidate + at.offset, at.other, w);
    }
    const T* table = task.table + term.candidate + at.offset;
    for (int64_t base = share * kWarp; base < task.n; base += shares * kWarp) {
      // Each lane reads one candidate; all lanes then process those of this side.
      const int64_t i = base + lane, position = first + (i < task.n ? i : 0);
      const bool mine = i < task.n && task.corrupted_side[position] == side;
      const int64_t id = mine ? task.ids[position] : 0;
      const A g = mine ? weighted<M>(grad, position, p, task.batch * task.n, term.weight) : A(0);
      unsigned left = __ballot_sync(kAllLanes, mine);
      int from = 0;
      while (left) {
        A c[kAtOnce<V>][Mine::kParts][V], pulls[kAtOnce<V>];
#pragma unroll
        for (int u = 0; u < kAtOnce<V>; ++u) {
          const bool valid = left != 0;  // otherwise the last candidate is repeated and not used
          from = valid ? __ffs(left) - 1 : from;
          left &= left - 1;
          const int64_t candidate = __shfl_sync(kAllLanes, id, from);
          const A pulled = __shfl_sync(kAllLanes, g, from);
          pulls[u] = valid ? pulled : A(0);
          Mine::load(table + candidate * task.candidate_width, at.other, c[u]);
        }
#pragma unroll
        for (int u = 0; u < kAtOnce<V>; ++u) Mine::template add<O>(pulls[u], q, w, c[u], of_pair);
      }
    }
#pragma unroll
    for (int part = 0; part < Mine::kOwned; ++part) {
#pragma unroll
      for (int v = 0; v < V; ++v) sum[part][v] += at.covered ? of_pair[part][v] : A(0);
    }
  }
#pragma unroll
  for (int part = 0; part < Mine::kOwned; ++part) {
#pragma unroll
    for (int v = 0; v < V; ++v) room[warp][part * V + v][lane] = sum[part][v];
  }
  __syncthreads();
  if (share != 0 || !place.inside) return;
#pragma unroll
  for (int part = 0; part < Mine::kOwned; ++part) {
    for (int other = warp + sides; other < kWarps; other += sides) {
#pragma unroll
      for (int v = 0; v < V; ++v) sum[part][v] += room[other][part * V + v][lane];
    }
    store_columns<V>(out + row * width + part * map.columns + place.column, sum[part]);
  }
}

template <Variable O, typename T>
void run(const SampledTask<T>& task, const ScoreGradient<Accumulator<T>>& grad,
         Accumulator<T>* out, void* stream) {
  const int64_t width = O == Variable::query ? task.query_width : task.candidate_width;
  with_metric(task.metric, [&]<Metric M>() {
    with_owned<M>(task, [&]<int V, bool Whole, bool Scaled>() {
      // There is no gradient of a scale without a scale.
      if constexpr (O == Variable::query || Scaled) {
        const RowSlices map{task.batch, width / Owned<M, V, Whole>::kOwned, V};
        launch(task.op, own_rows<T, M, V, Whole, Scaled, O>, {map.warps(), kWarps * kWarp}, stream,
               task, grad, out);
      }
    });
  });
}

}  // namespace

template <typename T>
void query_gradient(const SampledTask<T>& task, const ScoreGradient<Accumulator<T>>& grad,
                    Accumulator<T>* d_queries, void* stream) {
  run<Variable::query>(task, grad, d_queries, stream);
}

template <typename T>
void scale_gradient(const SampledTask<T>& task, const ScoreGradient<Accumulator<T>>& grad,
                    Accumulator<T>* d_scale, void* stream) {
  run<Variable::scale>(task, grad, d_scale, stream);
}

#define MMKGC_INSTANTIATE(T)                                                                    \
  template void query_gradient<T>(const SampledTask<T>&, const ScoreGradient<Accumulator<T>>&,  \
                                  Accumulator<T>*, void*);                                      \
  template void scale_gradient<T>(const SampledTask<T>&, const ScoreGradient<Accumulator<T>>&,  \
                                  Accumulator<T>*, void*);
MMKGC_INSTANTIATE(float)
MMKGC_INSTANTIATE(double)
MMKGC_INSTANTIATE(Half)
MMKGC_INSTANTIATE(BFloat16)

}  // namespace mmkgc::cuda
