// Gradients of one term of a score, as one coefficient per column (or complex column):
// with diff = q - w * c, d(score)/dq = factor * diff and d(score)/dc = -w * factor * diff.
// Host and device; the CPU tests cover the code of the GPU.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define MMKGC_HD __host__ __device__ __forceinline__
#else
#define MMKGC_HD inline __attribute__((always_inline))
#endif

namespace mmkgc {

// 1 / sqrt(x) to 7e-7, from two Newton steps with the coefficients of Moroz et al. (2018, "Fast
// calculation of inverse square root with the use of magic constant"). A loop over this function
// vectorises and is several times as fast as a root and a division. x below the smallest normal
// number, 2^-126, counts as this number: the result is at most 2^63, and its product with a
// difference of 0 is 0, the gradient at distance 0. (Its square must be finite as well, since the
// compiler may reorder multiplications.) The result is 0 at infinity. The reference (_Norm in
// mmkgc_cli/ops/metric.py) has the same bounds. The bits are compared as integers, which takes one
// instruction: x is not negative, and NaN of either sign exceeds all numbers and is kept.
MMKGC_HD float inverse_root(float x) {
  constexpr uint32_t kSmallest = 0x00800000u;
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  bits = bits < kSmallest ? kSmallest : bits;
#if defined(__CUDA_ARCH__)
  std::memcpy(&x, &bits, sizeof x);
  float root;  // one instruction, to 1e-7
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(root) : "f"(x));
  return root;
#else
  // At infinity y begins and stays at 0, and x must be finite.
  const bool infinite = bits == 0x7f800000u;
  bits -= infinite;
  std::memcpy(&x, &bits, sizeof x);
  bits = infinite ? 0u : 0x5f376908u - (bits >> 1);
  float y;
  std::memcpy(&y, &bits, sizeof y);
  const float half = 0.5f * x;
  y = y * (1.5008789f - half * y * y);
  y = y * (1.5000006f - half * y * y);
  return y;
#endif
}

// A sum of squares with at least the value of the smallest normal number; NaN is kept.
MMKGC_HD float at_least_normal(float x) { return x < 0x1p-126f ? 0x1p-126f : x; }
MMKGC_HD double at_least_normal(double x) { return x < 0x1p-1022 ? 0x1p-1022 : x; }

MMKGC_HD double inverse_root(double x) { return 1 / std::sqrt(at_least_normal(x)); }

// The root of x. On a GPU it is accurate to 2^-23 and takes one instruction, where correct rounding
// would take ten more; x below 2^-126 counts as 0 there, and a root below 2^-63 as well.
MMKGC_HD float root(float x) {
#if defined(__CUDA_ARCH__)
  float out;
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
#else
  return std::sqrt(x);
#endif
}

MMKGC_HD double root(double x) { return std::sqrt(x); }  // correctly rounded on all devices

// Sine and cosine of x to 2e-7 for the usual phases (|x| up to thousands): reduction to an eighth
// of a turn, then the polynomials of the Cephes library. A loop over this function vectorises. The
// reduction is in double: in float, a quarter turn would need two constants, which a compiler that
// may reorder sums would add.
MMKGC_HD void sine_cosine(float x, float* sine, float* cosine) {
  const float quarters = std::rint(x * 0.636619772367581f);
  const float r = static_cast<float>(x - quarters * 1.5707963267948966);
  // Converting NaN or a very large number to int is undefined.
  const int quadrant = static_cast<int>(std::abs(quarters) < 1e9f ? quarters : 0.0f);
  const float z = r * r;
  const float s = r + r * z * (-0.16666654611f + z * (0.0083321608736f - z * 0.00019515295891f));
  const float c = 1 - 0.5f * z +
                  z * z * (0.041666645683f + z * (-0.0013887316255f + z * 0.000024433157118f));
  const bool swapped = quadrant & 1;
  const float a = swapped ? c : s, b = swapped ? s : c;
  *sine = quadrant & 2 ? -a : a;
  *cosine = (quadrant + 1) & 2 ? -b : b;
}

MMKGC_HD void sine_cosine(double x, double* sine, double* cosine) {
  *sine = std::sin(x);
  *cosine = std::cos(x);
}

// The sign of x, 0 at 0.
template <typename T>
MMKGC_HD T sign_of(T x) {
  return (x > 0 ? T(1) : T(0)) - (x < 0 ? T(1) : T(0));
}

}  // namespace mmkgc
