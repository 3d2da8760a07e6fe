// The gradient of a table, entity by entity over candidates in sorted order, without atomics. A
// warp works on a slice of one row, keeps its columns, and streams the queries of its candidates.
// Long runs of candidates are cut into parts, which other warps sum before. A row is written, or
// stepped by Adam, once.
#include "../common/mapping.h"
#include "check.h"
#include "gradient_columns.h"

namespace mmkgc::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kBlocks = 4;  // minimum per multiprocessor: 128 registers without spilling
constexpr int kThreads = 256;
constexpr int kSumThreads = 1024;

// The input of all kernels of the pass.
template <typename T>
struct Pass {
  using A = Accumulator<T>;
  SampledTask<T> task;
  SortedCandidates<A> sorted;
  A* partial;  // [parts, candidate_width]
};

// Sums of the gradient over the candidates [begin, end) of one entity.
template <typename T, Metric M, int V, bool Whole, bool Scaled>
__device__ __forceinline__ void sum_run(const Pass<T>& pass, int64_t entity, int64_t begin,
                                        int64_t end, int64_t column,
                                        Accumulator<T> (&sum)[Owned<M, V, Whole>::kOwned][V]) {
  using A = Accumulator<T>;
  using Mine = Owned<M, V, Whole>;
  const SampledTask<T>& task = pass.task;
  const int lane = lane_index();
  for (int p = 0; p < task.terms.n; ++p) {
    const auto term = task.terms.term[p];
    if (term.width == 0) continue;
    const auto at = Mine::place(column, term.candidate, term.width);
    A c[Mine::kParts][V], of_pair[Mine::kOwned][V] = {};
    Mine::load(task.table + entity * task.candidate_width + term.candidate + at.offset, at.other, c);
    const A* queries = task.queries + term.query + at.offset;
    for (int64_t base = begin; base < end; base += kWarp) {
      const int64_t i = base + lane;
      const int count = end - base < kWarp ? static_cast<int>(end - base) : kWarp;
      const int where = lane < count ? pass.sorted.where[i] : 0;
      A g = 0;
      if (lane < count) {
        g = M == Metric::l2 ? pass.sorted.factors[p * pass.sorted.n + pass.sorted.order[i]]
                            : term.weight * pass.sorted.grad[i];
      }
      for (int next = 0; next < count; next += kAtOnce<V>) {
        A q[kAtOnce<V>][Mine::kParts][V], w[kAtOnce<V>][Mine::kParts][V], pulls[kAtOnce<V>];
#pragma unroll
        for (int u = 0; u < kAtOnce<V>; ++u) {
          const bool valid = next + u < count;  // otherwise the last query is repeated and not used
          const int from = valid ? next + u : count - 1;
          const int64_t row = __shfl_sync(kAllLanes, where, from);
          const A pulled = __shfl_sync(kAllLanes, g, from);
          pulls[u] = valid ? pulled : A(0);
          Mine::load(queries + row * task.query_width, at.other, q[u]);
          Mine::fill(w[u], A(1));
          if constexpr (Scaled) {
            const A* scale = task.scale + term.candidate + at.offset;
            Mine::load(scale + row * task.candidate_width, at.other, w[u]);
          }
        }
#pragma unroll
        for (int u = 0; u < kAtOnce<V>; ++u) {
          Mine::template add<Variable::candidate>(pulls[u], q[u], w[u], c, of_pair);
        }
      }
    }
#pragma unroll
    for (int part = 0; part < Mine::kOwned; ++part) {
#pragma unroll
      for (int v = 0; v < V; ++v) sum[part][v] += at.covered ? of_pair[part][v] : A(0);
    }
  }
}

