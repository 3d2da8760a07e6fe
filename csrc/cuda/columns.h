// The width of loads that a task of sampled scoring allows, and its metric, as template arguments.
#pragma once

#include "packed.h"
#include "sampled_task.h"
#include "warp.h"

namespace mmkgc::cuda {

// Whether a lane may load `vector` columns at once from the table and from the queries.
template <typename T>
bool allows(const SampledTask<T>& task, int vector) {
  if (task.narrow) return false;
  bool even = fits(task.table, vector) && fits(task.queries, vector) &&
              task.query_width % vector == 0 && task.candidate_width % vector == 0;
  for (int p = 0; p < task.terms.n; ++p) {
    const auto& term = task.terms.term[p];
    const int width = task.metric == Metric::modulus ? term.width / 2 : term.width;
    even = even && term.query % vector == 0 && term.candidate % vector == 0 && width % vector == 0;
  }
  return even;
}

// Whether there is one pair of whole rows, so that a lane can work on both parts of complex
// columns.
template <typename T>
bool is_whole(const SampledTask<T>& task) {
  const auto& term = task.terms.term[0];
  return task.terms.n == 1 && term.query == 0 && term.candidate == 0 &&
         term.width == task.query_width && term.width == task.candidate_width;
}

template <typename Use>
void with_metric(Metric metric, Use use) {
  switch (metric) {
    case Metric::dot: return use.template operator()<Metric::dot>();
    case Metric::l1: return use.template operator()<Metric::l1>();
    case Metric::l2: return use.template operator()<Metric::l2>();
    default: return use.template operator()<Metric::modulus>();
  }
}

// The widest load that a task allows, as a template argument: 16 bytes, 8 bytes (float only, for
// rows such as 250 complex columns), or one column. With a scale, one column.
template <typename T, typename Use>
void with_vector(const SampledTask<T>& task, Use use) {
  if (task.scale) return use.template operator()<1, true>();
  if (allows(task, kWide<T>)) return use.template operator()<kWide<T>, false>();
  if constexpr (sizeof(T) == 4) {
    if (allows(task, 2)) return use.template operator()<2, false>();
  }
  return use.template operator()<1, false>();
}

}  // namespace mmkgc::cuda
