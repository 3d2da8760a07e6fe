// Bindings of mmkgc::rotate_score and its backward ops on the CPU.

#include <optional>
#include <vector>

#include "rotate_passes.h"
#include "sampled_passes.h"

namespace mmkgc {
namespace {

struct Kernels {
  static void scores(const RotateArguments& a, const std::optional<Tensor>& order_in,
                     const Tensor& scores) {
    const RotatePasses passes(a);
    const SortedCandidates order(a.scoring, order_in);
    with_real(a.table, [&]<typename T>() {
      passes.rotate_queries<T>();
      run_forward(sampled_task<T>(a.scoring, order), scores);
    });
  }

  static void gradients(const RotateArguments& a, const Tensor& grad,
                        const std::optional<Tensor>& order_in, const Tensor& d_known,
                        const Tensor& d_phases, const std::optional<Tensor>& d_table) {
    const RotatePasses passes(a);
    const SortedCandidates order(a.scoring, order_in);
    with_real(a.table, [&]<typename T>() {
      const cpu::RotateTask<T> rotation = passes.rotate_queries<T>();
      cpu::SampledTask<T> task = sampled_task<T>(a.scoring, order);
      task.grad = grad.const_data_ptr<T>();
      task.d_queries = d_known.mutable_data_ptr<T>();  // replaced in place below
      run_backward_queries(task);
      passes.rotate_back(rotation, d_known, d_phases);
      if (!d_table) return;
      // The rows of heads and tails get the gradients of their queries in the pass over candidates.
      const int64_t batch = task.batch;
      const int64_t* heads = a.heads.const_data_ptr<int64_t>();
      const int64_t* tails = a.tails.const_data_ptr<int64_t>();
      std::vector<int64_t> known(heads, heads + batch);
      known.insert(known.end(), tails, tails + batch);
      const IdOrder by_entity(known.data(), 2 * batch, task.entities);
      task.d_table = d_table->mutable_data_ptr<T>();
      task.extra = d_known.const_data_ptr<T>();
      task.extra_order = by_entity.order.data();
      task.extra_starts = by_entity.starts.data();
      run_backward_table(task);
    });
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, CPU, m) { RotateScore<Kernels>::add_to(m); }

}  // namespace mmkgc
