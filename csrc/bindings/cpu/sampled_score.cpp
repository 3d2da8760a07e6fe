// Checks and torch glue of mmkgc::sampled_score and its backward; the work is in cpu/.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>
#include <vector>

#include "../checks/sampled_arguments.h"
#include "sampled_passes.h"
#include "sorted_candidates.h"

namespace mmkgc {
namespace {

constexpr const char* kOp = "sampled_score: ";

template <typename T>
void forward(const SampledArguments& arguments, const SortedCandidates& order, const Tensor& scores) {
  cpu::SampledTask<T> task = sampled_task<T>(arguments, order);
  task.scores = scores.mutable_data_ptr<T>();
  run_forward(task);
}

// `d_table` is absent when somebody else makes the gradient of the table.
template <typename T>
void backward(const SampledArguments& arguments, const Tensor& grad,
              const SortedCandidates& order, const Tensor& d_queries,
              const std::optional<Tensor>& d_table, const Tensor& d_scale) {
  cpu::SampledTask<T> task = sampled_task<T>(arguments, order);
  task.grad = grad.const_data_ptr<T>();
  task.d_queries = d_queries.mutable_data_ptr<T>();
  task.d_scale = arguments.scale ? d_scale.mutable_data_ptr<T>() : nullptr;
  run_backward_queries(task);
  if (!d_table) return;
  task.d_table = d_table->mutable_data_ptr<T>();
  run_backward_table(task);
}

Tensor sampled_score(const Tensor& queries, const Tensor& table, const Tensor& ids,
                     const Tensor& side, int64_t metric, const std::vector<int64_t>& pairs,
                     const std::vector<double>& weights, std::optional<Tensor> scale,
                     std::optional<Tensor> order) {
  const SampledArguments arguments(kOp, queries, table, ids, side, metric, pairs, weights, scale);
  const Tensor scores =
      torch::stable::new_empty(queries, {arguments.queries.size(1), arguments.candidates.ids.size(1)});
  const bool single = queries.scalar_type() == ScalarType::Float;
  const SortedCandidates sorted(kOp, arguments.candidates, arguments.table.size(0), order);
  (single ? forward<float> : forward<double>)(arguments, sorted, scores);
  return scores;
}

std::tuple<Tensor, Tensor, Tensor> sampled_score_backward(
    const Tensor& grad_in, const Tensor& queries, const Tensor& table, const Tensor& ids,
    const Tensor& side, int64_t metric, const std::vector<int64_t>& pairs,
    const std::vector<double>& weights, std::optional<Tensor> scale,
    std::optional<Tensor> order_in) {
  const SampledArguments arguments(kOp, queries, table, ids, side, metric, pairs, weights, scale);
  const Tensor& ids_of = arguments.candidates.ids;
  const Tensor grad = checked_gradient(kOp, grad_in, ids_of, "queries", queries);
  const SortedCandidates order(kOp, arguments.candidates, arguments.table.size(0), order_in);
  const Tensor d_queries = torch::stable::empty_like(arguments.queries);
  const Tensor d_table = torch::stable::empty_like(arguments.table);
  const Tensor d_scale = arguments.d_scale();
  const bool single = queries.scalar_type() == ScalarType::Float;
  (single ? backward<float> : backward<double>)(arguments, grad, order, d_queries, d_table,
                                                d_scale);
  return {d_queries, d_table, d_scale};
}

std::tuple<Tensor, Tensor> sampled_score_backward_queries(
    const Tensor& grad_in, const Tensor& queries, const Tensor& table, const Tensor& ids,
    const Tensor& side, int64_t metric, const std::vector<int64_t>& pairs,
    const std::vector<double>& weights, std::optional<Tensor> scale,
    std::optional<Tensor> order_in) {
  const SampledArguments arguments(kOp, queries, table, ids, side, metric, pairs, weights, scale);
  const SortedCandidates order(kOp, arguments.candidates, arguments.table.size(0), order_in);
  const Tensor grad =
      checked_gradient(kOp, grad_in, arguments.candidates.ids, "queries", queries);
  const Tensor d_queries = torch::stable::empty_like(arguments.queries);
  const Tensor d_scale = arguments.d_scale();
  const bool single = queries.scalar_type() == ScalarType::Float;
  (single ? backward<float> : backward<double>)(arguments, grad, order, d_queries,
                                                std::nullopt, d_scale);
  return {d_queries, d_scale};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, CPU, m) {
  m.impl("sampled_score", TORCH_BOX(&sampled_score));
  m.impl("sampled_score_backward", TORCH_BOX(&sampled_score_backward));
  m.impl("sampled_score_backward_queries", TORCH_BOX(&sampled_score_backward_queries));
}

}  // namespace mmkgc
