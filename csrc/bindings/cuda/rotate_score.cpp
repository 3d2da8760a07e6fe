// Bindings of mmkgc::rotate_score and its backward ops on CUDA.
#include "../rotate_score.h"

#include <optional>

#include "../../cuda/rotate_score.h"
#include "candidates.h"

namespace mmkgc {
namespace {

// Fills the queries; returns the task.
template <typename T>
cuda::RotateTask<T> rotate_queries(const RotateArguments& a, void* stream) {
  using A = Accumulator<T>;
  const cuda::RotateTask<T> task{a.op,
                                 read_as<T>(a.table),
                                 read_as<A>(a.phases),
                                 read_as<int64_t>(a.heads),
                                 read_as<int64_t>(a.relations),
                                 read_as<int64_t>(a.tails),
                                 a.table.size(0),
                                 a.phases.size(0),
                                 a.heads.size(0),
                                 a.phases.size(1),
                                 write_as<A>(a.scoring.queries)};
  cuda::rotate_queries(task, stream);
  return task;
}

struct Kernels {
  static void scores(const RotateArguments& a, const std::optional<Tensor>&,
                     const Tensor& scores) {
    const OnDevice device(a.table);
    with_stored(a.table, [&]<typename T>() {
      rotate_queries<T>(a, device.stream());
      cuda::sampled_scores(device_task<T>(a.scoring), write_as<Accumulator<T>>(scores),
                           device.stream());
    });
  }

  static void gradients(const RotateArguments& a, const Tensor& grad,
                        const std::optional<Tensor>& order_in, const Tensor& d_known,
                        const Tensor& d_phases, const std::optional<Tensor>& d_table) {
    const OnDevice device(a.table);
    void* stream = device.stream();
    with_stored(a.table, [&]<typename T>() {
      using A = Accumulator<T>;
      const cuda::RotateTask<T> rotation = rotate_queries<T>(a, stream);
      const cuda::SampledTask<T> task = device_task<T>(a.scoring);
      cuda::query_gradient(task, {read_as<A>(grad), nullptr}, write_as<A>(d_known), stream);
      const Tensor d_phase_rows =
          torch::stable::new_empty(a.phases, {rotation.batch, rotation.dim});
      cuda::rotate_backward(rotation, write_as<A>(d_known), write_as<A>(d_phase_rows), stream);
      const auto by_relation = stable_sort(a.op, a.relations, std::nullopt, stream);
      const Tensor starts =
          device_starts(a.op, "relations", by_relation, rotation.n_relations, stream);
      cuda::rotate_sum_phases(rotation, read_as<A>(d_phase_rows),
                              read_as<int64_t>(by_relation.second), read_as<int64_t>(starts),
                              write_as<A>(d_phases), stream);
      if (!d_table) return;
      // The rows of heads and tails get the gradients of their queries in the pass over candidates.
      const DeviceExtra extra(a.op, d_known, a.heads, a.tails, task.entities, stream);
      const Tensor factors = torch::stable::new_empty(grad, {0});  // only used under l2
      const DeviceOrder order(task, a.scoring.candidates, grad, factors, order_in, stream);
      cuda::table_gradient(task, order.view<A>(), extra.view<A>(), write_as<A>(order.partial),
                           write_as<T>(*d_table), stream);
    });
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, MMKGC_CUDA_KEY, m) { RotateScore<Kernels>::add_to(m); }

}  // namespace mmkgc
