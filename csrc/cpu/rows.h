// Sums of rows.
#pragma once

#include <cstdint>

namespace mmkgc::cpu {

// to += from, over n columns.
void add_row(const float* from, int64_t n, float* to);
void add_row(const double* from, int64_t n, double* to);

}  // namespace mmkgc::cpu
