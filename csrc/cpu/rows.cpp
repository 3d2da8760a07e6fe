#include "rows.h"

#include "../common/clones.h"

namespace mmkgc::cpu {
namespace {

#define MMKGC_ADD(name, T)                                                       \
  MMKGC_CLONES void name(const T* from, int64_t n, T* to) {                      \
    for (int64_t k = 0; k < n; ++k) to[k] += from[k];                            \
  }
MMKGC_ADD(add_f32, float)
MMKGC_ADD(add_f64, double)

}  // namespace

void add_row(const float* from, int64_t n, float* to) { add_f32(from, n, to); }
void add_row(const double* from, int64_t n, double* to) { add_f64(from, n, to); }

}  // namespace mmkgc::cpu
