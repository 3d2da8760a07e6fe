// RotatE's queries and the gradients of entities and phases.
#include "rotate_score.h"

#include "../common/gradient.h"
#include "../common/mapping.h"
#include "check.h"
#include "warp.h"

namespace mmkgc::cuda {
namespace {

constexpr int kThreads = 256;

template <typename A>
struct Complex {
  A re, im;
};

// A complex number times a number of modulus 1.
template <typename A>
__device__ __forceinline__ Complex<A> rotated(A re, A im, A cosine, A sine) {
  return {re * cosine - im * sine, re * sine + im * cosine};
}

// One thread per complex column of a positive.
template <typename T>
__global__ void __launch_bounds__(kThreads) make_queries(const RotateTask<T> task) {
  using A = Accumulator<T>;
  const int64_t at = thread_index(), d = task.dim;
  if (at >= task.batch * d) return;
  const int64_t b = at / d, k = at - b * d;
  const int64_t head = task.heads[b], relation = task.relations[b], tail = task.tails[b];
  MMKGC_CHECK_ID(task.op, "heads", b, head, task.entities);
  MMKGC_CHECK_ID(task.op, "relations", b, relation, task.n_relations);
  MMKGC_CHECK_ID(task.op, "tails", b, tail, task.entities);
  A sine, cosine;
  sine_cosine(task.phases[relation * d + k], &sine, &cosine);
  const T* h = task.table + head * 2 * d + k;
  const T* t = task.table + tail * 2 * d + k;
  const auto for_tail = rotated(to_float(h[0]), to_float(h[d]), cosine, sine);
  const auto for_head = rotated(to_float(t[0]), to_float(t[d]), cosine, -sine);
  A* query = task.queries + b * 2 * d + k;
  query[0] = for_tail.re;
  query[d] = for_tail.im;
  query += task.batch * 2 * d;
  query[0] = for_head.re;
  query[d] = for_head.im;
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    turn_back(const RotateTask<T> task, Accumulator<T>* d_known, Accumulator<T>* d_phase_rows) {
  using A = Accumulator<T>;
  const int64_t at = thread_index(), d = task.dim;
  if (at >= task.batch * d) return;
  const int64_t b = at / d, k = at - b * d, row = b * 2 * d + k, half = task.batch * 2 * d;
  A sine, cosine;
  sine_cosine(task.phases[task.relations[b] * d + k], &sine, &cosine);
  const A* q0 = task.queries + row;
  const A* q1 = q0 + half;
  A* g0 = d_known + row;
  A* g1 = g0 + half;
  d_phase_rows[at] = g0[d] * q0[0] - g0[0] * q0[d] + g1[0] * q1[d] - g1[d] * q1[0];
  // The inverse of a rotation is its conjugate, which also maps gradients back.
  const auto head = rotated(g0[0], g0[d], cosine, -sine);
  const auto tail = rotated(g1[0], g1[d], cosine, sine);
  g0[0] = head.re;
  g0[d] = head.im;
  g1[0] = tail.re;
  g1[d] = tail.im;
}

template <typename A>
__global__ void __launch_bounds__(kThreads)
    sum_phases(const A* rows, const int64_t* order, const int64_t* starts, int64_t relations,
               int64_t dim, A* out) {
  const int64_t at = thread_index();
  if (at >= relations * dim) return;
  const int64_t r = at / dim, k = at - r * dim;
  A sum = 0;
  for (int64_t i = starts[r]; i < starts[r + 1]; ++i) sum += rows[order[i] * dim + k];
  out[at] = sum;
}

}  // namespace

template <typename T>
void rotate_queries(const RotateTask<T>& task, void* stream) {
  launch(task.op, make_queries<T>, {blocks_for(task.batch * task.dim, kThreads), kThreads}, stream,
         task);
}

template <typename T>
void rotate_backward(const RotateTask<T>& task, Accumulator<T>* d_known,
                     Accumulator<T>* d_phase_rows, void* stream) {
  launch(task.op, turn_back<T>, {blocks_for(task.batch * task.dim, kThreads), kThreads}, stream,
         task, d_known, d_phase_rows);
}

template <typename T>
void rotate_sum_phases(const RotateTask<T>& task, const Accumulator<T>* d_phase_rows,
                       const int64_t* order, const int64_t* starts, Accumulator<T>* d_phases,
                       void* stream) {
  launch(task.op, sum_phases<Accumulator<T>>,
         {blocks_for(task.n_relations * task.dim, kThreads), kThreads}, stream, d_phase_rows, order,
         starts, task.n_relations, task.dim, d_phases);
}

#define MMKGC_INSTANTIATE(T)                                                                   \
  template void rotate_queries<T>(const RotateTask<T>&, void*);                                \
  template void rotate_backward<T>(const RotateTask<T>&, Accumulator<T>*, Accumulator<T>*, void*); \
  template void rotate_sum_phases<T>(const RotateTask<T>&, const Accumulator<T>*, const int64_t*,  \
                                     const int64_t*, Accumulator<T>*, void*);
MMKGC_INSTANTIATE(float)
MMKGC_INSTANTIATE(double)
MMKGC_INSTANTIATE(Half)
MMKGC_INSTANTIATE(BFloat16)

}  // namespace mmkgc::cuda
