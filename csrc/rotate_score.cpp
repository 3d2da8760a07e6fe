// Torch glue of mmkgc::rotate_score and its backward; the work is in cpu/.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>

#include "cpu/rotate_score.h"
#include "rotate_arguments.h"
#include "sampled_passes.h"
#include "sorted_candidates.h"

namespace mmkgc {
namespace {

constexpr const char* kOp = RotateArguments::kOp;
constexpr int64_t kSides = RotateArguments::kSides;

// The arguments of both passes, and the queries made from them.
struct Arguments : RotateArguments {
  IdOrder by_relation;
  Tensor cosines, sines, queries;
  Pair whole;

  Arguments(const Tensor& table_in, const Tensor& phases_in, const Tensor& heads_in,
            const Tensor& relations_in, const Tensor& tails_in, const Tensor& ids,
            const Tensor& side)
      : RotateArguments(table_in, phases_in, heads_in, relations_in, tails_in, ids, side),
        by_relation(relations.const_data_ptr<int64_t>(), heads.size(0), phases.size(0)),
        cosines(torch::stable::empty_like(phases)),
        sines(torch::stable::empty_like(phases)),
        queries(torch::stable::new_empty(table, {kSides, heads.size(0), table.size(1)})),
        whole{0, 0, table.size(1), 1.0} {}

  // Fills angles and queries; returns a task that knows them.
  template <typename T>
  cpu::RotateTask<T> make_queries() const {
    cpu::RotateTask<T> task{};
    task.table = table.const_data_ptr<T>();
    task.phases = phases.const_data_ptr<T>();
    task.heads = heads.const_data_ptr<int64_t>();
    task.relations = relations.const_data_ptr<int64_t>();
    task.tails = tails.const_data_ptr<int64_t>();
    task.batch = heads.size(0);
    task.dim = phases.size(1);
    task.cosines = cosines.mutable_data_ptr<T>();
    task.sines = sines.mutable_data_ptr<T>();
    task.queries = queries.mutable_data_ptr<T>();
    task.order = by_relation.order.data();
    task.starts = by_relation.starts.data();
    torch::stable::parallel_for(0, phases.size(0), 8, [&](int64_t begin, int64_t end) {
      cpu::rotate_angles(task, begin, end);
    });
    torch::stable::parallel_for(0, task.batch, 64, [&](int64_t begin, int64_t end) {
      cpu::rotate_queries(task, begin, end);
    });
    return task;
  }

  Tensor new_known() const {
    return torch::stable::new_empty(table, {2 * heads.size(0), table.size(1)});
  }

