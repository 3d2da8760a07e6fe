// Torch glue of mmkgc::table_adam on CUDA; the work is in cuda/table_gradient.cu.
#include <optional>
#include <vector>

#include "../checks/adam_arguments.h"
#include "sampled_cuda.h"

namespace mmkgc {
namespace {

constexpr const char* kOp = AdamArguments::kOp;

template <typename A>
Tensor run(const AdamArguments& arguments, void* stream) {
  const Tensor& table = arguments.table;
  cuda::SampledTask<A> task =
      device_task<A>(kOp, arguments.queries, table, arguments.scale, arguments.candidates,
                     arguments.metric, arguments.pairs);
  // What is loaded beside table and queries, as views at any offset may be.
  for (const std::optional<Tensor>& x :
       {std::optional(arguments.exp_avg), std::optional(arguments.exp_avg_sq), arguments.dense,
        arguments.extra}) {
    task.narrow |= x && reinterpret_cast<std::uintptr_t>(x->const_data_ptr()) % 16 != 0;
  }
  const Tensor factors = device_factors(task, arguments.grad, stream);
  const DeviceOrder order(task, arguments.candidates, arguments.grad, factors, arguments.order,
                          stream);
  std::optional<DeviceExtra> extra;
  if (arguments.extra) {
    extra.emplace(kOp, *arguments.extra, *arguments.extra_ids, std::nullopt, task.entities, stream);
  }
  // Bias corrections follow from the step, which with a counter only the device knows.
  Tensor step = torch::stable::new_empty(
      table, {static_cast<int64_t>(sizeof(AdamStep<A>) / sizeof(A))});
  if (arguments.counter) {
    const AdamSettings& s = arguments.settings;
    cuda::adam_step_at(kOp, {s.lr, s.beta1, s.beta2, s.eps, s.weight_decay, s.decoupled, s.step},
                       read_as<int64_t>(*arguments.counter), write_as<AdamStep<A>>(step), stream);
  }
  const bool in_two = cuda::steps_in_two(task);
  const Tensor gradient = torch::stable::new_empty(
      table, {in_two ? task.entities : 0, task.candidate_width});
  const Tensor squares =
      torch::stable::new_empty(table, {cuda::count_squares(task)}, ScalarType::Double);
  const cuda::AdamTask<A> adam{arguments.settings.at<A>(0),
                               arguments.counter ? read_as<AdamStep<A>>(step) : nullptr,
                               write_as<A>(table),
                               write_as<A>(arguments.exp_avg),
                               write_as<A>(arguments.exp_avg_sq),
                               arguments.dense ? read_as<A>(*arguments.dense) : nullptr,
                               write_as<double>(squares)};
  const Tensor out = torch::stable::new_empty(table, {}, ScalarType::Double);
  cuda::table_adam(task, order.view<A>(), extra ? extra->view<A>() : cuda::ExtraRows<A>{},
                   write_as<A>(order.partial), write_as<A>(gradient), adam, write_as<double>(out),
                   stream);
  return out;
}

Tensor table_adam(const Tensor& grad, const Tensor& queries, const Tensor& table,
                  const Tensor& exp_avg, const Tensor& exp_avg_sq, const Tensor& ids,
                  const Tensor& side, int64_t metric, const std::vector<int64_t>& pairs,
                  const std::vector<double>& weights, std::optional<Tensor> scale,
                  std::optional<Tensor> order, std::optional<Tensor> extra,
                  std::optional<Tensor> extra_ids, std::optional<Tensor> dense, double lr,
                  double beta1, double beta2, double eps, double weight_decay, bool decoupled,
                  int64_t step, std::optional<Tensor> counter) {
  const std::pair<const char*, const Tensor*> others[] = {{"grad", &grad},
                                                          {"queries", &queries},
                                                          {"exp_avg", &exp_avg},
                                                          {"exp_avg_sq", &exp_avg_sq},
                                                          {"ids", &ids},
                                                          {"side", &side}};
  for (const auto& [name, tensor] : others) check_device(kOp, name, *tensor, "table", table);
  check_device(kOp, "scale", scale, "table", table);
  check_device(kOp, "extra", extra, "table", table);
  check_device(kOp, "extra_ids", extra_ids, "table", table);
  check_device(kOp, "dense", dense, "table", table);
  check_device(kOp, "counter", counter, "table", table);
  check_real(kOp, "table", table);
  const OnDevice device(table);
  const AdamArguments arguments(grad, queries, table, exp_avg, exp_avg_sq, ids, side, metric,
                                pairs, weights, scale, order, extra, extra_ids, dense,
                                {lr, beta1, beta2, eps, weight_decay, decoupled, step}, counter);
  const bool single = table.scalar_type() == ScalarType::Float;
  return (single ? run<float> : run<double>)(arguments, device.stream());
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, MMKGC_CUDA_KEY, m) {
  m.impl("table_adam", TORCH_BOX(&table_adam));
}

}  // namespace mmkgc
