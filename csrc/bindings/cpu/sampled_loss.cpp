// Checks and torch glue of mmkgc::sampled_loss; the work is in cpu/.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>
#include <vector>

#include "loss_rows_pass.h"
#include "../checks/sampled_arguments.h"

namespace mmkgc {
namespace {

constexpr const char* kOp = "sampled_loss: ";

template <typename T>
void run(const SampledArguments& arguments, const std::optional<Tensor>& usable,
         const LossSettings& settings, double offset, const Tensor& loss, const Tensor& d_scores,
         const Tensor& d_queries) {
  cpu::SampledLossTask<T> task{};
  task.queries = arguments.queries.const_data_ptr<T>();
  task.table = arguments.table.const_data_ptr<T>();
  task.sides = arguments.queries.size(0);
  task.query_width = arguments.queries.size(2);
  task.candidate_width = arguments.table.size(1);
  task.metric = arguments.metric;
  task.pairs = arguments.pairs.data();
  task.n_pairs = static_cast<int64_t>(arguments.pairs.size());
  task.d_queries = d_queries.mutable_data_ptr<T>();
  pass_over_candidates(task, arguments.candidates, usable, settings, offset, d_scores, loss);
}

std::tuple<Tensor, Tensor, Tensor> sampled_loss(
    const Tensor& queries, const Tensor& table, const Tensor& ids, const Tensor& side,
    std::optional<Tensor> usable_in, int64_t metric, const std::vector<int64_t>& pairs,
    const std::vector<double>& weights, double offset, int64_t loss_kind,
    const std::vector<double>& loss_settings) {
  const SampledArguments arguments(kOp, queries, table, ids, side, metric, pairs, weights,
                                   std::nullopt);
  const std::optional<Tensor> usable = checked_usable(kOp, usable_in, arguments.candidates.ids);
  const LossSettings settings(kOp, loss_kind, loss_settings);
  const Tensor loss = torch::stable::new_empty(queries, {});
  const Tensor d_scores = torch::stable::new_empty(
      queries, {arguments.queries.size(1), arguments.candidates.ids.size(1)});
  const Tensor d_queries = torch::stable::empty_like(arguments.queries);
  const bool single = queries.scalar_type() == ScalarType::Float;
  (single ? run<float> : run<double>)(arguments, usable, settings, offset, loss, d_scores,
                                      d_queries);
  return {loss, d_scores, d_queries};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, CPU, m) { m.impl("sampled_loss", TORCH_BOX(&sampled_loss)); }

}  // namespace mmkgc
