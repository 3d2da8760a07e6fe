// The gradient of a table of candidates, entity by entity. The row and its gradient stay in the L1
// cache while the queries are streamed, and each row is written, or stepped, once. Differences are
// recomputed, which is faster than loading them.
#include "sampled_score.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "../common/clones.h"
#include "candidate_gradient.h"
#include "rows.h"

namespace mmkgc::cpu {
namespace {

// Steps a row and returns the sum of the squares of its gradient.
#define MMKGC_ADAM(T)                                                                           \
  MMKGC_CLONES T adam_row(const T* g, int64_t n, const AdamStep<T>& step, T* __restrict__ value, \
                          T* __restrict__ mean, T* __restrict__ square) {                       \
    const AdamStep<T> s = step;                                                                 \
    T squares = 0;                                                                              \
    if (s.penalty == 0) {                                                                       \
      for (int64_t k = 0; k < n; ++k) {                                                         \
        squares += g[k] * g[k];                                                                 \
        adam_update<false>(g[k], s, value + k, mean + k, square + k);                           \
      }                                                                                         \
      return squares;                                                                           \
    }                                                                                           \
    for (int64_t k = 0; k < n; ++k) {                                                           \
      squares += g[k] * g[k];                                                                   \
      adam_update<true>(g[k], s, value + k, mean + k, square + k);                              \
    }                                                                                           \
    return squares;                                                                             \
  }
MMKGC_ADAM(float)
MMKGC_ADAM(double)

// In double, for a row with squares that overflow in float.
template <typename T>
double sum_of_squares(const T* g, int64_t n) {
  double sum = 0;
  for (int64_t k = 0; k < n; ++k) sum += static_cast<double>(g[k]) * g[k];
  return sum;
}

// Computes the gradient of each entity e into `row(e)` and then calls `done(e, gradient)`.
template <typename T, typename Row, typename Done>
void each_table_gradient(const SampledTask<T>& task, int64_t begin, int64_t end, Row row,
                         Done done) {
  const CandidateGradient<T> gradient = candidate_gradient<T>(task.metric, task.scale != nullptr);
  const Terms terms{task.pairs, task.n_pairs};
  const int64_t width = task.candidate_width;
  const T* queries[kGradientRows];
  const T* scales[kGradientRows];
  T grads[kGradientRows];
  const Run* run = std::lower_bound(task.runs, task.runs + task.n_runs, begin,
                                    [](const Run& r, int64_t entity) { return r.entity < entity; });
  for (int64_t e = begin; e < end; ++e) {
    T* out = row(e);
    std::fill_n(out, width, T(0));
    const bool has_run = run < task.runs + task.n_runs && run->entity == e;
    const int64_t last = has_run ? run->end : 0;
    for (int64_t at = has_run ? run->begin : 0; at < last; at += kGradientRows) {
      const int64_t count = std::min(kGradientRows, last - at);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t position = task.order[at + i];
        const int64_t query = task.where[at + i];
        queries[i] = task.queries + query * task.query_width;
        scales[i] = task.scale ? task.scale + query * width : nullptr;
        grads[i] = task.grad[position];
      }
      gradient(terms, queries, scales, task.table + e * width, grads, count, out);
    }
    run += has_run;
    if (task.extra) {
      for (int64_t at = task.extra_starts[e]; at < task.extra_starts[e + 1]; ++at) {
        add_row(task.extra + task.extra_order[at] * width, width, out);
      }
    }
    done(e, out);
  }
}

}  // namespace

template <typename T>
void sampled_backward_table(const SampledTask<T>& task, int64_t begin, int64_t end) {
  each_table_gradient(
      task, begin, end, [&](int64_t e) { return task.d_table + e * task.candidate_width; },
      [](int64_t, const T*) {});
}

template <typename T>
double sampled_step_table(const SampledTask<T>& task, const AdamTask<T>& adam, int64_t begin,
                          int64_t end) {
  const int64_t width = task.candidate_width;
  std::vector<T> gradient(static_cast<size_t>(width));
  double squares = 0;
  each_table_gradient(
      task, begin, end, [&](int64_t) { return gradient.data(); },
      [&](int64_t e, T* g) {
        const int64_t at = e * width;
        if (adam.dense) add_row(adam.dense + at, width, g);
        const T sum =
            adam_row(g, width, adam.step, adam.table + at, adam.mean + at, adam.square + at);
        squares += sum <= std::numeric_limits<T>::max() ? sum : sum_of_squares(g, width);
      });
  return squares;
}

void sort_by_id(const int64_t* ids, int64_t n, int64_t n_ids, int64_t* order, int64_t* starts) {
  std::fill_n(starts, n_ids + 1, int64_t(0));
  for (int64_t i = 0; i < n; ++i) ++starts[ids[i] + 1];
  for (int64_t e = 0; e < n_ids; ++e) starts[e + 1] += starts[e];
  // Each start moves to the start of the next id in this loop; the next loop restores them.
  for (int64_t i = 0; i < n; ++i) order[starts[ids[i]]++] = i;
  for (int64_t e = n_ids; e > 0; --e) starts[e] = starts[e - 1];
  starts[0] = 0;
}

void even_ranges(const Run* runs, int64_t n_runs, int64_t entities, int64_t parts,
                 int64_t* bounds) {
  // A candidate takes about as long as writing two rows.
  const int64_t candidates = n_runs ? runs[n_runs - 1].end : 0;
  bounds[0] = 0;
  for (int64_t part = 1; part < parts; ++part) {
    const int64_t wanted = (2 * candidates + entities) / parts * part;
    const Run* run = std::lower_bound(runs, runs + n_runs, wanted, [](const Run& r, int64_t work) {
      return 2 * r.begin + r.entity < work;
    });
    // Between two runs the work grows by one row per entity.
    const int64_t before = run < runs + n_runs ? run->begin : candidates;
    const int64_t limit = run < runs + n_runs ? run->entity : entities;
    bounds[part] = std::clamp(wanted - 2 * before, bounds[part - 1], limit);
  }
  bounds[parts] = entities;
}

#define MMKGC_INSTANTIATE(T)                                                          \
  template void sampled_backward_table<T>(const SampledTask<T>&, int64_t, int64_t);  \
  template double sampled_step_table<T>(const SampledTask<T>&, const AdamTask<T>&, int64_t, int64_t);
MMKGC_INSTANTIATE(float)
MMKGC_INSTANTIATE(double)

}  // namespace mmkgc::cpu
