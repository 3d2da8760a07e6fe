// The forward pass and the gradient of the queries go positive by positive: a query row stays in
// the first cache while its candidates stream by. The gradient of the table goes entity by entity:
// the candidate row stays, the queries that met it stream by, and each row is written once.
// Nothing is kept from the forward pass: differences are cheaper to make again than to fetch.
#include "sampled_score.h"

#include <algorithm>
#include <vector>

#include "../common/gradient.h"
#include "score_rows.h"

namespace mmkgc::cpu {
namespace {

#define MMKGC_SCORE(name, metric, scaled, T)                                                  \
  MMKGC_CLONES void name(const Terms& terms, const T* q, const T* scale, const T* const* rows, \
                         int64_t n, T* scores) {                                              \
    score_rows<metric, scaled, T>(terms, q, scale, rows, n, scores);                          \
  }
MMKGC_FOR_EACH_METRIC(MMKGC_SCORE, sampled)

template <typename T>
using Score = void (*)(const Terms&, const T*, const T*, const T* const*, int64_t, T*);

MMKGC_PICK(sampled, Score<float>, Score<double>)

// 1 / norm of q - w * c over a block, 0 where the norm is 0.
template <bool Scaled, typename T>
MMKGC_INLINE T inverse_norm(const T* q, const T* c, const T* w, int64_t width) {
  T squares = 0;
  for (int64_t k = 0; k < width; ++k) {
    const T d = q[k] - (Scaled ? w[k] : T(1)) * c[k];
    squares += d * d;
  }
  return squares > 0 ? T(1) / std::sqrt(squares) : T(0);
}

// Adds the gradient of g * term to the query row dq and, where scaled, to the scale row dw.
template <Metric M, bool Scaled, typename T>
MMKGC_INLINE void add_query_gradient(const T* q, const T* c, const T* w, int64_t width, T g,
                                     T* __restrict__ dq, T* __restrict__ dw) {
  if constexpr (M == Metric::modulus) {
    const int64_t half = width / 2;
    for (int64_t k = 0; k < half; ++k) {
      const T cr = c[k], ci = c[k + half];
      const T re = q[k] - (Scaled ? w[k] : T(1)) * cr;
      const T im = q[k + half] - (Scaled ? w[k + half] : T(1)) * ci;
      const T f = -g * inverse_root(re * re + im * im);
      dq[k] += f * re;
      dq[k + half] += f * im;
      if constexpr (Scaled) {
        dw[k] -= f * re * cr;
        dw[k + half] -= f * im * ci;
      }
    }
  } else if constexpr (M == Metric::dot) {
    for (int64_t k = 0; k < width; ++k) {
      const T x = g * c[k];
      dq[k] += x * (Scaled ? w[k] : T(1));
      if constexpr (Scaled) dw[k] += x * q[k];
    }
  } else {
    const T norm = M == Metric::l2 ? inverse_norm<Scaled>(q, c, w, width) : T(0);
    for (int64_t k = 0; k < width; ++k) {
      const T d = q[k] - (Scaled ? w[k] : T(1)) * c[k];
      const T f = -g * (M == Metric::l1 ? sign_of(d) : d * norm);
      dq[k] += f;
      if constexpr (Scaled) dw[k] -= f * c[k];
    }
  }
}

// Adds the gradient of g * term to the candidate row dc.
template <Metric M, bool Scaled, typename T>
MMKGC_INLINE void add_candidate_gradient(const T* q, const T* c, const T* w, int64_t width, T g,
                                         T* __restrict__ dc) {
  if constexpr (M == Metric::modulus) {
    const int64_t half = width / 2;
    for (int64_t k = 0; k < half; ++k) {
      const T wr = Scaled ? w[k] : T(1), wi = Scaled ? w[k + half] : T(1);
      const T re = q[k] - wr * c[k];
      const T im = q[k + half] - wi * c[k + half];
      const T f = g * inverse_root(re * re + im * im);
      dc[k] += f * re * wr;
      dc[k + half] += f * im * wi;
    }
  } else if constexpr (M == Metric::dot) {
    for (int64_t k = 0; k < width; ++k) dc[k] += g * q[k] * (Scaled ? w[k] : T(1));
  } else {
    const T norm = M == Metric::l2 ? inverse_norm<Scaled>(q, c, w, width) : T(0);
    for (int64_t k = 0; k < width; ++k) {
      const T v = Scaled ? w[k] : T(1);
      const T d = q[k] - v * c[k];
      dc[k] += g * v * (M == Metric::l1 ? sign_of(d) : d * norm);
    }
  }
}

// Without scales, modulus treats both rows alike but for the sign: sums g_i (x - y_i) / |x - y_i|
// over four rows y_i, so that x and its gradient are read and written once for the four.
//
// `next` are the four rows of the next call: they are asked for a strip at a time while this one
// computes, since rows come from all over the table and asking for all of them at once would stall.
template <typename T>
MMKGC_INLINE void add_four_moduli(const T* x, const T* const* y, const T* const* next,
                                  int64_t offset, int64_t width, const T* g, T weight,
                                  T* __restrict__ dx) {
  constexpr int64_t kStrip = 128 / sizeof(T), kLine = 64 / sizeof(T);
  const int64_t half = width / 2;
  const T* y0 = y[0] + offset;
  const T* y1 = y[1] + offset;
  const T* y2 = y[2] + offset;
  const T* y3 = y[3] + offset;
  const T g0 = weight * g[0], g1 = weight * g[1], g2 = weight * g[2], g3 = weight * g[3];
  for (int64_t begin = 0; begin < half; begin += kStrip) {
    const int64_t end = std::min(begin + kStrip, half);
    for (int64_t k = begin; k < end; k += kLine) {
      for (int lane = 0; lane < 4; ++lane) {
        __builtin_prefetch(next[lane] + offset + k);
        __builtin_prefetch(next[lane] + offset + half + k);
      }
    }
    for (int64_t k = begin; k < end; ++k) {
      const T re = x[k], im = x[k + half];
      const T r0 = re - y0[k], i0 = im - y0[k + half];
      const T r1 = re - y1[k], i1 = im - y1[k + half];
      const T r2 = re - y2[k], i2 = im - y2[k + half];
      const T r3 = re - y3[k], i3 = im - y3[k + half];
      const T f0 = g0 * inverse_root(r0 * r0 + i0 * i0);
      const T f1 = g1 * inverse_root(r1 * r1 + i1 * i1);
      const T f2 = g2 * inverse_root(r2 * r2 + i2 * i2);
      const T f3 = g3 * inverse_root(r3 * r3 + i3 * i3);
      dx[k] += (f0 * r0 + f1 * r1) + (f2 * r2 + f3 * r3);
      dx[k + half] += (f0 * i0 + f1 * i1) + (f2 * i2 + f3 * i3);
    }
  }
}

// One query row of one side of one positive: its gradient over all candidates that met it.
template <Metric M, bool Scaled, typename T>
MMKGC_INLINE void sum_query_gradient(const Terms& terms, const T* q, const T* w,
                                     const T* const* rows, const T* grad, int64_t n, T* dq,
                                     T* dw) {
  for (int64_t p = 0; p < terms.n_pairs; ++p) {
    const Pair& pair = terms.pairs[p];
    const int64_t c = pair.candidate;
    const T weight = static_cast<T>(pair.weight);
    int64_t i = 0;
    if constexpr (M == Metric::modulus && !Scaled) {
      for (; i + 4 <= n; i += 4) {
        add_four_moduli(q + pair.query, rows + i, rows + (i + 8 <= n ? i + 4 : i), c, pair.width, grad + i, -weight,
                        dq + pair.query);
      }
    }
    for (; i < n; ++i) {
      add_query_gradient<M, Scaled, T>(q + pair.query, rows[i] + c, Scaled ? w + c : nullptr,
                                       pair.width, weight * grad[i], dq + pair.query,
                                       Scaled ? dw + c : nullptr);
    }
  }
}

#define MMKGC_QUERY_GRADIENT(name, metric, scaled, T)                                      \
  MMKGC_CLONES void name(const Terms& terms, const T* q, const T* w, const T* const* rows, \
                         const T* grad, int64_t n, T* dq, T* dw) {                         \
    sum_query_gradient<metric, scaled, T>(terms, q, w, rows, grad, n, dq, dw);             \
  }
MMKGC_FOR_EACH_METRIC(MMKGC_QUERY_GRADIENT, query_gradient)

template <typename T>
using QueryGradient = void (*)(const Terms&, const T*, const T*, const T* const*, const T*, int64_t,
                               T*, T*);

MMKGC_PICK(query_gradient, QueryGradient<float>, QueryGradient<double>)

// One candidate row: its gradient over all queries that it met.
template <Metric M, bool Scaled, typename T>
MMKGC_INLINE void sum_candidate_gradient(const Terms& terms, const T* const* queries,
                                         const T* const* scales, const T* c, const T* grad,
                                         int64_t n, T* dc) {
  for (int64_t p = 0; p < terms.n_pairs; ++p) {
    const Pair& pair = terms.pairs[p];
    const T weight = static_cast<T>(pair.weight);
    int64_t i = 0;
    if constexpr (M == Metric::modulus && !Scaled) {
      for (; i + 4 <= n; i += 4) {
        add_four_moduli(c + pair.candidate, queries + i, queries + (i + 8 <= n ? i + 4 : i), pair.query, pair.width, grad + i, -weight,
                        dc + pair.candidate);
      }
    }
    if constexpr (M == Metric::modulus && !Scaled) {
      // Two or three are left: the row twice, with a gradient of 0, costs less than one at a time.
      if (n - i > 1) {
        const T* rest[4] = {queries[i], queries[i + 1], queries[n - 1], queries[n - 1]};
        const T g[4] = {grad[i], grad[i + 1], n - i > 2 ? grad[i + 2] : T(0), T(0)};
        add_four_moduli(c + pair.candidate, rest, rest, pair.query, pair.width, g, -weight,
                        dc + pair.candidate);
        i = n;
      }
    }
    for (; i < n; ++i) {
      add_candidate_gradient<M, Scaled, T>(queries[i] + pair.query, c + pair.candidate,
                                           Scaled ? scales[i] + pair.candidate : nullptr,
                                           pair.width, weight * grad[i], dc + pair.candidate);
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

#define MMKGC_ADD(T)                                           \
  MMKGC_CLONES void add_row(const T* from, int64_t n, T* to) { \
    for (int64_t k = 0; k < n; ++k) to[k] += from[k];          \
  }
MMKGC_ADD(float)
MMKGC_ADD(double)

constexpr int64_t kChunk = 256;  // candidates gathered at once

// Calls `work(side, rows, where, count)` for the candidates of positive b, grouped by side.
template <typename T, typename Work>
void by_side(const SampledTask<T>& task, int64_t b, Work work) {
  const T* rows[kChunk + kLanes];
  int64_t where[kChunk];
  for (int64_t side = 0; side < task.sides; ++side) {
    int64_t count = 0;
    for (int64_t i = b * task.n; i < (b + 1) * task.n; ++i) {
      if (task.side[i] != side) continue;
      rows[count] = task.table + task.ids[i] * task.candidate_width;
      where[count++] = i;
      if (count == kChunk) {
        work(side, rows, where, count);
        count = 0;
      }
    }
    if (count) work(side, rows, where, count);
  }
}

}  // namespace

template <typename T>
void sampled_forward(const SampledTask<T>& task, int64_t begin, int64_t end) {
  const Score<T> score = pick_sampled(task.metric, task.scale != nullptr, T());
  const Terms terms{task.pairs, task.n_pairs};
  T scores[kChunk + kLanes];
  for (int64_t b = begin; b < end; ++b) {
    by_side(task, b, [&](int64_t side, const T** rows, const int64_t* where, int64_t count) {
      for (int64_t i = count; i % kLanes; ++i) rows[i] = rows[count - 1];
      const int64_t row = side * task.batch + b;
      const T* q = task.queries + row * task.query_width;
      const T* w = task.scale ? task.scale + row * task.candidate_width : nullptr;
      for (int64_t i = 0; i < count; i += kLanes) {
        for (int64_t j = i + kLanes; j < std::min(i + 2 * kLanes, count); ++j) {
          prefetch_row(rows[j], task.candidate_width);
        }
        score(terms, q, w, rows + i, kLanes, scores + i);
      }
      for (int64_t i = 0; i < count; ++i) task.scores[where[i]] = scores[i];
    });
  }
}

template <typename T>
void sampled_backward_queries(const SampledTask<T>& task, int64_t begin, int64_t end) {
  const QueryGradient<T> gradient = pick_query_gradient(task.metric, task.scale != nullptr, T());
  const Terms terms{task.pairs, task.n_pairs};
  T grads[kChunk];
  for (int64_t b = begin; b < end; ++b) {
    for (int64_t side = 0; side < task.sides; ++side) {
      const int64_t row = side * task.batch + b;
      std::fill_n(task.d_queries + row * task.query_width, task.query_width, T(0));
      if (task.scale) {
        std::fill_n(task.d_scale + row * task.candidate_width, task.candidate_width, T(0));
      }
    }
    by_side(task, b, [&](int64_t side, const T** rows, const int64_t* where, int64_t count) {
      for (int64_t i = 0; i < count; ++i) grads[i] = task.grad[where[i]];
      const int64_t row = side * task.batch + b;
      const int64_t wide = row * task.candidate_width;
      gradient(terms, task.queries + row * task.query_width,
               task.scale ? task.scale + wide : nullptr, rows, grads, count,
               task.d_queries + row * task.query_width,
               task.scale ? task.d_scale + wide : nullptr);
    });
  }
}

template <typename T>
void sampled_backward_table(const SampledTask<T>& task, int64_t begin, int64_t end) {
  const CandidateGradient<T> gradient =
      pick_candidate_gradient(task.metric, task.scale != nullptr, T());
  const Terms terms{task.pairs, task.n_pairs};
  const int64_t width = task.candidate_width;
  const T* queries[kChunk];
  const T* scales[kChunk];
  T grads[kChunk];
  const auto query_row = [&](int64_t position) {
    return task.side[position] * task.batch + position / task.n;
  };
  for (int64_t e = begin; e < end; ++e) {
    // Few candidates an entity: the queries of the next one are asked for while this one computes.
    const int64_t ahead = e + 1 < end ? std::min(task.starts[e + 2], task.starts[e + 1] + 4) : 0;
    for (int64_t i = task.starts[e + 1]; i < ahead; ++i) {
      prefetch_row(task.queries + query_row(task.order[i]) * task.query_width, task.query_width);
    }
    T* out = task.d_table + e * width;
    std::fill_n(out, width, T(0));
    for (int64_t at = task.starts[e]; at < task.starts[e + 1]; at += kChunk) {
      const int64_t count = std::min(kChunk, task.starts[e + 1] - at);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t position = task.order[at + i];
        const int64_t row = query_row(position);
        queries[i] = task.queries + row * task.query_width;
        scales[i] = task.scale ? task.scale + row * width : nullptr;
        grads[i] = task.grad[position];
      }
      gradient(terms, queries, scales, task.table + e * width, grads, count, out);
    }
    if (!task.extra) continue;
    for (int64_t at = task.extra_starts[e]; at < task.extra_starts[e + 1]; ++at) {
      add_row(task.extra + task.extra_order[at] * width, width, out);
    }
  }
}

void count_ids(const int64_t* ids, int64_t n, int64_t n_ids, int64_t* starts) {
  std::fill_n(starts, n_ids + 1, int64_t(0));
  for (int64_t i = 0; i < n; ++i) ++starts[ids[i] + 1];
  for (int64_t e = 0; e < n_ids; ++e) starts[e + 1] += starts[e];
}

void sort_by_id(const int64_t* ids, int64_t n, int64_t n_ids, int64_t* order, int64_t* starts) {
  count_ids(ids, n, n_ids, starts);
  std::vector<int64_t> next(starts, starts + n_ids);
  for (int64_t i = 0; i < n; ++i) order[next[static_cast<size_t>(ids[i])]++] = i;
}

void even_ranges(const int64_t* starts, int64_t entities, int64_t parts, int64_t* bounds) {
  // A candidate costs about as much as writing two rows.
  const auto work = [&](int64_t e) { return 2 * starts[e] + e; };
  bounds[0] = 0;
  for (int64_t part = 1; part <= parts; ++part) {
    const int64_t wanted = work(entities) / parts * part;
    int64_t low = bounds[part - 1], high = entities;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (work(middle) < wanted) low = middle + 1; else high = middle;
    }
    bounds[part] = part == parts ? entities : low;
  }
}

#define MMKGC_INSTANTIATE(T)                                                            \
  template void sampled_forward<T>(const SampledTask<T>&, int64_t, int64_t);            \
  template void sampled_backward_queries<T>(const SampledTask<T>&, int64_t, int64_t);   \
  template void sampled_backward_table<T>(const SampledTask<T>&, int64_t, int64_t);
MMKGC_INSTANTIATE(float)
MMKGC_INSTANTIATE(double)

}  // namespace mmkgc::cpu