  template <typename T>
  cpu::SampledTask<T> scoring(const SortedCandidates& order) const {
    cpu::SampledTask<T> task{};
    order.describe(task);
    task.queries = queries.const_data_ptr<T>();
    task.table = table.const_data_ptr<T>();
    task.sides = kSides;
    task.batch = heads.size(0);
    task.n = candidates.ids.size(1);
    task.entities = table.size(0);
    task.query_width = task.candidate_width = table.size(1);
    task.metric = Metric::modulus;
    task.pairs = &whole;
    task.n_pairs = 1;
    return task;
  }
};

template <typename T>
void forward(const Arguments& arguments, const SortedCandidates& order, const Tensor& scores) {
  arguments.make_queries<T>();
  cpu::SampledTask<T> task = arguments.scoring<T>(order);
  task.scores = scores.mutable_data_ptr<T>();
  run_forward(task);
}

// The gradients of all but the table; `d_known` is what heads and tails got through the queries.
template <typename T>
cpu::SampledTask<T> backward_queries(const Arguments& arguments, const Tensor& grad,
                                     const SortedCandidates& order, const Tensor& d_known,
                                     const Tensor& d_phases) {
  cpu::RotateTask<T> rotate = arguments.make_queries<T>();
  const int64_t batch = rotate.batch;
  const Tensor d_phase_rows = torch::stable::new_empty(arguments.table, {batch, rotate.dim});
  cpu::SampledTask<T> task = arguments.scoring<T>(order);
  task.grad = grad.const_data_ptr<T>();
  task.d_queries = d_known.mutable_data_ptr<T>();  // turned back in place below
  run_backward_queries(task);

  rotate.d_known = d_known.mutable_data_ptr<T>();
  rotate.d_phase_rows = d_phase_rows.mutable_data_ptr<T>();
  rotate.d_phases = d_phases.mutable_data_ptr<T>();
  torch::stable::parallel_for(0, batch, 64, [&](int64_t begin, int64_t end) {
    cpu::rotate_backward(rotate, begin, end);
  });
  torch::stable::parallel_for(0, arguments.phases.size(0), 8, [&](int64_t begin, int64_t end) {
    cpu::rotate_sum_phases(rotate, begin, end);
  });

  return task;
}

template <typename T>
void backward(const Arguments& arguments, const Tensor& grad, const SortedCandidates& order,
              const Tensor& d_table, const Tensor& d_phases) {
  const Tensor d_known = arguments.new_known();
  cpu::SampledTask<T> task = backward_queries<T>(arguments, grad, order, d_known, d_phases);
  // Heads and tails get the gradients of their queries in the same pass as candidates theirs.
  const int64_t batch = task.batch;
  const int64_t* heads = arguments.heads.const_data_ptr<int64_t>();
  const int64_t* tails = arguments.tails.const_data_ptr<int64_t>();
  std::vector<int64_t> known(heads, heads + batch);
  known.insert(known.end(), tails, tails + batch);
  const IdOrder by_entity(known.data(), 2 * batch, task.entities);
  task.d_table = d_table.mutable_data_ptr<T>();
  task.extra = d_known.const_data_ptr<T>();
  task.extra_order = by_entity.order.data();
  task.extra_starts = by_entity.starts.data();
  run_backward_table(task);
}

Tensor rotate_score(const Tensor& table, const Tensor& phases, const Tensor& heads,
                    const Tensor& relations, const Tensor& tails, const Tensor& ids,
                    const Tensor& side, std::optional<Tensor> order) {
  const Arguments arguments(table, phases, heads, relations, tails, ids, side);
  const Tensor scores = torch::stable::new_empty(
      table, {arguments.heads.size(0), arguments.candidates.ids.size(1)});
  const bool single = table.scalar_type() == ScalarType::Float;
  const SortedCandidates sorted(kOp, arguments.candidates, table.size(0), order);
  (single ? forward<float> : forward<double>)(arguments, sorted, scores);
  return scores;
}

std::tuple<Tensor, Tensor> rotate_score_backward(
    const Tensor& grad_in, const Tensor& table, const Tensor& phases, const Tensor& heads,
    const Tensor& relations, const Tensor& tails, const Tensor& ids, const Tensor& side,
    std::optional<Tensor> order_in) {
  const Arguments arguments(table, phases, heads, relations, tails, ids, side);
  const Tensor& ids_of = arguments.candidates.ids;
  const Tensor grad = checked_gradient(kOp, grad_in, ids_of, "table", table);
  const SortedCandidates order(kOp, arguments.candidates, arguments.table.size(0), order_in);
  const Tensor d_table = torch::stable::empty_like(arguments.table);
  const Tensor d_phases = torch::stable::empty_like(arguments.phases);
  const bool single = table.scalar_type() == ScalarType::Float;
  (single ? backward<float> : backward<double>)(arguments, grad, order, d_table, d_phases);
  return {d_table, d_phases};
}

std::tuple<Tensor, Tensor, Tensor> rotate_score_backward_queries(
    const Tensor& grad_in, const Tensor& table, const Tensor& phases, const Tensor& heads,
    const Tensor& relations, const Tensor& tails, const Tensor& ids, const Tensor& side,
    std::optional<Tensor> order_in) {
  const Arguments arguments(table, phases, heads, relations, tails, ids, side);
  const Tensor grad = checked_gradient(kOp, grad_in, arguments.candidates.ids, "table", table);
  const SortedCandidates order(kOp, arguments.candidates, table.size(0), order_in);
  const Tensor d_known = arguments.new_known();
  const Tensor d_phases = torch::stable::empty_like(arguments.phases);
  const bool single = table.scalar_type() == ScalarType::Float;
  if (single) {
    backward_queries<float>(arguments, grad, order, d_known, d_phases);
  } else {
    backward_queries<double>(arguments, grad, order, d_known, d_phases);
  }
  return {arguments.queries, d_known, d_phases};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, CPU, m) {
  m.impl("rotate_score", TORCH_BOX(&rotate_score));
  m.impl("rotate_score_backward", TORCH_BOX(&rotate_score_backward));
  m.impl("rotate_score_backward_queries", TORCH_BOX(&rotate_score_backward_queries));
}

}  // namespace mmkgc