template <typename T, Metric M, int V, bool Whole, bool Scaled>
__global__ void __launch_bounds__(kWarps * kWarp, kBlocks) sum_parts(const Pass<T> pass) {
  using A = Accumulator<T>;
  using Mine = Owned<M, V, Whole>;
  const int64_t width = pass.task.candidate_width;
  const RunParts parts{kPartLength};
  const RowSlices map{parts.count(pass.sorted.n), width / Mine::kOwned, V};
  const int64_t warp = warp_index();
  if (warp >= map.warps()) return;
  const RowSlices::Place place = map.place(warp, lane_index());
  const int64_t begin = place.row * parts.length, entity = pass.sorted.entity[begin];
  const int64_t start = pass.sorted.starts[entity], end = pass.sorted.starts[entity + 1];
  if (!parts.belongs(place.row, start, end)) return;  // the head of a run
  A sum[Mine::kOwned][V] = {};
  sum_run<T, M, V, Whole, Scaled>(pass, entity, begin, parts.part_end(place.row, end), place.column,
                                  sum);
  if (!place.inside) return;
#pragma unroll
  for (int part = 0; part < Mine::kOwned; ++part) {
    store_columns<V>(pass.partial + place.row * width + part * map.columns + place.column, sum[part]);
  }
}

template <int V, typename A>
__device__ __forceinline__ void add_columns(const A* from, A (&to)[V]) {
  A x[V];
  load_columns<V>(from, x);
#pragma unroll
  for (int v = 0; v < V; ++v) to[v] += x[v];
}

// Writes the columns of a row.
template <typename T>
struct Write {
  T* d_table;

  template <int V>
  __device__ __forceinline__ double finish(int64_t at, const Accumulator<T> (&sum)[V]) const {
    store_columns<V>(d_table + at, sum);
    return 0;
  }

  __device__ __forceinline__ void done(int64_t, double) const {}
};

// Steps the columns of a row; returns the sum of the squares of their gradients.
template <typename A>
struct Step {
  AdamTask<A> adam;

  template <int V>
  __device__ __forceinline__ double finish(int64_t at, const A (&sum)[V]) const {
    const AdamStep<A> step = adam.device_step ? *adam.device_step : adam.step;
    A g[V], value[V], mean[V], square[V];
    double squares = 0;
    load_columns<V>(adam.table + at, value);
    load_columns<V>(adam.mean + at, mean);
    load_columns<V>(adam.square + at, square);
#pragma unroll
    for (int v = 0; v < V; ++v) g[v] = sum[v];
    if (adam.dense) add_columns<V>(adam.dense + at, g);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      squares += static_cast<double>(g[v]) * g[v];
      if (step.penalty == 0) adam_update<false>(g[v], step, value + v, mean + v, square + v);
      else adam_update<true>(g[v], step, value + v, mean + v, square + v);
    }
    store_columns<V>(adam.table + at, value);
    store_columns<V>(adam.mean + at, mean);
    store_columns<V>(adam.square + at, square);
    return squares;
  }

  __device__ __forceinline__ void done(int64_t warp, double squares) const {
    squares = warp_sum(squares);
    if (lane_index() == 0) adam.squares[warp] = squares;
  }
};

template <typename T, Metric M, int V, bool Whole, bool Scaled, typename Finish>
__global__ void __launch_bounds__(kWarps * kWarp, kBlocks)
    sum_rows(const Pass<T> pass, const ExtraRows<Accumulator<T>> extra, const Finish finish) {
  using A = Accumulator<T>;
  using Mine = Owned<M, V, Whole>;
  const int64_t width = pass.task.candidate_width;
  const RunParts parts{kPartLength};
  const RowSlices map{pass.task.entities, width / Mine::kOwned, V};
  const int64_t warp = warp_index();
  if (warp >= map.warps()) return;
  const RowSlices::Place place = map.place(warp, lane_index());
  const int64_t e = place.row;
  const int64_t begin = pass.sorted.starts[e], end = pass.sorted.starts[e + 1];
  A sum[Mine::kOwned][V] = {};
  if (begin < end) {
    sum_run<T, M, V, Whole, Scaled>(pass, e, begin, parts.head_end(begin, end), place.column, sum);
    for (int64_t part = parts.first(begin); part * parts.length < end; ++part) {
      const A* from = pass.partial + part * width + place.column;
#pragma unroll
      for (int owned = 0; owned < Mine::kOwned; ++owned) {
        add_columns<V>(from + owned * map.columns, sum[owned]);
      }
    }
  }
  if (extra.rows) {
    for (int64_t i = extra.starts[e]; i < extra.starts[e + 1]; ++i) {
      const A* from = extra.rows + extra.order[i] * width + place.column;
#pragma unroll
      for (int owned = 0; owned < Mine::kOwned; ++owned) {
        add_columns<V>(from + owned * map.columns, sum[owned]);
      }
    }
  }
  double squares = 0;
  if (place.inside) {
#pragma unroll
    for (int owned = 0; owned < Mine::kOwned; ++owned) {
      squares += finish.template finish<V>(e * width + owned * map.columns + place.column,
                                           sum[owned]);
    }
  }
  finish.done(warp, squares);
}

