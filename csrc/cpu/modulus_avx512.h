// The gradients of RotatE's distances with the reciprocal roots of AVX-512, which need one Newton
// step where the portable code needs two.
#pragma once

#include <cstdint>

#include "sampled_blocks.h"

namespace mmkgc::cpu {

// Whether this processor can run the functions below; false on other architectures.
bool has_avx512();

// block_query_gradient for Metric::modulus without scales.
void block_query_gradient_avx512(const BlockTask<float>& task, int64_t runs, const float* grads,
                                 float* d_queries);

// Adds to dc the gradient of sum_i grads[i] |q_i - c| over the complex columns [0, half) of `count`
// query rows q_i, c and dc.
void candidate_gradient_avx512(const float* const* queries, const float* c, const float* grads,
                               int64_t count, int64_t half, float* dc);

}  // namespace mmkgc::cpu
