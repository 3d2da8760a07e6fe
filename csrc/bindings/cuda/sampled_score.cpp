// Torch glue of mmkgc::sampled_score and its backward on CUDA; the work is in cuda/.
#include <optional>
#include <tuple>
#include <vector>

#include "../checks/sampled_arguments.h"
#include "sampled_cuda.h"

namespace mmkgc {
namespace {

constexpr const char* kOp = "sampled_score: ";

void check_devices(const Tensor& queries, const Tensor& table, const Tensor& ids,
                   const Tensor& side, const std::optional<Tensor>& scale) {
  check_device(kOp, "queries", queries, "table", table);
  check_device(kOp, "ids", ids, "table", table);
  check_device(kOp, "side", side, "table", table);
  check_device(kOp, "scale", scale, "table", table);
}

template <typename T>
cuda::SampledTask<T> task_of(const SampledArguments& a) {
  return device_task<T>(kOp, a.queries, a.table, a.scale, a.candidates, a.metric, a.pairs);
}

// `d_table` is absent when somebody else makes the gradient of the table.
void backward(const SampledArguments& arguments, const Tensor& grad,
              const std::optional<Tensor>& order_in, const Tensor& d_queries,
              const std::optional<Tensor>& d_table, const Tensor& d_scale, void* stream) {
  with_stored(arguments.table, [&]<typename T>() {
    using A = Accumulator<T>;
    const cuda::SampledTask<T> task = task_of<T>(arguments);
    const Tensor factors = device_factors(task, grad, stream);
    const cuda::ScoreGradient<A> gradient = device_gradient<A>(grad, factors);
    cuda::query_gradient(task, gradient, write_as<A>(d_queries), stream);
    if (task.scale) cuda::scale_gradient(task, gradient, write_as<A>(d_scale), stream);
    if (!d_table) return;
    const DeviceOrder order(task, arguments.candidates, grad, factors, order_in, stream);
    cuda::table_gradient(task, order.view<A>(), {}, write_as<A>(order.partial),
                         write_as<T>(*d_table), stream);
  });
}

Tensor sampled_score(const Tensor& queries, const Tensor& table, const Tensor& ids,
                     const Tensor& side, int64_t metric, const std::vector<int64_t>& pairs,
                     const std::vector<double>& weights, std::optional<Tensor> scale,
                     std::optional<Tensor>) {
  check_devices(queries, table, ids, side, scale);
  const OnDevice device(table);
  const SampledArguments arguments(kOp, queries, table, ids, side, metric, pairs, weights, scale);
  const Tensor scores = torch::stable::new_empty(
      queries, {arguments.queries.size(1), arguments.candidates.ids.size(1)});
  with_stored(table, [&]<typename T>() {
    cuda::sampled_scores(task_of<T>(arguments), write_as<Accumulator<T>>(scores), device.stream());
  });
  return scores;
}

std::tuple<Tensor, Tensor, Tensor> sampled_score_backward(
    const Tensor& grad_in, const Tensor& queries, const Tensor& table, const Tensor& ids,
    const Tensor& side, int64_t metric, const std::vector<int64_t>& pairs,
    const std::vector<double>& weights, std::optional<Tensor> scale,
    std::optional<Tensor> order) {
  check_devices(queries, table, ids, side, scale);
  check_device(kOp, "grad", grad_in, "table", table);
  const OnDevice device(table);
  const SampledArguments arguments(kOp, queries, table, ids, side, metric, pairs, weights, scale);
  const Tensor grad =
      checked_gradient(kOp, grad_in, arguments.candidates.ids, "queries", queries);
  const Tensor d_queries = torch::stable::empty_like(arguments.queries);
  const Tensor d_table = torch::stable::empty_like(arguments.table);
  const Tensor d_scale = arguments.d_scale();
  backward(arguments, grad, order, d_queries, d_table, d_scale, device.stream());
  return {d_queries, d_table, d_scale};
}

std::tuple<Tensor, Tensor> sampled_score_backward_queries(
    const Tensor& grad_in, const Tensor& queries, const Tensor& table, const Tensor& ids,
    const Tensor& side, int64_t metric, const std::vector<int64_t>& pairs,
    const std::vector<double>& weights, std::optional<Tensor> scale,
    std::optional<Tensor> order) {
  check_devices(queries, table, ids, side, scale);
  check_device(kOp, "grad", grad_in, "table", table);
  const OnDevice device(table);
  const SampledArguments arguments(kOp, queries, table, ids, side, metric, pairs, weights, scale);
  const Tensor grad =
      checked_gradient(kOp, grad_in, arguments.candidates.ids, "queries", queries);
  const Tensor d_queries = torch::stable::empty_like(arguments.queries);
  const Tensor d_scale = arguments.d_scale();
  backward(arguments, grad, order, d_queries, std::nullopt, d_scale, device.stream());
  return {d_queries, d_scale};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, MMKGC_CUDA_KEY, m) {
  m.impl("sampled_score", TORCH_BOX(&sampled_score));
  m.impl("sampled_score_backward", TORCH_BOX(&sampled_score_backward));
  m.impl("sampled_score_backward_queries", TORCH_BOX(&sampled_score_backward_queries));
}

}  // namespace mmkgc
