// Torch glue of mmkgc::table_adam; the work is in cpu/sampled_score.cpp.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <vector>

#include "../checks/adam_arguments.h"
#include "sampled_passes.h"
#include "sorted_candidates.h"

namespace mmkgc {
namespace {

constexpr const char* kOp = AdamArguments::kOp;

template <typename T>
double run(const AdamArguments& arguments, const SortedCandidates& order) {
  const int64_t entities = arguments.table.size(0);
  cpu::SampledTask<T> task = sampled_task<T>(arguments, order);
  task.grad = arguments.grad.const_data_ptr<T>();
  std::optional<IdOrder> extra_order;
  if (arguments.extra) {
    const Tensor& ids = *arguments.extra_ids;
    extra_order.emplace(ids.const_data_ptr<int64_t>(), ids.size(0), entities);
    task.extra = arguments.extra->const_data_ptr<T>();
    task.extra_order = extra_order->order.data();
    task.extra_starts = extra_order->starts.data();
  }
  const int64_t passed = arguments.counter ? *arguments.counter->const_data_ptr<int64_t>() : 0;
  const cpu::AdamTask<T> adam{arguments.settings.at<T>(passed),
                              arguments.table.mutable_data_ptr<T>(),
                              arguments.exp_avg.mutable_data_ptr<T>(),
                              arguments.exp_avg_sq.mutable_data_ptr<T>(),
                              arguments.dense ? arguments.dense->const_data_ptr<T>() : nullptr};
  double squares[kTableParts] = {};
  over_table(task, [&](int64_t part, int64_t first, int64_t last) {
    squares[part] = cpu::sampled_step_table(task, adam, first, last);
  });
  double sum = 0;
  for (const double square : squares) sum += square;
  return sum;
}

Tensor table_adam(const Tensor& grad, const Tensor& queries, const Tensor& table,
                  const Tensor& exp_avg, const Tensor& exp_avg_sq, const Tensor& ids,
                  const Tensor& side, int64_t metric, const std::vector<int64_t>& pairs,
                  const std::vector<double>& weights, std::optional<Tensor> scale,
                  std::optional<Tensor> order_in, std::optional<Tensor> extra,
                  std::optional<Tensor> extra_ids, std::optional<Tensor> dense, double lr,
                  double beta1, double beta2, double eps, double weight_decay, bool decoupled,
                  int64_t step, std::optional<Tensor> counter) {
  const AdamArguments arguments(grad, queries, table, exp_avg, exp_avg_sq, ids, side, metric,
                                pairs, weights, scale, order_in, extra, extra_ids, dense,
                                {lr, beta1, beta2, eps, weight_decay, decoupled, step}, counter);
  const SortedCandidates order(kOp, arguments.candidates, table.size(0), order_in);
  const bool single = table.scalar_type() == ScalarType::Float;
  const Tensor out = torch::stable::new_empty(table, {}, ScalarType::Double);
  *out.mutable_data_ptr<double>() = (single ? run<float> : run<double>)(arguments, order);
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, CPU, m) { m.impl("table_adam", TORCH_BOX(&table_adam)); }

}  // namespace mmkgc
