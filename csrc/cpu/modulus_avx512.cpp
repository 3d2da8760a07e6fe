#include "modulus_avx512.h"

#include <algorithm>
#include <cfloat>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(MMKGC_NO_CLONES)

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // in a header of GCC 12
#include <immintrin.h>
#pragma GCC diagnostic pop

#define MMKGC_AVX512 __attribute__((target("avx512f")))

namespace mmkgc::cpu {
namespace {

constexpr int64_t kLanes = 16;
constexpr int64_t kAhead = 8;  // distance of prefetching, in runs

MMKGC_AVX512 inline __mmask16 first_lanes(int64_t n) {
  return static_cast<__mmask16>(n >= kLanes ? 0xffff : (1 << n) - 1);
}

// 1 / sqrt(x) to 1e-8 before rounding, with the bounds of inverse_root in common/gradient.h. The
// maximum and the minimum return their second argument if that is NaN. Half of x must be finite: at
// infinity y is 0, and so is the result.
MMKGC_AVX512 inline __m512 inverse_root(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(0x1p-126f), x);
  const __m512 y = _mm512_rsqrt14_ps(x);
  const __m512 finite = _mm512_min_ps(_mm512_set1_ps(FLT_MAX), x);
  const __m512 half_x = _mm512_mul_ps(_mm512_set1_ps(0.5f), finite);
  const __m512 rest = _mm512_fnmadd_ps(_mm512_mul_ps(half_x, y), y, _mm512_set1_ps(1.5f));
  return _mm512_mul_ps(y, rest);
}

}  // namespace

bool has_avx512() { return __builtin_cpu_supports("avx512f"); }

MMKGC_AVX512 void block_query_gradient_avx512(const BlockTask<float>& task, int64_t runs,
                                              const float* grads, float* d_queries) {
  const __mmask16 lanes = first_lanes(task.block.width);
  const int64_t half = task.block.half;
  for (const Run *run = task.runs, *last = task.runs + runs; run < last; ++run) {
    const float* c = task.table + run->entity * task.stride + task.block.candidate;
    const __m512 cr = _mm512_maskz_loadu_ps(lanes, c);
    const __m512 ci = _mm512_maskz_loadu_ps(lanes, c + half);
    const Run* ahead = std::min(run + kAhead, last - 1);
    const float* next = task.table + ahead->entity * task.stride + task.block.candidate;
    __builtin_prefetch(next);
    __builtin_prefetch(next + half);
    for (int64_t i = run->begin; i < run->end; ++i) {
      const int64_t at = task.where[i] * kBlock;
      const float* q = task.queries + at;
      float* dq = d_queries + at;
      const __m512 re = _mm512_sub_ps(_mm512_maskz_loadu_ps(lanes, q), cr);
      const __m512 im = _mm512_sub_ps(_mm512_maskz_loadu_ps(lanes, q + kLanes), ci);
      const __m512 squares = _mm512_fmadd_ps(re, re, _mm512_mul_ps(im, im));
      const __m512 f = _mm512_mul_ps(_mm512_set1_ps(grads[i]), inverse_root(squares));
      const __m512 dr = _mm512_maskz_loadu_ps(lanes, dq);
      const __m512 di = _mm512_maskz_loadu_ps(lanes, dq + kLanes);
      _mm512_mask_storeu_ps(dq, lanes, _mm512_fnmadd_ps(f, re, dr));
      _mm512_mask_storeu_ps(dq + kLanes, lanes, _mm512_fnmadd_ps(f, im, di));
    }
  }
}

MMKGC_AVX512 void candidate_gradient_avx512(const float* const* queries, const float* c,
                                            const float* grads, int64_t count, int64_t half,
                                            float* dc) {
  for (int64_t k = 0; k < half; k += kLanes) {
    const __mmask16 lanes = first_lanes(half - k);
    const __m512 cr = _mm512_maskz_loadu_ps(lanes, c + k);
    const __m512 ci = _mm512_maskz_loadu_ps(lanes, c + k + half);
    __m512 dr = _mm512_maskz_loadu_ps(lanes, dc + k);
    __m512 di = _mm512_maskz_loadu_ps(lanes, dc + k + half);
    for (int64_t i = 0; i < count; ++i) {
      const float* q = queries[i] + k;
      const __m512 re = _mm512_sub_ps(_mm512_maskz_loadu_ps(lanes, q), cr);
      const __m512 im = _mm512_sub_ps(_mm512_maskz_loadu_ps(lanes, q + half), ci);
      const __m512 squares = _mm512_fmadd_ps(re, re, _mm512_mul_ps(im, im));
      const __m512 f = _mm512_mul_ps(_mm512_set1_ps(grads[i]), inverse_root(squares));
      dr = _mm512_fmadd_ps(f, re, dr);
      di = _mm512_fmadd_ps(f, im, di);
    }
    _mm512_mask_storeu_ps(dc + k, lanes, dr);
    _mm512_mask_storeu_ps(dc + k + half, lanes, di);
  }
}

}  // namespace mmkgc::cpu

#else

namespace mmkgc::cpu {

bool has_avx512() { return false; }
void block_query_gradient_avx512(const BlockTask<float>&, int64_t, const float*, float*) {}
void candidate_gradient_avx512(const float* const*, const float*, const float*, int64_t, int64_t,
                               float*) {}

}  // namespace mmkgc::cpu

#endif
