// Few numbers sorted with where they stood, equal ones in order.
#pragma once

#include <cstdint>

namespace mmkgc::cuda {

// Up to so many; more are for a sort by digits, which takes longer than this on few.
inline constexpr int64_t kFew = 4096;

// The n_first numbers of `first` and the n_second of `second` behind them.
void sort_few(const char* op, const int64_t* first, int64_t n_first, const int64_t* second,
              int64_t n_second, int64_t* sorted, int64_t* order, void* stream);

}  // namespace mmkgc::cuda
