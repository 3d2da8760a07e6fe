// The loop that `rank_candidates` is measured against: RotatE distances of every query to every
// entity, counted, and nothing else: no ties, no filter, no equal queries scored once.
#include <algorithm>
#include <cmath>

extern "C" void count_closer(const float* queries, const float* table, const float* limit,
                             long n_queries, long entities, long dim, int* closer) {
  constexpr long kBlock = 16;
#pragma omp parallel for schedule(static)
  for (long begin = 0; begin < n_queries; begin += kBlock) {
    const long end = std::min(begin + kBlock, n_queries);
    std::fill(closer + begin, closer + end, 0);
    for (long e = 0; e < entities; ++e) {
      const float* c = table + e * 2 * dim;
      for (long q = begin; q < end; ++q) {
        const float* x = queries + q * 2 * dim;
        float sum = 0;
        for (long k = 0; k < dim; ++k) {
          const float re = x[k] - c[k], im = x[k + dim] - c[k + dim];
          sum += std::sqrt(re * re + im * im);
        }
        closer[q] += sum < limit[q];
      }
    }
  }
}
