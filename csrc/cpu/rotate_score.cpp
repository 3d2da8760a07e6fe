#include "rotate_score.h"

#include <algorithm>
#include <cmath>

#include "../common/clones.h"
#include "../common/gradient.h"
#include "rows.h"

namespace mmkgc::cpu {
namespace {

// to = from * (cosine + i sign sine) on complex rows. `to` may equal `from`; the loops are marked
// as independent, since the compiler would otherwise assume a dependence.
#define MMKGC_ROTATE(T)                                                                        \
  MMKGC_CLONES void rotate_row(const T* from, const T* cosine, const T* sine, T sign, int64_t d, \
                               T* to) {                                                        \
    MMKGC_INDEPENDENT                                                                          \
    for (int64_t k = 0; k < d; ++k) {                                                          \
      const T re = from[k], im = from[k + d], c = cosine[k], s = sign * sine[k];               \
      to[k] = re * c - im * s;                                                                 \
      to[k + d] = re * s + im * c;                                                             \
    }                                                                                          \
  }                                                                                            \
  MMKGC_CLONES void phase_row(const T* q0, const T* g0, const T* q1, const T* g1, int64_t d,   \
                              T* to) {                                                         \
    MMKGC_INDEPENDENT                                                                          \
    for (int64_t k = 0; k < d; ++k) {                                                          \
      to[k] = g0[k + d] * q0[k] - g0[k] * q0[k + d] + g1[k] * q1[k + d] - g1[k + d] * q1[k];   \
    }                                                                                          \
  }                                                                                            \
  MMKGC_CLONES void angles_row(const T* phase, int64_t d, T* cosine, T* sine) {                \
    MMKGC_INDEPENDENT                                                                          \
    for (int64_t k = 0; k < d; ++k) sine_cosine(phase[k], sine + k, cosine + k);               \
  }
MMKGC_ROTATE(float)
MMKGC_ROTATE(double)

}  // namespace

template <typename T>
void rotate_angles(const RotateTask<T>& task, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    if (task.starts[r] == task.starts[r + 1]) continue;
    const int64_t at = r * task.dim;
    angles_row(task.phases + at, task.dim, task.cosines + at, task.sines + at);
  }
}

template <typename T>
void rotate_queries(const RotateTask<T>& task, int64_t begin, int64_t end) {
  const int64_t d = task.dim;
  for (int64_t b = begin; b < end; ++b) {
    const int64_t angle = task.relations[b] * d;
    const T* cosine = task.cosines + angle;
    const T* sine = task.sines + angle;
    T* for_tail = task.queries + b * 2 * d;
    T* for_head = for_tail + task.batch * 2 * d;
    rotate_row(task.table + task.heads[b] * 2 * d, cosine, sine, T(1), d, for_tail);
    rotate_row(task.table + task.tails[b] * 2 * d, cosine, sine, T(-1), d, for_head);
  }
}

template <typename T>
void rotate_backward(const RotateTask<T>& task, int64_t begin, int64_t end) {
  const int64_t d = task.dim;
  const int64_t half = task.batch * 2 * d;
  for (int64_t b = begin; b < end; ++b) {
    const int64_t angle = task.relations[b] * d, row = b * 2 * d;
    const T* cosine = task.cosines + angle;
    const T* sine = task.sines + angle;
    T* g0 = task.d_known + row;
    T* g1 = g0 + half;
    phase_row(task.queries + row, g0, task.queries + half + row, g1, d,
              task.d_phase_rows + b * d);
    // The inverse of a rotation is its conjugate, which also maps gradients back.
    rotate_row(g0, cosine, sine, T(-1), d, g0);
    rotate_row(g1, cosine, sine, T(1), d, g1);
  }
}

template <typename T>
void rotate_sum_phases(const RotateTask<T>& task, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    T* out = task.d_phases + r * task.dim;
    std::fill_n(out, task.dim, T(0));
    for (int64_t i = task.starts[r]; i < task.starts[r + 1]; ++i) {
      add_row(task.d_phase_rows + task.order[i] * task.dim, task.dim, out);
    }
  }
}

#define MMKGC_INSTANTIATE(T)                                                      \
  template void rotate_angles<T>(const RotateTask<T>&, int64_t, int64_t);         \
  template void rotate_queries<T>(const RotateTask<T>&, int64_t, int64_t);        \
  template void rotate_backward<T>(const RotateTask<T>&, int64_t, int64_t);       \
  template void rotate_sum_phases<T>(const RotateTask<T>&, int64_t, int64_t);
MMKGC_INSTANTIATE(float)
MMKGC_INSTANTIATE(double)

}  // namespace mmkgc::cpu
