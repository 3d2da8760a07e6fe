// exp for the arguments that losses need, and softplus and hinge with their derivatives.
// Host and device; the CPU tests cover the code of the GPU.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "gradient.h"

namespace mmkgc {

// e^x to 2e-7 for x <= 0 (and a little above), 0 below x = -87.7, the limit of float32; NaN stays
// NaN. A loop over this function vectorises. A multiple of the first 16 bits of log 2 is subtracted
// from x, which is exact. The remaining bits enter as a factor instead of a second difference,
// because the compiler may reorder sums and would merge the two. The polynomial is a minimax fit.
MMKGC_HD float exp_nonpositive(float x) {
  const float number = x > -88.0f ? x : -88.0f;   // converting NaN to an integer is undefined,
  const float bounded = x < -88.0f ? -88.0f : x;  // but the result must be NaN
  const int32_t k = static_cast<int32_t>(number * 1.44269504f - 0.5f);
  const float whole = static_cast<float>(k);
  const float r = bounded - whole * 0.693145751953125f;
  const float q =
      0.49999994f +
      r * (0.1666652f + r * (0.041668393f + r * (0.0083687808f + r * 0.0013814467f)));
  const int32_t bits = (k + 127) << 23;  // the bits of 2^k, or of 0 for k = -127, the minimum
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return (1 + r + r * r * q) * (1 - whole * 1.42860677e-6f) * power;
}

MMKGC_HD double exp_nonpositive(double x) { return std::exp(x); }

// softplus(x) = log(1 + e^x) = -log sigmoid(-x) and its derivative sigmoid(x), both with a relative
// error of 4e-7, from a = e^-|x| without overflow. log(1 + a) = 2 artanh(a / (2 + a)), which does
// not cancel near 0, is a minimax fit. One division serves both. A loop over this function
// vectorises.
MMKGC_HD float softplus(float x, float* slope) {
  const float a = exp_nonpositive(x > 0 ? -x : x);
  const float inverse = 1 / ((1 + a) * (2 + a));
  const float z = a * (1 + a) * inverse, w = z * z;
  const float q = 0.33333206f + w * (0.2001085f + w * (0.13999569f + w * 0.14012232f));
  *slope = (x > 0 ? 1.0f : a) * (2 + a) * inverse;
  return (x > 0 ? x : 0.0f) + (2 * z + 2 * z * w * q);
}

MMKGC_HD double softplus(double x, double* slope) {
  const double a = std::exp(x > 0 ? -x : x);
  *slope = (x > 0 ? 1.0 : a) / (1 + a);
  return (x > 0 ? x : 0.0) + std::log1p(a);
}

// max(0, x) and its derivative, which is 0 at 0. NaN stays NaN.
template <typename T>
MMKGC_HD T hinge(T x, T* slope) {
  *slope = x <= 0 ? T(0) : T(1);
  return x <= 0 ? T(0) : x;
}

}  // namespace mmkgc
