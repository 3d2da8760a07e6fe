// The four metrics between a query row and a candidate row, and the blocks of columns.
#pragma once

#include <cstdint>

namespace mmkgc {

// The values are part of the schemas; mmkgc_cli/ops/metric.py has the same values.
enum class Metric : int64_t { dot = 0, l1 = 1, l2 = 2, modulus = 3 };

// One term of a score: columns [query, query + width) of the query row against columns
// [candidate, candidate + width) of the candidate row. Under `modulus` the first half of each
// block holds the real parts and the second half the imaginary parts.
struct Pair {
  int64_t query;
  int64_t candidate;
  int64_t width;
  double weight;
};

}  // namespace mmkgc