// Adam with a gradient in memory.
template <typename A>
__global__ void __launch_bounds__(kThreads)
    step_rows(const A* gradient, int64_t n, const Step<A> step) {
  const int64_t at = thread_index();
  double squares = 0;
  if (at < n) {
    const A g[1] = {gradient[at]};
    squares = step.template finish<1>(at, g);
  }
  step.done(warp_index(), squares);
}

template <typename A>
__global__ void __launch_bounds__(kWarp)
    make_step(const AdamSettings settings, const int64_t* counter, AdamStep<A>* step) {
  if (threadIdx.x == 0) *step = settings.after<A>(*counter);
}

// The sum of `n` numbers in a fixed order, by one block.
__global__ void __launch_bounds__(kSumThreads) sum_squares(const double* squares, int64_t n, double* out) {
  __shared__ double room[kSumThreads / kWarp];
  double sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += kSumThreads) sum += squares[i];
  sum = block_sum<kSumThreads>(sum, room);
  if (threadIdx.x == 0) *out = sum;
}

// Returns the number of warps with rows.
template <typename T, typename Finish>
int64_t run(const Pass<T>& pass, const ExtraRows<Accumulator<T>>& extra, const Finish& finish,
            void* stream) {
  const SampledTask<T>& task = pass.task;
  int64_t warps = 0;
  with_metric(task.metric, [&]<Metric M>() {
    with_owned<M>(task, [&]<int V, bool Whole, bool Scaled>() {
      const int64_t columns = task.candidate_width / Owned<M, V, Whole>::kOwned;
      const RowSlices parts{RunParts{kPartLength}.count(pass.sorted.n), columns, V};
      const RowSlices rows{task.entities, columns, V};
      launch(task.op, sum_parts<T, M, V, Whole, Scaled>,
             {blocks_for(parts.warps(), kWarps), kWarps * kWarp}, stream, pass);
      launch(task.op, sum_rows<T, M, V, Whole, Scaled, Finish>,
             {blocks_for(rows.warps(), kWarps), kWarps * kWarp}, stream, pass, extra, finish);
      warps = rows.warps();
    });
  });
  return warps;
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    describe(const SampledTask<T> task, const int64_t* order, const Accumulator<T>* grad,
             int32_t* entity, int32_t* where, Accumulator<T>* sorted) {
  const int64_t i = thread_index();
  if (i >= task.batch * task.n) return;
  const int64_t position = order[i];
  MMKGC_CHECK_ID(task.op, "order", i, position, task.batch * task.n);
  MMKGC_CHECK_ID(task.op, "ids", position, task.ids[position], task.entities);
  MMKGC_CHECK_VALUE(task.op,
                    i == 0 || task.ids[order[i - 1]] < task.ids[position] ||
                        (task.ids[order[i - 1]] == task.ids[position] && order[i - 1] < position),
                    "order does not sort the ids at entry ", i, "");
  entity[i] = static_cast<int32_t>(task.ids[position]);
  where[i] = static_cast<int32_t>(task.corrupted_side[position] * task.batch + position / task.n);
  sorted[i] = grad[position];  // read once here instead of by every slice of a row
}

template <typename Integer>
__global__ void __launch_bounds__(kThreads)
    find_starts(const char* op, const char* name, const Integer* sorted, const int64_t* order,
                int64_t n, int64_t ids, int64_t* starts) {
  const int64_t i = thread_index();
#if MMKGC_CHECKED
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t at = i; at < n; at += threads) {
    MMKGC_CHECK_ID(op, name, order[at], sorted[at], ids);
  }
#endif
  if (i > ids) return;
  starts[i] = i == ids ? n : lower_bound(sorted, n, static_cast<Integer>(i));
}

}  // namespace

template <typename T>
void table_gradient(const SampledTask<T>& task, const SortedCandidates<Accumulator<T>>& sorted,
                    const ExtraRows<Accumulator<T>>& extra, Accumulator<T>* partial, T* d_table,
                    void* stream) {
  run(Pass<T>{task, sorted, partial}, extra, Write<T>{d_table}, stream);
}

