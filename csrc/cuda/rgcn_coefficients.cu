// The gradient of the coefficients: sums over the edges of each relation, in double so that many
// small terms are summed accurately. Edges are sorted by relation; a warp sums a part of one
// relation.
#include "../common/mapping.h"
#include "rgcn_propagate.h"
#include "warp.h"

namespace mmkgc::cuda {
namespace {

constexpr int kThreads = 128;

// The sum of a lane's terms at positions [begin, end).
template <typename T>
__device__ __forceinline__ double sum_terms(const CoefficientsTask<T>& task, int64_t basis,
                                            int64_t begin, int64_t end) {
  double sum = 0;
  for (int64_t at = begin + lane_index(); at < end; at += kWarp) {
    const int64_t edge = task.order[at];
    double dot = 0;
#pragma unroll 4
    for (int64_t slice = 0; slice < task.slices; ++slice) {
      dot += static_cast<double>(task.dots[(slice * task.edges + edge) * task.bases + basis]);
    }
    sum += static_cast<double>(task.norm[edge]) * dot;
  }
  return sum;
}

template <typename T>
__global__ void __launch_bounds__(kThreads) sum_parts(const CoefficientsTask<T> task) {
  constexpr RunParts runs{kEdgePart};
  const int64_t warp = warp_index(), part = warp / task.bases, basis = warp - part * task.bases;
  if (part >= runs.count(task.edges)) return;
  const int64_t begin = part * kEdgePart, relation = task.relation[begin];
  if (begin == 0 || task.relation[begin - 1] != relation) return;
  const int64_t cut = runs.part_end(part, task.edges);
  const int64_t length = upper_bound(task.relation + begin, cut - begin, relation);
  const double sum = warp_sum(sum_terms(task, basis, begin, begin + length));
  if (lane_index() == 0) task.partial[part * task.bases + basis] = sum;
}

template <typename T>
__global__ void __launch_bounds__(kThreads) sum_relations(const CoefficientsTask<T> task) {
  constexpr RunParts runs{kEdgePart};
  const int64_t warp = warp_index(), relation = warp / task.bases;
  if (relation >= task.relations) return;
  const int64_t basis = warp - relation * task.bases;
  // Even lanes search for the begin, odd lanes for the end.
  const int64_t bound = lower_bound(task.relation, task.edges, relation + lane_index() % 2);
  const int64_t begin = __shfl_sync(kAllLanes, bound, 0), end = __shfl_sync(kAllLanes, bound, 1);
  double sum = sum_terms(task, basis, begin, runs.head_end(begin, end));
#pragma unroll 4
  for (int64_t part = runs.first(begin) + lane_index(); part * kEdgePart < end; part += kWarp) {
    sum += task.partial[part * task.bases + basis];
  }
  sum = warp_sum(sum);
  if (lane_index() == 0) task.out[warp] = static_cast<T>(sum);
}

}  // namespace

template <typename T>
void coefficients_gradient(const CoefficientsTask<T>& task, void* stream) {
  const auto run = [&](auto kernel, int64_t warps) {
    launch("rgcn_propagate: ", kernel, {blocks_for(warps, kThreads / kWarp), kThreads}, stream,
           task);
  };
  run(sum_parts<T>, count_edge_parts(task.edges) * task.bases);
  run(sum_relations<T>, task.relations * task.bases);
}

template void coefficients_gradient<float>(const CoefficientsTask<float>&, void*);
template void coefficients_gradient<double>(const CoefficientsTask<double>&, void*);

}  // namespace mmkgc::cuda
