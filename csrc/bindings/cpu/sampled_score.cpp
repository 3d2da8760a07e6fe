// Bindings of mmkgc::sampled_score and its backward ops on the CPU.
#include "../sampled_score.h"

#include <optional>

#include "sampled_passes.h"
#include "sorted_candidates.h"

namespace mmkgc {
namespace {

struct Kernels {
  static void scores(const Scoring& scoring, const std::optional<Tensor>& order_in,
                     const Tensor& scores) {
    const SortedCandidates order(scoring, order_in);
    with_real(scoring.queries, [&]<typename T>() {
      run_forward(sampled_task<T>(scoring, order), scores);
    });
  }

  static void gradients(const Scoring& scoring, const Tensor& grad,
                        const std::optional<Tensor>& order_in, const Tensor& d_queries,
                        const Tensor& d_scale, const std::optional<Tensor>& d_table) {
    const SortedCandidates order(scoring, order_in);
    with_real(scoring.queries, [&]<typename T>() {
      cpu::SampledTask<T> task = sampled_task<T>(scoring, order);
      task.grad = grad.const_data_ptr<T>();
      task.d_queries = d_queries.mutable_data_ptr<T>();
      task.d_scale = scoring.scale ? d_scale.mutable_data_ptr<T>() : nullptr;
      run_backward_queries(task);
      if (!d_table) return;
      task.d_table = d_table->mutable_data_ptr<T>();
      run_backward_table(task);
    });
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, CPU, m) { SampledScore<Kernels>::add_to(m); }

}  // namespace mmkgc
