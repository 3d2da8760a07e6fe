// Checks inside kernels, in debug builds (MMKGC_DEBUG=1 at build time) and in emulation. The host
// does not read values on a GPU, since it would have to wait. Messages on a device omit `op` and
// `name`, which may be host memory.
#pragma once

#include "launch.h"

#if defined(MMKGC_EMULATE)
#define MMKGC_CHECKED 1
// Throws the error of the bindings on the CPU.
#define MMKGC_CHECK_ID(op, name, index, value, bound)                                            \
  do {                                                                                           \
    const auto checked_ = static_cast<int64_t>(value);                                           \
    if (checked_ < 0 || checked_ >= static_cast<int64_t>(bound)) {                               \
      throw std::runtime_error(std::string(op) + name + "[" +                                    \
                               std::to_string(static_cast<int64_t>(index)) + "] is " +           \
                               std::to_string(checked_) +                                        \
                               ", outside 0.." + std::to_string(static_cast<int64_t>(bound) - 1)); \
    }                                                                                            \
  } while (0)

// Another condition on a value, which the message contains in its middle.
#define MMKGC_CHECK_VALUE(op, holds, before, value, after)                                \
  do {                                                                                    \
    if (!(holds)) {                                                                       \
      throw std::runtime_error(std::string(op) + before +                                 \
                               std::to_string(static_cast<int64_t>(value)) + after);      \
    }                                                                                     \
  } while (0)
#elif defined(MMKGC_DEBUG)
#include <cstdio>
#define MMKGC_CHECKED 1
#define MMKGC_CHECK_ID(op, name, index, value, bound)                                     \
  do {                                                                                    \
    const auto checked_ = static_cast<long long>(value);                                  \
    if (checked_ < 0 || checked_ >= static_cast<long long>(bound)) {                      \
      printf("mmkgc: " #value " [%lld] is %lld, outside 0..%lld\n",                       \
             static_cast<long long>(index), checked_, static_cast<long long>(bound) - 1); \
      __trap();                                                                           \
    }                                                                                     \
  } while (0)

#define MMKGC_CHECK_VALUE(op, holds, before, value, after)                        \
  do {                                                                            \
    if (!(holds)) {                                                               \
      printf("mmkgc: %s%lld%s\n", before, static_cast<long long>(value), after); \
      __trap();                                                                   \
    }                                                                             \
  } while (0)
#else
#define MMKGC_CHECKED 0
#define MMKGC_CHECK_ID(op, name, index, value, bound) \
  do {                                                \
  } while (0)
#define MMKGC_CHECK_VALUE(op, holds, before, value, after) \
  do {                                                     \
  } while (0)
#endif
