// Scores: a warp works on four candidates of one positive. Each lane keeps its columns of the
// queries of both sides and streams those of the candidates, with eight concurrent loads of 16
// bytes.
#include "../common/mapping.h"
#include "../common/sampled_terms.h"
#include "check.h"
#include "columns.h"

namespace mmkgc::cuda {
namespace {

constexpr int kGroup = 4;  // candidates per warp
constexpr int kWarps = 8;  // per block
// Minimum per multiprocessor: 128 or 255 registers per thread, without spilling.
template <typename A>
constexpr int kBlocks = sizeof(A) == 8 ? 1 : 2;

template <typename T, Metric M, int V, bool Scaled>
__global__ void __launch_bounds__(kWarps * kWarp, kBlocks<Accumulator<T>>)
    score(const SampledTask<T> task, Accumulator<T>* scores) {
  using A = Accumulator<T>;
  constexpr int kParts = M == Metric::modulus ? 2 : 1;
  const RowGroups map{task.batch, task.n, kGroup};
  const int64_t warp = warp_index();
  if (warp >= map.warps()) return;
  const RowGroups::Place place = map.place(warp);
  const int lane = lane_index();
  const T* rows[kGroup];
  bool second[kGroup];
#pragma unroll
  for (int g = 0; g < kGroup; ++g) {
    const int64_t i = place.first + g < task.n ? place.first + g : task.n - 1;
    const int64_t at = place.row * task.n + i, id = task.ids[at];
    MMKGC_CHECK_ID(task.op, "ids", at, id, task.entities);
    MMKGC_CHECK_ID(task.op, "corrupted_side", at, task.corrupted_side[at], task.sides);
    rows[g] = task.table + id * task.candidate_width;
    second[g] = task.corrupted_side[at] != 0;
  }
  const int64_t of_second = task.sides == 2 ? task.batch : 0;
  const A* queries[2] = {task.queries + place.row * task.query_width,
                         task.queries + (of_second + place.row) * task.query_width};
  A total[kGroup] = {}, total_of_roots = 0;
  for (int p = 0; p < task.terms.n; ++p) {
    const auto term = task.terms.term[p];
    const int columns = term.width / kParts;
    A sum[kGroup] = {};
    for (int k = lane * V; k < columns; k += kWarp * V) {
      A q[2][kParts][V], c[kGroup][kParts][V], w[2][kParts][V];
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        const int offset = k + part * columns;
#pragma unroll
        for (int g = 0; g < kGroup; ++g) {
          load_columns<V>(rows[g] + term.candidate + offset, c[g][part]);
        }
#pragma unroll
        for (int s = 0; s < 2; ++s) {
          load_columns<V>(queries[s] + term.query + offset, q[s][part]);
          if constexpr (Scaled) {
            const A* scale = task.scale + (s * of_second + place.row) * task.candidate_width;
            load_columns<V>(scale + term.candidate + offset, w[s][part]);
          }
        }
      }
#pragma unroll
      for (int g = 0; g < kGroup; ++g) {
#pragma unroll
        for (int v = 0; v < V; ++v) {
          A x[kParts], y[kParts];
#pragma unroll
          for (int part = 0; part < kParts; ++part) {
            x[part] = second[g] ? q[1][part][v] : q[0][part][v];
            if constexpr (Scaled) y[part] = second[g] ? w[1][part][v] : w[0][part][v];
            else y[part] = 1;
          }
          if constexpr (M == Metric::modulus) {
            sum[g] += complex_term(x[0] - y[0] * c[g][0][v], x[1] - y[1] * c[g][1][v]);
          } else {
            sum[g] += real_term<M>(x[0], y[0], c[g][0][v]);
          }
        }
      }
    }
    const A weight = M == Metric::dot ? term.weight : -term.weight;
    if constexpr (M == Metric::l2) {
      total_of_roots += weight * root(warp_sums<kGroup>(sum));
    } else {
#pragma unroll
      for (int g = 0; g < kGroup; ++g) total[g] += weight * sum[g];
    }
  }
  const A result = M == Metric::l2 ? total_of_roots : warp_sums<kGroup>(total);
  constexpr int kLanesEach = kWarp / kGroup;
  const int64_t i = place.first + lane / kLanesEach;
  if (lane % kLanesEach == 0 && i < task.n) scores[place.row * task.n + i] = result;
}

// One warp per candidate: l2 is rare, and this runs once per backward pass.
template <typename T>
__global__ void __launch_bounds__(kWarps * kWarp, kBlocks<Accumulator<T>>)
    factor(const SampledTask<T> task, const Accumulator<T>* grad, Accumulator<T>* factors) {
  using A = Accumulator<T>;
  const int64_t at = warp_index(), n = task.batch * task.n;
  if (at >= n) return;
  MMKGC_CHECK_ID(task.op, "ids", at, task.ids[at], task.entities);
  MMKGC_CHECK_ID(task.op, "corrupted_side", at, task.corrupted_side[at], task.sides);
  const int64_t where = task.corrupted_side[at] * task.batch + at / task.n;
  const A* q = task.queries + where * task.query_width;
  const A* w = task.scale ? task.scale + where * task.candidate_width : nullptr;
  const T* c = task.table + task.ids[at] * task.candidate_width;
  for (int p = 0; p < task.terms.n; ++p) {
    const auto term = task.terms.term[p];
    A squares = 0;
    for (int k = lane_index(); k < term.width; k += kWarp) {
      const A scale = w ? w[term.candidate + k] : A(1);
      squares += real_term<Metric::l2>(q[term.query + k], scale, to_float(c[term.candidate + k]));
    }
    squares = warp_sum(squares);
    if (lane_index() == 0) {
      factors[p * n + at] = term.weight * grad[at] / root(at_least_normal(squares));
    }
  }
}

}  // namespace

template <typename T>
void sampled_scores(const SampledTask<T>& task, Accumulator<T>* scores, void* stream) {
  const RowGroups map{task.batch, task.n, kGroup};
  const Shape shape{blocks_for(map.warps(), kWarps), kWarps * kWarp};
  with_metric(task.metric, [&]<Metric M>() {
    with_vector(task, [&]<int V, bool Scaled>() {
      launch(task.op, score<T, M, V, Scaled>, shape, stream, task, scores);
    });
  });
}

template <typename T>
void sampled_factors(const SampledTask<T>& task, const Accumulator<T>* grad,
                     Accumulator<T>* factors, void* stream) {
  const Shape shape{blocks_for(task.batch * task.n, kWarps), kWarps * kWarp};
  launch(task.op, factor<T>, shape, stream, task, grad, factors);
}

#define MMKGC_INSTANTIATE(T)                                                                 \
  template void sampled_scores<T>(const SampledTask<T>&, Accumulator<T>*, void*);            \
  template void sampled_factors<T>(const SampledTask<T>&, const Accumulator<T>*, Accumulator<T>*, \
                                   void*);
MMKGC_INSTANTIATE(float)
MMKGC_INSTANTIATE(double)
MMKGC_INSTANTIATE(Half)
MMKGC_INSTANTIATE(BFloat16)

}  // namespace mmkgc::cuda
