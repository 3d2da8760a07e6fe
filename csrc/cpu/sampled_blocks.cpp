#include "sampled_blocks.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "../common/clones.h"
#include "../common/gradient.h"
#include "modulus_avx512.h"
#include "score_rows.h"

namespace mmkgc::cpu {
namespace {

constexpr int64_t kComplex = kBlock / 2;
constexpr int64_t kAhead = 8;  // distance of prefetching, in runs

// The columns of one candidate, kept while its queries are streamed.
template <Metric M, typename T>
struct CandidateColumns {
  T re[M == Metric::modulus ? kComplex : kBlock];
  T im[M == Metric::modulus ? kComplex : 1];

  MMKGC_INLINE CandidateColumns(const BlockTask<T>& task, const Run* run, const Run* last,
                                int64_t n) {
    const T* row = task.table + run->entity * task.stride + task.block.candidate;
    for (int64_t k = 0; k < n; ++k) re[k] = row[k];
    if constexpr (M == Metric::modulus) {
      for (int64_t k = 0; k < n; ++k) im[k] = row[k + task.block.half];
    }
    const Run* ahead = std::min(run + kAhead, last - 1);
    const T* next = task.table + ahead->entity * task.stride + task.block.candidate;
    constexpr int64_t kLine = 64 / sizeof(T);
    for (int64_t k = 0; k < n; k += kLine) {
      __builtin_prefetch(next + k);
      if constexpr (M == Metric::modulus) __builtin_prefetch(next + k + task.block.half);
    }
  }
};

template <Metric M, bool Scaled, bool Full, typename T>
MMKGC_INLINE void sum_terms(const BlockTask<T>& task, int64_t begin, int64_t end, int64_t origin,
                            T* terms) {
  const int64_t n = Full ? (M == Metric::modulus ? kComplex : kBlock) : task.block.width;
  for (const Run *run = task.runs + begin, *last = task.runs + end; run < last; ++run) {
    const CandidateColumns<M, T> c(task, run, last, n);
    for (int64_t i = run->begin; i < run->end; ++i) {
      MMKGC_ONE_AT_A_TIME;
      const T* q = task.queries + task.where[i] * kBlock;
      const T* w = Scaled ? task.scales + task.where[i] * kBlock : nullptr;
      T sum = 0;
      MMKGC_NOT_UNROLLED
      for (int64_t k = 0; k < n; ++k) {
        if constexpr (M == Metric::modulus) {
          const T re = q[k] - (Scaled ? w[k] : T(1)) * c.re[k];
          const T im = q[k + kComplex] - (Scaled ? w[k + kComplex] : T(1)) * c.im[k];
          sum += std::sqrt(re * re + im * im);
        } else if constexpr (M == Metric::dot) {
          sum += q[k] * (Scaled ? w[k] : T(1)) * c.re[k];
        } else {
          const T d = q[k] - (Scaled ? w[k] : T(1)) * c.re[k];
          sum += M == Metric::l1 ? std::abs(d) : d * d;
        }
      }
      terms[i - origin] = sum;
    }
  }
}

template <Metric M, bool Scaled, bool Full, typename T>
MMKGC_INLINE void sum_gradients(const BlockTask<T>& task, int64_t runs, const T* grads,
                                T* __restrict__ d_queries, T* __restrict__ d_scales) {
  const int64_t n = Full ? (M == Metric::modulus ? kComplex : kBlock) : task.block.width;
  for (const Run *run = task.runs, *last = task.runs + runs; run < last; ++run) {
    const CandidateColumns<M, T> c(task, run, last, n);
    for (int64_t i = run->begin; i < run->end; ++i) {
      MMKGC_ONE_AT_A_TIME;
      const int64_t at = task.where[i] * kBlock;
      const T* q = task.queries + at;
      const T* w = Scaled ? task.scales + at : nullptr;
      T* dq = d_queries + at;
      T* dw = Scaled ? d_scales + at : nullptr;
      const T g = grads[i];
      MMKGC_NOT_UNROLLED
      for (int64_t k = 0; k < n; ++k) {
        if constexpr (M == Metric::modulus) {
          const T re = q[k] - (Scaled ? w[k] : T(1)) * c.re[k];
          const T im = q[k + kComplex] - (Scaled ? w[k + kComplex] : T(1)) * c.im[k];
          const T f = g * inverse_root(re * re + im * im);
          dq[k] -= f * re;
          dq[k + kComplex] -= f * im;
          if constexpr (Scaled) {
            dw[k] += f * re * c.re[k];
            dw[k + kComplex] += f * im * c.im[k];
          }
        } else if constexpr (M == Metric::dot) {
          const T x = g * c.re[k];
          dq[k] += x * (Scaled ? w[k] : T(1));
          if constexpr (Scaled) dw[k] += x * q[k];
        } else {
          const T d = q[k] - (Scaled ? w[k] : T(1)) * c.re[k];
          const T f = g * (M == Metric::l1 ? sign_of(d) : d);
          dq[k] -= f;
          if constexpr (Scaled) dw[k] += f * c.re[k];
        }
      }
    }
  }
}

#define MMKGC_TERMS(name, metric, scaled, T)                                                       \
  MMKGC_CLONES void name(const BlockTask<T>& task, int64_t begin, int64_t end, int64_t origin,     \
                         T* terms) {                                                               \
    const int64_t full = metric == Metric::modulus ? kComplex : kBlock;                            \
    task.block.width == full                                                                       \
        ? sum_terms<metric, scaled, true, T>(task, begin, end, origin, terms)                      \
        : sum_terms<metric, scaled, false, T>(task, begin, end, origin, terms);                    \
  }
MMKGC_FOR_EACH_METRIC(MMKGC_TERMS, terms)

template <typename T>
using TermsFunction = void (*)(const BlockTask<T>&, int64_t, int64_t, int64_t, T*);

MMKGC_PICK(terms, TermsFunction<float>, TermsFunction<double>)

#define MMKGC_GRADIENTS(name, metric, scaled, T)                                                  \
  MMKGC_CLONES void name(const BlockTask<T>& task, int64_t runs, const T* grads, T* dq, T* dw) {  \
    const int64_t full = metric == Metric::modulus ? kComplex : kBlock;                           \
    task.block.width == full ? sum_gradients<metric, scaled, true, T>(task, runs, grads, dq, dw)  \
                             : sum_gradients<metric, scaled, false, T>(task, runs, grads, dq, dw); \
  }
MMKGC_FOR_EACH_METRIC(MMKGC_GRADIENTS, gradients)

template <typename T>
using Gradients = void (*)(const BlockTask<T>&, int64_t, const T*, T*, T*);

MMKGC_PICK(gradients, Gradients<float>, Gradients<double>)

}  // namespace

std::vector<Block> make_blocks(const Pair* pairs, int64_t n_pairs, Metric metric) {
  std::vector<Block> blocks;
  const bool complex = metric == Metric::modulus;
  for (int64_t p = 0; p < n_pairs; ++p) {
    const int64_t half = complex ? pairs[p].width / 2 : 0;
    const int64_t columns = complex ? half : pairs[p].width;
    const int64_t step = complex ? kComplex : kBlock;
    for (int64_t k = 0; k < columns; k += step) {
      blocks.push_back({p, pairs[p].query + k, pairs[p].candidate + k,
                        std::min(step, columns - k), half});
    }
  }
  return blocks;
}

template <typename T>
void pack_rows(const T* rows, int64_t n, int64_t row_width, const Block& block, bool of_candidate,
               T* packed) {
  const T* from = rows + (of_candidate ? block.candidate : block.query);
  if (block.half && block.width == kComplex) {
    for (int64_t i = 0; i < n; ++i, from += row_width, packed += kBlock) {
      std::copy_n(from, kComplex, packed);
      std::copy_n(from + block.half, kComplex, packed + kComplex);
    }
    return;
  }
  for (int64_t i = 0; i < n; ++i, from += row_width, packed += kBlock) {
    std::copy_n(from, block.width, packed);
    if (block.half) std::copy_n(from + block.half, block.width, packed + kComplex);
  }
}

template <typename T>
void unpack_rows(const T* packed, int64_t n, int64_t row_width, const Block& block,
                 bool of_candidate, T* rows) {
  T* to = rows + (of_candidate ? block.candidate : block.query);
  for (int64_t i = 0; i < n; ++i, to += row_width, packed += kBlock) {
    for (int64_t k = 0; k < block.width; ++k) to[k] += packed[k];
    if (!block.half) continue;
    for (int64_t k = 0; k < block.width; ++k) to[k + block.half] += packed[k + kComplex];
  }
}

template <typename T>
void block_terms(const BlockTask<T>& task, int64_t begin, int64_t end, int64_t origin, T* terms) {
  pick_terms(task.metric, task.scales != nullptr, T())(task, begin, end, origin, terms);
}

template <typename T>
void block_query_gradient(const BlockTask<T>& task, int64_t runs, const T* grads, T* d_queries,
                          T* d_scales) {
  if constexpr (std::is_same_v<T, float>) {
    if (task.metric == Metric::modulus && !task.scales && has_avx512()) {
      block_query_gradient_avx512(task, runs, grads, d_queries);
      return;
    }
  }
  pick_gradients(task.metric, task.scales != nullptr, T())(task, runs, grads, d_queries, d_scales);
}

#define MMKGC_INSTANTIATE(T)                                                                   \
  template void pack_rows<T>(const T*, int64_t, int64_t, const Block&, bool, T*);              \
  template void unpack_rows<T>(const T*, int64_t, int64_t, const Block&, bool, T*);            \
  template void block_terms<T>(const BlockTask<T>&, int64_t, int64_t, int64_t, T*);            \
  template void block_query_gradient<T>(const BlockTask<T>&, int64_t, const T*, T*, T*);
MMKGC_INSTANTIATE(float)
MMKGC_INSTANTIATE(double)

}  // namespace mmkgc::cpu
