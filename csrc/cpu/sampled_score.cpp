// The gradient of a table of candidates, entity by entity: the row and its gradient stay in the first
// cache, the queries that met it stream by, and each row is written once, or stepped at once.
// Nothing is kept from the forward pass: differences are cheaper to make again than to fetch.
#include "sampled_score.h"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "../common/clones.h"
#include "../common/gradient.h"
#include "modulus_avx512.h"
#include "rows.h"
#include "score_rows.h"

namespace mmkgc::cpu {
namespace {

constexpr int64_t kChunk = 64;    // queries looked up at once
constexpr int64_t kColumns = 16;  // columns whose gradient stays in registers while queries stream by

// 1 / norm of q - w * c over a pair, 0 where the norm is 0.
template <bool Scaled, typename T>
MMKGC_INLINE T inverse_norm(const T* q, const T* c, const T* w, int64_t width) {
  T squares = 0;
  for (int64_t k = 0; k < width; ++k) {
    const T d = q[k] - (Scaled ? w[k] : T(1)) * c[k];
    squares += d * d;
  }
  return squares == 0 ? T(0) : T(1) / std::sqrt(squares);
}

// Columns [0, n) of a candidate, and under modulus those `half` further on: adds to dc the gradient
// of sum_i grad[i] * term(q_i, c).
template <Metric M, bool Scaled, bool Full, typename T>
MMKGC_INLINE void sum_columns(const T* const* queries, const T* const* scales, int64_t query,
                              int64_t candidate, int64_t half, int64_t columns, const T* c,
                              const T* grad, int64_t count, T* dc) {
  const int64_t n = Full ? kColumns : columns;
  constexpr bool kComplex = M == Metric::modulus;
  T re[kColumns], im[kComplex ? kColumns : 1];
  T d_re[kColumns], d_im[kComplex ? kColumns : 1];
  // Loops of their own: together they might overlap, for all the compiler knows, and not vectorise.
  for (int64_t k = 0; k < n; ++k) re[k] = c[k];
  for (int64_t k = 0; k < n; ++k) d_re[k] = dc[k];
  if constexpr (kComplex) {
    for (int64_t k = 0; k < n; ++k) im[k] = c[k + half];
    for (int64_t k = 0; k < n; ++k) d_im[k] = dc[k + half];
  }
  for (int64_t i = 0; i < count; ++i) {
    MMKGC_ONE_AT_A_TIME;
    const T* q = queries[i] + query;
    const T* w = Scaled ? scales[i] + candidate : nullptr;
    const T g = grad[i];
    for (int64_t k = 0; k < n; ++k) {
      const T v = Scaled ? w[k] : T(1);
      if constexpr (kComplex) {
        const T u = Scaled ? w[k + half] : T(1);
        const T x = q[k] - v * re[k], y = q[k + half] - u * im[k];
        const T f = g * inverse_root(x * x + y * y);
        d_re[k] += f * x * v;
        d_im[k] += f * y * u;
      } else if constexpr (M == Metric::dot) {
        d_re[k] += g * q[k] * v;
      } else {
        const T d = q[k] - v * re[k];
        d_re[k] += g * v * (M == Metric::l1 ? sign_of(d) : d);
      }
    }
  }
  for (int64_t k = 0; k < n; ++k) dc[k] = d_re[k];
  if constexpr (kComplex) {
    for (int64_t k = 0; k < n; ++k) dc[k + half] = d_im[k];
  }
}

// One candidate row: its gradient over up to kChunk queries that it met.
template <Metric M, bool Scaled, typename T>
MMKGC_INLINE void sum_candidate_gradient(const Terms& terms, const T* const* queries,
                                         const T* const* scales, const T* c, const T* grad,
                                         int64_t n, T* dc) {
  T weighted[kChunk];
  for (int64_t p = 0; p < terms.n_pairs; ++p) {
    const Pair& pair = terms.pairs[p];
    for (int64_t i = 0; i < n; ++i) {
      weighted[i] = static_cast<T>(pair.weight) * grad[i];
      if constexpr (M == Metric::l2) {
        MMKGC_ONE_AT_A_TIME;
        weighted[i] *= inverse_norm<Scaled>(queries[i] + pair.query, c + pair.candidate,
                                            Scaled ? scales[i] + pair.candidate : nullptr,
                                            pair.width);
      }
    }
    const int64_t half = M == Metric::modulus ? pair.width / 2 : 0;
    const int64_t width = M == Metric::modulus ? half : pair.width;
    int64_t k = 0;
    for (; k + kColumns <= width; k += kColumns) {
      sum_columns<M, Scaled, true, T>(queries, scales, pair.query + k, pair.candidate + k, half,
                                      kColumns, c + pair.candidate + k, weighted, n,
                                      dc + pair.candidate + k);
    }
    if (k < width) {
      sum_columns<M, Scaled, false, T>(queries, scales, pair.query + k, pair.candidate + k, half,
                                       width - k, c + pair.candidate + k, weighted, n,
                                       dc + pair.candidate + k);
    }
  }
}

#define MMKGC_CANDIDATE_GRADIENT(name, metric, scaled, T)                                     \
  MMKGC_CLONES void name(const Terms& terms, const T* const* queries, const T* const* scales, \
                         const T* c, const T* grad, int64_t n, T* dc) {                       \
    sum_candidate_gradient<metric, scaled, T>(terms, queries, scales, c, grad, n, dc);        \
  }
MMKGC_FOR_EACH_METRIC(MMKGC_CANDIDATE_GRADIENT, candidate_gradient)

template <typename T>
using CandidateGradient = void (*)(const Terms&, const T* const*, const T* const*, const T*,
                                   const T*, int64_t, T*);

MMKGC_PICK(candidate_gradient, CandidateGradient<float>, CandidateGradient<double>)

// The same by AVX-512.
void candidate_gradient_by_lookup(const Terms& terms, const float* const* queries,
                                  const float* const*, const float* c, const float* grad,
                                  int64_t n, float* dc) {
  const float* rows[kChunk];
  float weighted[kChunk];
  for (int64_t p = 0; p < terms.n_pairs; ++p) {
    const Pair& pair = terms.pairs[p];
    for (int64_t i = 0; i < n; ++i) {
      rows[i] = queries[i] + pair.query;
      weighted[i] = static_cast<float>(pair.weight) * grad[i];
    }
    candidate_gradient_avx512(rows, c + pair.candidate, weighted, n, pair.width / 2,
                              dc + pair.candidate);
  }
}

template <typename T>
CandidateGradient<T> pick_gradient(Metric metric, bool scaled) {
  if constexpr (std::is_same_v<T, float>) {
    if (metric == Metric::modulus && !scaled && has_avx512()) return candidate_gradient_by_lookup;
  }
  return pick_candidate_gradient(metric, scaled, T());
}

// Steps a row; returns the sum of the squares of its gradient.
#define MMKGC_ADAM(T)                                                                           \
  MMKGC_CLONES T adam_row(const T* g, int64_t n, const AdamStep<T>& step, T* __restrict__ value, \
                          T* __restrict__ mean, T* __restrict__ square) {                       \
    const AdamStep<T> s = step;                                                                 \
    T squares = 0;                                                                              \
    for (int64_t k = 0; k < n; ++k) {                                                           \
      squares += g[k] * g[k];                                                                   \
      adam_update(g[k], s, value + k, mean + k, square + k);                                    \
    }                                                                                           \
    return squares;                                                                             \
  }
MMKGC_ADAM(float)
MMKGC_ADAM(double)

// Calls `row(e)` for where to put the gradient of entity e, and `done(e, gradient)` once it is there.
template <typename T, typename Row, typename Done>
void each_table_gradient(const SampledTask<T>& task, int64_t begin, int64_t end, Row row,
                         Done done) {
  const CandidateGradient<T> gradient = pick_gradient<T>(task.metric, task.scale != nullptr);
  const Terms terms{task.pairs, task.n_pairs};
  const int64_t width = task.candidate_width;
  const T* queries[kChunk];
  const T* scales[kChunk];
  T grads[kChunk];
  const Run* run = std::lower_bound(task.runs, task.runs + task.n_runs, begin,
                                    [](const Run& r, int64_t entity) { return r.entity < entity; });
  for (int64_t e = begin; e < end; ++e) {
    T* out = row(e);
    std::fill_n(out, width, T(0));
    const bool met = run < task.runs + task.n_runs && run->entity == e;
    const int64_t last = met ? run->end : 0;
    for (int64_t at = met ? run->begin : 0; at < last; at += kChunk) {
      const int64_t count = std::min(kChunk, last - at);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t position = task.order[at + i];
        const int64_t from = task.where[at + i];
        queries[i] = task.queries + from * task.query_width;
        scales[i] = task.scale ? task.scale + from * width : nullptr;
        grads[i] = task.grad[position];
      }
      gradient(terms, queries, scales, task.table + e * width, grads, count, out);
    }
    run += met;
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
        squares += adam_row(g, width, adam.step, adam.table + at, adam.mean + at, adam.square + at);
      });
  return squares;
}

