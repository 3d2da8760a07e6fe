// Torch glue of mmkgc::rank_candidates; the work is in cpu/rank_candidates.cpp.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>
#include <vector>

#include "../../cpu/rank_candidates.h"
#include "../checks/rank_arguments.h"

namespace mmkgc {
namespace {

constexpr const char* kOp = "rank_candidates: ";

template <typename T>
void run(const RankArguments& arguments) {
  const RankTask<T> task = arguments.task<T>();
  torch::stable::parallel_for(
      0, task.n_queries, cpu::kQueryBlock / 4,
      [&](int64_t begin, int64_t end) { cpu::rank_queries(task, begin, end); });
}

std::tuple<Tensor, Tensor, Tensor> rank_candidates(
    const Tensor& queries, const Tensor& table, const Tensor& target_ptr, const Tensor& target_ids,
    const Tensor& filter_ptr, const Tensor& filter_ids, int64_t metric,
    const std::vector<int64_t>& pairs, const std::vector<double>& weights,
    std::optional<Tensor> scale) {
  const RankArguments arguments(kOp, queries, table, target_ptr, target_ids, filter_ptr, filter_ids,
                                metric, pairs, weights, scale);
  const auto work = queries.scalar_type() == ScalarType::Float ? run<float> : run<double>;
  work(arguments);
  return {arguments.better, arguments.equal, arguments.nonfinite};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, CPU, m) {
  m.impl("rank_candidates", TORCH_BOX(&rank_candidates));
}

}  // namespace mmkgc
