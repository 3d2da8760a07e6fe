// Bindings of mmkgc::sampled_score and its backward ops on CUDA.
#include "../sampled_score.h"

#include <optional>

#include "candidates.h"

namespace mmkgc {
namespace {

struct Kernels {
  static void scores(const Scoring& scoring, const std::optional<Tensor>&, const Tensor& scores) {
    const OnDevice device(scoring.table);
    with_stored(scoring.table, [&]<typename T>() {
      cuda::sampled_scores(device_task<T>(scoring), write_as<Accumulator<T>>(scores),
                           device.stream());
    });
  }

  static void gradients(const Scoring& scoring, const Tensor& grad,
                        const std::optional<Tensor>& order_in, const Tensor& d_queries,
                        const Tensor& d_scale, const std::optional<Tensor>& d_table) {
    const OnDevice device(scoring.table);
    void* stream = device.stream();
    with_stored(scoring.table, [&]<typename T>() {
      using A = Accumulator<T>;
      const cuda::SampledTask<T> task = device_task<T>(scoring);
      const Tensor factors = device_factors(task, grad, stream);
      const cuda::ScoreGradient<A> gradient = device_gradient<A>(grad, factors);
      cuda::query_gradient(task, gradient, write_as<A>(d_queries), stream);
      if (task.scale) cuda::scale_gradient(task, gradient, write_as<A>(d_scale), stream);
      if (!d_table) return;
      const DeviceOrder order(task, scoring.candidates, grad, factors, order_in, stream);
      cuda::table_gradient(task, order.view<A>(), {}, write_as<A>(order.partial),
                           write_as<T>(*d_table), stream);
    });
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, MMKGC_CUDA_KEY, m) { SampledScore<Kernels>::add_to(m); }

}  // namespace mmkgc
