// Torch glue of mmkgc::rotate_score and its backward on CUDA; the work is in cuda/.
#include <optional>
#include <tuple>

#include "../../cuda/rotate_score.h"
#include "../checks/rotate_arguments.h"
#include "sampled_cuda.h"

namespace mmkgc {
namespace {

constexpr const char* kOp = "rotate_score: ";
constexpr int64_t kSides = RotateArguments::kSides;

// The arguments of both passes, and the queries made from them.
struct Arguments : RotateArguments {
  OnDevice device;
  Tensor queries;

  Arguments(const Tensor& table_in, const Tensor& phases_in, const Tensor& heads_in,
            const Tensor& relations_in, const Tensor& tails_in, const Tensor& ids,
            const Tensor& side)
      : RotateArguments(kOp, table_in, phases_in, heads_in, relations_in, tails_in, ids, side),
        device(table),
        queries(torch::stable::new_empty(phases, {kSides, heads.size(0), table.size(1)})) {
    check_device(kOp, "phases", phases, "table", table);
    check_device(kOp, "heads", heads, "table", table);
    check_device(kOp, "relations", relations, "table", table);
    check_device(kOp, "tails", tails, "table", table);
    check_device(kOp, "ids", candidates.ids, "table", table);
    check_device(kOp, "side", candidates.side, "table", table);
  }

  void* stream() const { return device.stream(); }

  Tensor new_known() const {
    return torch::stable::new_empty(phases, {2 * heads.size(0), table.size(1)});
  }

  template <typename T>
  cuda::RotateTask<T> make_queries() const {
    using A = Accumulator<T>;
    const cuda::RotateTask<T> task{kOp,
                                   read_as<T>(table),
                                   read_as<A>(phases),
                                   read_as<int64_t>(heads),
                                   read_as<int64_t>(relations),
                                   read_as<int64_t>(tails),
                                   table.size(0),
                                   phases.size(0),
                                   heads.size(0),
                                   phases.size(1),
                                   write_as<A>(queries)};
    cuda::rotate_queries(task, stream());
    return task;
  }

  template <typename T>
  cuda::SampledTask<T> scoring() const {
    return device_task<T>(kOp, queries, table, std::nullopt, candidates, Metric::modulus,
                          {{0, 0, table.size(1), 1.0}});
  }
};

// The gradients of all but the table; `d_known` is what heads and tails got through the queries.
template <typename T>
void backward_queries(const Arguments& arguments, const Tensor& grad, const Tensor& d_known,
                      const Tensor& d_phases) {
  using A = Accumulator<T>;
  const cuda::RotateTask<T> rotate = arguments.make_queries<T>();
  cuda::query_gradient(arguments.scoring<T>(), {read_as<A>(grad), nullptr}, write_as<A>(d_known),
                       arguments.stream());
  const Tensor d_phase_rows =
      torch::stable::new_empty(arguments.phases, {rotate.batch, rotate.dim});
  cuda::rotate_backward(rotate, write_as<A>(d_known), write_as<A>(d_phase_rows),
                        arguments.stream());
  const auto by_relation = stable_sort(kOp, arguments.relations, std::nullopt, arguments.stream());
  const Tensor starts =
      device_starts(kOp, "relations", by_relation, rotate.n_relations, arguments.stream());
  cuda::rotate_sum_phases(rotate, read_as<A>(d_phase_rows), read_as<int64_t>(by_relation.second),
                          read_as<int64_t>(starts), write_as<A>(d_phases), arguments.stream());
}

Tensor rotate_score(const Tensor& table, const Tensor& phases, const Tensor& heads,
                    const Tensor& relations, const Tensor& tails, const Tensor& ids,
                    const Tensor& side, std::optional<Tensor>) {
  const Arguments arguments(table, phases, heads, relations, tails, ids, side);
  const Tensor scores = torch::stable::new_empty(
      phases, {arguments.heads.size(0), arguments.candidates.ids.size(1)});
  with_stored(table, [&]<typename T>() {
    arguments.make_queries<T>();
    cuda::sampled_scores(arguments.scoring<T>(), write_as<Accumulator<T>>(scores),
                         arguments.stream());
  });
  return scores;
}

std::tuple<Tensor, Tensor> rotate_score_backward(
    const Tensor& grad_in, const Tensor& table, const Tensor& phases, const Tensor& heads,
    const Tensor& relations, const Tensor& tails, const Tensor& ids, const Tensor& side,
    std::optional<Tensor> order_in) {
  const Arguments arguments(table, phases, heads, relations, tails, ids, side);
  const Tensor grad =
      checked_gradient(kOp, grad_in, arguments.candidates.ids, "phases", phases);
  check_device(kOp, "grad", grad, "table", table);
  const Tensor d_table = torch::stable::empty_like(arguments.table);
  const Tensor d_phases = torch::stable::empty_like(arguments.phases);
  const Tensor d_known = arguments.new_known();
  with_stored(table, [&]<typename T>() {
    using A = Accumulator<T>;
    backward_queries<T>(arguments, grad, d_known, d_phases);
    // Heads and tails get the gradients of their queries in the same pass as candidates theirs.
    const cuda::SampledTask<T> task = arguments.scoring<T>();
    const DeviceExtra extra(kOp, d_known, arguments.heads, arguments.tails, task.entities,
                            arguments.stream());
    const Tensor factors = torch::stable::new_empty(grad, {0});  // of l2 alone
    const DeviceOrder order(task, arguments.candidates, grad, factors, order_in,
                            arguments.stream());
    cuda::table_gradient(task, order.view<A>(), extra.view<A>(), write_as<A>(order.partial),
                         write_as<T>(d_table), arguments.stream());
  });
  return {d_table, d_phases};
}

std::tuple<Tensor, Tensor, Tensor> rotate_score_backward_queries(
    const Tensor& grad_in, const Tensor& table, const Tensor& phases, const Tensor& heads,
    const Tensor& relations, const Tensor& tails, const Tensor& ids, const Tensor& side,
    std::optional<Tensor>) {
  const Arguments arguments(table, phases, heads, relations, tails, ids, side);
  const Tensor grad =
      checked_gradient(kOp, grad_in, arguments.candidates.ids, "phases", phases);
  check_device(kOp, "grad", grad, "table", table);
  const Tensor d_known = arguments.new_known();
  const Tensor d_phases = torch::stable::empty_like(arguments.phases);
  with_stored(table, [&]<typename T>() {
    backward_queries<T>(arguments, grad, d_known, d_phases);
  });
  return {arguments.queries, d_known, d_phases};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, MMKGC_CUDA_KEY, m) {
  m.impl("rotate_score", TORCH_BOX(&rotate_score));
  m.impl("rotate_score_backward", TORCH_BOX(&rotate_score_backward));
  m.impl("rotate_score_backward_queries", TORCH_BOX(&rotate_score_backward_queries));
}

}  // namespace mmkgc
