// A stable sort of few numbers that also returns their positions.
#pragma once

#include <cstdint>

namespace mmkgc::cuda {

// The most numbers to sort with sort_few; a radix sort is faster for more.
inline constexpr int64_t kFew = 4096;

// Sorts the n_first numbers of `first` followed by the n_second numbers of `second`.
void sort_few(const char* op, const int64_t* first, int64_t n_first, const int64_t* second,
              int64_t n_second, int64_t* sorted, int64_t* order, void* stream);

}  // namespace mmkgc::cuda
