// A sort by counting: the place of a number is the number of smaller ones. A warp compares each
// number with all others. A few thousand numbers fit into the L1 cache, so that a sort takes some
// microseconds. A radix sort is slower for so few.
#include "sort.h"

#include "../common/mapping.h"
#include "warp.h"

namespace mmkgc::cuda {
namespace {

constexpr int kWarps = 8;

__global__ void __launch_bounds__(kWarps * kWarp)
    place_each(const int64_t* first, int64_t n_first, const int64_t* second, int64_t n,
               int64_t* sorted, int64_t* order) {
  const int64_t i = warp_index();
  if (i >= n) return;
  const auto number = [&](int64_t at) { return at < n_first ? first[at] : second[at - n_first]; };
  const int64_t mine = number(i);
  int before = 0;
  for (int64_t at = lane_index(); at < n; at += kWarp) {
    const int64_t other = number(at);
    before += other < mine || (other == mine && at < i);
  }
  before = warp_sum(before);
  if (lane_index() == 0) {
    sorted[before] = mine;
    order[before] = i;
  }
}

}  // namespace

void sort_few(const char* op, const int64_t* first, int64_t n_first, const int64_t* second,
              int64_t n_second, int64_t* sorted, int64_t* order, void* stream) {
  const int64_t n = n_first + n_second;
  launch(op, place_each, {blocks_for(n, kWarps), kWarps * kWarp}, stream, first, n_first, second, n,
         sorted, order);
}

}  // namespace mmkgc::cuda