void sort_by_id(const int64_t* ids, int64_t n, int64_t n_ids, int64_t* order, int64_t* starts) {
  std::fill_n(starts, n_ids + 1, int64_t(0));
  for (int64_t i = 0; i < n; ++i) ++starts[ids[i] + 1];
  for (int64_t e = 0; e < n_ids; ++e) starts[e + 1] += starts[e];
  // Starts move to the next id's while their ids are dealt out, and are moved back.
  for (int64_t i = 0; i < n; ++i) order[starts[ids[i]]++] = i;
  for (int64_t e = n_ids; e > 0; --e) starts[e] = starts[e - 1];
  starts[0] = 0;
}

void even_ranges(const Run* runs, int64_t n_runs, int64_t entities, int64_t parts,
                 int64_t* bounds) {
  // A candidate costs about as much as writing two rows.
  const int64_t candidates = n_runs ? runs[n_runs - 1].end : 0;
  bounds[0] = 0;
  for (int64_t part = 1; part < parts; ++part) {
    const int64_t wanted = (2 * candidates + entities) / parts * part;
    const Run* run = std::lower_bound(runs, runs + n_runs, wanted, [](const Run& r, int64_t work) {
      return 2 * r.begin + r.entity < work;
    });
    // Between two runs the work grows by one row an entity.
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