template <typename A>
void adam_step_at(const char* op, const AdamSettings& settings, const int64_t* counter,
                  AdamStep<A>* step, void* stream) {
  launch(op, make_step<A>, {1, kWarp}, stream, settings, counter, step);
}

template <typename A>
bool steps_in_two(const SampledTask<A>& task) {
  // A lane must not read columns after another lane has stepped them.
  return task.metric == Metric::modulus && !(is_whole(task) && !task.scale && allows(task, 2));
}

template <typename A>
int64_t count_squares(const SampledTask<A>& task) {
  // Loads of one column need the most slices.
  const RowSlices map{task.entities, task.candidate_width, 1};
  const int64_t in_two =
      blocks_for(task.entities * task.candidate_width, kThreads) * (kThreads / kWarp);
  return map.warps() > in_two ? map.warps() : in_two;
}

template <typename A>
void table_adam(const SampledTask<A>& task, const SortedCandidates<A>& sorted,
                const ExtraRows<A>& extra, A* partial, A* gradient, const AdamTask<A>& adam,
                double* squares, void* stream) {
  const Pass<A> pass{task, sorted, partial};
  int64_t warps;  // with one sum of squares each
  if (steps_in_two(task)) {
    run(pass, extra, Write<A>{gradient}, stream);
    const int64_t n = task.entities * task.candidate_width, blocks = blocks_for(n, kThreads);
    launch(task.op, step_rows<A>, {blocks, kThreads}, stream, gradient, n, Step<A>{adam});
    warps = blocks * (kThreads / kWarp);
  } else {
    warps = run(pass, extra, Step<A>{adam}, stream);
  }
  launch(task.op, sum_squares, {1, kSumThreads}, stream, adam.squares, warps, squares);
}

template <typename T>
void describe_sorted(const SampledTask<T>& task, const int64_t* order, const Accumulator<T>* grad,
                     int32_t* entity, int32_t* where, Accumulator<T>* sorted, void* stream) {
  launch(task.op, describe<T>, {blocks_for(task.batch * task.n, kThreads), kThreads}, stream, task,
         order, grad, entity, where, sorted);
}

template <typename Integer>
void run_starts(const char* op, const char* name, const Integer* sorted, const int64_t* order,
                int64_t n, int64_t ids, int64_t* starts, void* stream) {
  launch(op, find_starts<Integer>, {blocks_for(ids + 1, kThreads), kThreads}, stream, op, name,
         sorted, order, n, ids, starts);
}

template void run_starts<int32_t>(const char*, const char*, const int32_t*, const int64_t*, int64_t,
                                  int64_t, int64_t*, void*);
template void run_starts<int64_t>(const char*, const char*, const int64_t*, const int64_t*, int64_t,
                                  int64_t, int64_t*, void*);

#define MMKGC_INSTANTIATE(T)                                                                      \
  template void table_gradient<T>(const SampledTask<T>&, const SortedCandidates<Accumulator<T>>&, \
                                  const ExtraRows<Accumulator<T>>&, Accumulator<T>*, T*, void*);  \
  template void describe_sorted<T>(const SampledTask<T>&, const int64_t*, const Accumulator<T>*,  \
                                   int32_t*, int32_t*, Accumulator<T>*, void*);
MMKGC_INSTANTIATE(float)
MMKGC_INSTANTIATE(double)
MMKGC_INSTANTIATE(Half)
MMKGC_INSTANTIATE(BFloat16)

#define MMKGC_INSTANTIATE_ADAM(A)                                                               \
  template void adam_step_at<A>(const char*, const AdamSettings&, const int64_t*, AdamStep<A>*, \
                                void*);                                                         \
  template bool steps_in_two<A>(const SampledTask<A>&);                                         \
  template int64_t count_squares<A>(const SampledTask<A>&);                                     \
  template void table_adam<A>(const SampledTask<A>&, const SortedCandidates<A>&,                \
                              const ExtraRows<A>&, A*, A*, const AdamTask<A>&, double*, void*);
MMKGC_INSTANTIATE_ADAM(float)
MMKGC_INSTANTIATE_ADAM(double)

}  // namespace mmkgc::cuda
