// Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): random bits
// that are a function of a key and a counter, and so do not depend on the device, the order or the
// number of threads. The torch version is in mmkgc_cli/ops/filtered_negatives.py.
#pragma once

#include <cstdint>

#include "gradient.h"

namespace mmkgc {

struct Random4 {
  uint32_t x[4];
};

MMKGC_HD Random4 philox(uint64_t key, uint64_t low, uint64_t high) {
  uint32_t c0 = static_cast<uint32_t>(low), c1 = static_cast<uint32_t>(low >> 32);
  uint32_t c2 = static_cast<uint32_t>(high), c3 = static_cast<uint32_t>(high >> 32);
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c0, p1 = uint64_t{0xCD9E8D57u} * c2;
    const uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    const uint32_t n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// A double in [0, 1) from 53 random bits.
MMKGC_HD double unit_interval(uint32_t a, uint32_t b) {
  return static_cast<double>((uint64_t{a} << 21) | (b >> 11)) * (1.0 / 9007199254740992.0);
}

}  // namespace mmkgc
