// float16 and bfloat16, the low-precision dtypes of tables; arithmetic is in float32. Host and
// device, without CUDA's headers, so that the CPU tests cover the same types.
#pragma once

#include <cstdint>
#include <cstring>

#include "gradient.h"

namespace mmkgc {

struct Half {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

MMKGC_HD float to_float(Half x) {
#if defined(__CUDA_ARCH__)
  float out;
  asm("cvt.f32.f16 %0, %1;" : "=f"(out) : "h"(x.bits));
  return out;
#else
  _Float16 half;
  std::memcpy(&half, &x.bits, sizeof half);
  return static_cast<float>(half);
#endif
}

MMKGC_HD float to_float(BFloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float out;
  std::memcpy(&out, &bits, sizeof out);
  return out;
}

MMKGC_HD float to_float(float x) { return x; }
MMKGC_HD double to_float(double x) { return x; }

// Rounds to nearest, ties to even; NaN stays NaN.
template <typename T>
struct RoundTo;

template <>
struct RoundTo<float> {
  MMKGC_HD static float from(float x) { return x; }
};

template <>
struct RoundTo<double> {
  MMKGC_HD static double from(double x) { return x; }
};

template <>
struct RoundTo<Half> {
  MMKGC_HD static Half from(float x) {
    Half out;
#if defined(__CUDA_ARCH__)
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out.bits) : "f"(x));
#else
    const _Float16 half = static_cast<_Float16>(x);
    std::memcpy(&out.bits, &half, sizeof half);
#endif
    return out;
  }
};

template <>
struct RoundTo<BFloat16> {
  MMKGC_HD static BFloat16 from(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((bits >> 16) | 0x40u)};
    return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
  }
};

// The type of the arithmetic on values of type T.
template <typename T>
struct AccumulatorOf {
  using type = float;
};

template <>
struct AccumulatorOf<double> {
  using type = double;
};

template <typename T>
using Accumulator = typename AccumulatorOf<T>::type;

}  // namespace mmkgc
