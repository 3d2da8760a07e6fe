// Aggregation before the transformation: one gather of a neighbour's row serves all bases, two at a
// time, and four neighbours share a pass over the sums, which stay in the L1 cache.
#include "rgcn_propagate.h"

#include <algorithm>

#include "../common/clones.h"
#include "rows.h"

namespace mmkgc::cpu {
namespace {

constexpr int64_t kChunk = 64;  // edges per lookup of rows and weights

// out[j] += sum over i of weights[j][i] * rows[i], for J (1 or 2) bases.
template <int J, typename T>
MMKGC_INLINE void add_rows(const T* const* rows, const T* w0, const T* w1, int64_t n, int64_t width,
                           T* __restrict__ out0, T* __restrict__ out1) {
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    const T *a = rows[i], *b = rows[i + 1], *c = rows[i + 2], *d = rows[i + 3];
    const T a0 = w0[i], b0 = w0[i + 1], c0 = w0[i + 2], d0 = w0[i + 3];
    if constexpr (J == 2) {
      const T a1 = w1[i], b1 = w1[i + 1], c1 = w1[i + 2], d1 = w1[i + 3];
      for (int64_t k = 0; k < width; ++k) {
        const T xa = a[k], xb = b[k], xc = c[k], xd = d[k];
        out0[k] += (a0 * xa + b0 * xb) + (c0 * xc + d0 * xd);
        out1[k] += (a1 * xa + b1 * xb) + (c1 * xc + d1 * xd);
      }
    } else {
      for (int64_t k = 0; k < width; ++k) {
        out0[k] += (a0 * a[k] + b0 * b[k]) + (c0 * c[k] + d0 * d[k]);
      }
    }
  }
  for (; i < n; ++i) {
    const T* a = rows[i];
    for (int64_t k = 0; k < width; ++k) {
      out0[k] += w0[i] * a[k];
      if constexpr (J == 2) out1[k] += w1[i] * a[k];
    }
  }
}

// d_x += sum over j of weights[j] * grad[j], and dots[j] = x . grad[j], for J bases of one edge.
template <int J, bool X, bool C, typename T>
MMKGC_INLINE void add_edge(const T* g0, const T* g1, T w0, T w1, const T* x, int64_t width,
                           T* __restrict__ d_x, T* dot0, T* dot1) {
  T s0 = 0, s1 = 0;
  for (int64_t k = 0; k < width; ++k) {
    if constexpr (X) d_x[k] += J == 2 ? w0 * g0[k] + w1 * g1[k] : w0 * g0[k];
    if constexpr (C) {
      s0 += x[k] * g0[k];
      if constexpr (J == 2) s1 += x[k] * g1[k];
    }
  }
  *dot0 = s0;
  *dot1 = s1;
}

#define MMKGC_LEAVES(T, S)                                                                      \
  MMKGC_CLONES void add_rows_1_##S(const T* const* rows, const T* w, int64_t n, int64_t width,  \
                                   T* out) {                                                    \
    add_rows<1, T>(rows, w, nullptr, n, width, out, nullptr);                                   \
  }                                                                                             \
  MMKGC_CLONES void add_rows_2_##S(const T* const* rows, const T* w0, const T* w1, int64_t n,   \
                                   int64_t width, T* out0, T* out1) {                           \
    add_rows<2, T>(rows, w0, w1, n, width, out0, out1);                                         \
  }                                                                                             \
  MMKGC_CLONES void add_both_##S(const T* g0, const T* g1, T w0, T w1, const T* x,              \
                                 int64_t width, T* d_x, T* dot0, T* dot1) {                     \
    g1 ? add_edge<2, true, true, T>(g0, g1, w0, w1, x, width, d_x, dot0, dot1)                  \
       : add_edge<1, true, true, T>(g0, g1, w0, w1, x, width, d_x, dot0, dot1);                 \
  }                                                                                             \
  MMKGC_CLONES void add_source_##S(const T* g0, const T* g1, T w0, T w1, const T* x,            \
                                   int64_t width, T* d_x, T* dot0, T* dot1) {                   \
    g1 ? add_edge<2, true, false, T>(g0, g1, w0, w1, x, width, d_x, dot0, dot1)                 \
       : add_edge<1, true, false, T>(g0, g1, w0, w1, x, width, d_x, dot0, dot1);                \
  }                                                                                             \
  MMKGC_CLONES void only_dots_##S(const T* g0, const T* g1, T w0, T w1, const T* x,             \
                                  int64_t width, T* d_x, T* dot0, T* dot1) {                    \
    g1 ? add_edge<2, false, true, T>(g0, g1, w0, w1, x, width, d_x, dot0, dot1)                 \
       : add_edge<1, false, true, T>(g0, g1, w0, w1, x, width, d_x, dot0, dot1);                \
  }
