// Bindings of mmkgc::table_adam on the CPU.
#include "../table_adam.h"

#include <optional>

#include "sampled_passes.h"
#include "sorted_candidates.h"

namespace mmkgc {
namespace {

struct Kernels {
  static void step(const AdamArguments& arguments, const Tensor& squares) {
    const SortedCandidates order(arguments, arguments.order);
    with_real(arguments.table, [&]<typename T>() {
      *squares.mutable_data_ptr<double>() = run<T>(arguments, order);
    });
  }

  // Returns the squared norm of the gradient.
  template <typename T>
  static double run(const AdamArguments& arguments, const SortedCandidates& order) {
    cpu::SampledTask<T> task = sampled_task<T>(arguments, order);
    task.grad = arguments.grad.const_data_ptr<T>();
    std::optional<IdOrder> extra_order;
    if (arguments.extra) {
      const Tensor& ids = *arguments.extra_ids;
      extra_order.emplace(ids.const_data_ptr<int64_t>(), ids.size(0), task.entities);
      task.extra = arguments.extra->const_data_ptr<T>();
      task.extra_order = extra_order->order.data();
      task.extra_starts = extra_order->starts.data();
    }
    const int64_t steps = arguments.counter ? *arguments.counter->const_data_ptr<int64_t>() : 0;
    const cpu::AdamTask<T> adam{arguments.settings.after<T>(steps),
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
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, CPU, m) { TableAdam<Kernels>::add_to(m); }

}  // namespace mmkgc
