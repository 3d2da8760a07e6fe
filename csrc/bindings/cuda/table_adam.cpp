// Bindings of mmkgc::table_adam on CUDA.
#include "../table_adam.h"

#include <optional>

#include "candidates.h"

namespace mmkgc {
namespace {

template <typename A>
void run(const AdamArguments& arguments, const Tensor& out, void* stream) {
  constexpr const char* kOp = AdamArguments::kOp;
  const Tensor& table = arguments.table;
  cuda::SampledTask<A> task = device_task<A>(arguments);
  // Views may start at an address that does not allow wide loads.
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
  // Bias corrections depend on the step, which only the device knows if there is a counter.
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
  const cuda::AdamTask<A> adam{arguments.settings.after<A>(0),
                               arguments.counter ? read_as<AdamStep<A>>(step) : nullptr,
                               write_as<A>(table),
                               write_as<A>(arguments.exp_avg),
                               write_as<A>(arguments.exp_avg_sq),
                               arguments.dense ? read_as<A>(*arguments.dense) : nullptr,
                               write_as<double>(squares)};
  cuda::table_adam(task, order.view<A>(), extra ? extra->view<A>() : cuda::ExtraRows<A>{},
                   write_as<A>(order.partial), write_as<A>(gradient), adam, write_as<double>(out),
                   stream);
}

struct Kernels {
  static void step(const AdamArguments& arguments, const Tensor& squares) {
    const OnDevice device(arguments.table);
    with_real(arguments.table,
              [&]<typename A>() { run<A>(arguments, squares, device.stream()); });
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, MMKGC_CUDA_KEY, m) { TableAdam<Kernels>::add_to(m); }

}  // namespace mmkgc