MMKGC_LEAVES(float, f32)
MMKGC_LEAVES(double, f64)

// Overloads by type for the templates below.
#define MMKGC_OVERLOADS(T, S)                                                                  \
  void one_basis(const T* const* rows, const T* w, int64_t n, int64_t width, T* out) {         \
    add_rows_1_##S(rows, w, n, width, out);                                                    \
  }                                                                                            \
  void two_bases(const T* const* rows, const T* w0, const T* w1, int64_t n, int64_t width,     \
                 T* out0, T* out1) {                                                           \
    add_rows_2_##S(rows, w0, w1, n, width, out0, out1);                                        \
  }                                                                                            \
  using Edge_##S = void (*)(const T*, const T*, T, T, const T*, int64_t, T*, T*, T*);          \
  Edge_##S pick_edge(bool x, bool c, T) {                                                      \
    return x ? (c ? add_both_##S : add_source_##S) : only_dots_##S;                            \
  }
MMKGC_OVERLOADS(float, f32)
MMKGC_OVERLOADS(double, f64)

}  // namespace

template <typename T>
void propagate_segment(const PropagateTask<T>& task, const Edges<T>& edges,
                       const Segment& segment) {
  const int64_t wide = task.bases * task.width;
  T* out = segment.part < 0 ? task.out + segment.row * wide : task.partial + segment.part * wide;
  std::fill_n(out, wide, T(0));
  const T* rows[kChunk];
  T weights[2][kChunk];
  for (int64_t at = segment.begin; at < segment.end; at += kChunk) {
    const int64_t n = std::min(kChunk, segment.end - at);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t source = edges.other[at + i];
      rows[i] = task.x + (edges.row ? edges.row[source] : source) * task.width;
    }
    for (int64_t basis = 0; basis < task.bases; basis += 2) {
      const bool both = basis + 1 < task.bases;
      for (int64_t i = 0; i < n; ++i) {
        const T* basis_row = task.coefficients + edges.relation[at + i] * task.bases + basis;
        weights[0][i] = edges.norm[at + i] * basis_row[0];
        if (both) weights[1][i] = edges.norm[at + i] * basis_row[1];
      }
      T* to = out + basis * task.width;
      if (both) {
        two_bases(rows, weights[0], weights[1], n, task.width, to, to + task.width);
      } else {
        one_basis(rows, weights[0], n, task.width, to);
      }
    }
  }
}

template <typename T>
void propagate_segment_backward(const PropagateBackwardTask<T>& task, const Edges<T>& edges,
                                const Segment& segment, double* d_coefficients) {
  const auto edge = pick_edge(task.d_x != nullptr, task.with_coefficients, T());
  const int64_t width = task.width;
  T* d_x = task.d_x;
  if (d_x) {
    d_x = segment.part < 0 ? d_x + segment.row * width : task.partial + segment.part * width;
    std::fill_n(d_x, width, T(0));
  }
  const T* x = task.x + segment.row * width;
  for (int64_t at = segment.begin; at < segment.end; ++at) {
    const int64_t target = edges.other[at];
    const int64_t row = edges.row ? edges.row[target] : target;
    if (row < 0) continue;  // an entity that is not among the rows
    const T norm = edges.norm[at];
    const int64_t relation = edges.relation[at] * task.bases;
    for (int64_t basis = 0; basis < task.bases; basis += 2) {
      const bool both = basis + 1 < task.bases;
      const T* basis_row = task.coefficients + relation + basis;
      const T* g = task.grad + (row * task.bases + basis) * width;
      T dots[2];
      const T second = both ? norm * basis_row[1] : T(0);
      edge(g, both ? g + width : nullptr, norm * basis_row[0], second, x, width, d_x, dots,
           dots + 1);
      if (!task.with_coefficients) continue;
      d_coefficients[relation + basis] += static_cast<double>(norm) * dots[0];
      if (both) d_coefficients[relation + basis + 1] += static_cast<double>(norm) * dots[1];
    }
  }
}

template <typename T>
void sum_parts(const T* partial, const SplitRow& row, int64_t width, T* out) {
  T* to = out + row.row * width;
  std::fill_n(to, width, T(0));
  for (int64_t part = row.begin; part < row.end; ++part) {
    add_row(partial + part * width, width, to);
  }
}

#define MMKGC_INSTANTIATE(T)                                                                    \
  template void propagate_segment<T>(const PropagateTask<T>&, const Edges<T>&, const Segment&); \
  template void propagate_segment_backward<T>(const PropagateBackwardTask<T>&, const Edges<T>&, \
                                              const Segment&, double*);                         \
  template void sum_parts<T>(const T*, const SplitRow&, int64_t, T*);
MMKGC_INSTANTIATE(float)
MMKGC_INSTANTIATE(double)

}  // namespace mmkgc::cpu
