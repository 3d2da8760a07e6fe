// Torch glue of mmkgc::rotate_score and its backward; the work is in cpu/.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>

#include "rotate_passes.h"
#include "sampled_passes.h"

namespace mmkgc {
namespace {

constexpr const char* kOp = "rotate_score: ";

template <typename T>
cpu::SampledTask<T> scoring(const RotatePasses& passes, const SortedCandidates& order) {
  cpu::SampledTask<T> task{};
  order.describe(task);
  task.queries = passes.queries.const_data_ptr<T>();
  task.table = passes.table.const_data_ptr<T>();
  task.sides = RotatePasses::kSides;
  task.batch = passes.heads.size(0);
  task.n = passes.candidates.ids.size(1);
  task.entities = passes.table.size(0);
  task.query_width = task.candidate_width = passes.table.size(1);
  task.metric = Metric::modulus;
  task.pairs = &passes.whole;
  task.n_pairs = 1;
  return task;
}

template <typename T>
void forward(const RotatePasses& passes, const SortedCandidates& order, const Tensor& scores) {
  passes.make_queries<T>();
  cpu::SampledTask<T> task = scoring<T>(passes, order);
  task.scores = scores.mutable_data_ptr<T>();
  run_forward(task);
}

// The gradients of all but the table; `d_known` is what heads and tails got through the queries.
template <typename T>
cpu::SampledTask<T> backward_queries(const RotatePasses& passes, const Tensor& grad,
                                     const SortedCandidates& order, const Tensor& d_known,
                                     const Tensor& d_phases) {
  const cpu::RotateTask<T> rotate = passes.make_queries<T>();
  cpu::SampledTask<T> task = scoring<T>(passes, order);
  task.grad = grad.const_data_ptr<T>();
  task.d_queries = d_known.mutable_data_ptr<T>();  // turned back in place below
  run_backward_queries(task);
  passes.turn_back(rotate, d_known, d_phases);
  return task;
}

template <typename T>
void backward(const RotatePasses& passes, const Tensor& grad, const SortedCandidates& order,
              const Tensor& d_table, const Tensor& d_phases) {
  const Tensor d_known = passes.new_known();
  cpu::SampledTask<T> task = backward_queries<T>(passes, grad, order, d_known, d_phases);
  // Heads and tails get the gradients of their queries in the same pass as candidates theirs.
  const int64_t batch = task.batch;
  const int64_t* heads = passes.heads.const_data_ptr<int64_t>();
  const int64_t* tails = passes.tails.const_data_ptr<int64_t>();
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
  const RotatePasses passes(kOp, table, phases, heads, relations, tails, ids, side);
  const Tensor scores = torch::stable::new_empty(
      table, {passes.heads.size(0), passes.candidates.ids.size(1)});
  const bool single = table.scalar_type() == ScalarType::Float;
  const SortedCandidates sorted(kOp, passes.candidates, table.size(0), order);
  (single ? forward<float> : forward<double>)(passes, sorted, scores);
  return scores;
}

std::tuple<Tensor, Tensor> rotate_score_backward(
    const Tensor& grad_in, const Tensor& table, const Tensor& phases, const Tensor& heads,
    const Tensor& relations, const Tensor& tails, const Tensor& ids, const Tensor& side,
    std::optional<Tensor> order_in) {
  const RotatePasses passes(kOp, table, phases, heads, relations, tails, ids, side);
  const Tensor& ids_of = passes.candidates.ids;
  const Tensor grad = checked_gradient(kOp, grad_in, ids_of, "table", table);
  const SortedCandidates order(kOp, passes.candidates, passes.table.size(0), order_in);
  const Tensor d_table = torch::stable::empty_like(passes.table);
  const Tensor d_phases = torch::stable::empty_like(passes.phases);
  const bool single = table.scalar_type() == ScalarType::Float;
  (single ? backward<float> : backward<double>)(passes, grad, order, d_table, d_phases);
  return {d_table, d_phases};
}

std::tuple<Tensor, Tensor, Tensor> rotate_score_backward_queries(
    const Tensor& grad_in, const Tensor& table, const Tensor& phases, const Tensor& heads,
    const Tensor& relations, const Tensor& tails, const Tensor& ids, const Tensor& side,
    std::optional<Tensor> order_in) {
  const RotatePasses passes(kOp, table, phases, heads, relations, tails, ids, side);
  const Tensor grad = checked_gradient(kOp, grad_in, passes.candidates.ids, "table", table);
  const SortedCandidates order(kOp, passes.candidates, table.size(0), order_in);
  const Tensor d_known = passes.new_known();
  const Tensor d_phases = torch::stable::empty_like(passes.phases);
  const bool single = table.scalar_type() == ScalarType::Float;
  if (single) {
    backward_queries<float>(passes, grad, order, d_known, d_phases);
  } else {
    backward_queries<double>(passes, grad, order, d_known, d_phases);
  }
  return {passes.queries, d_known, d_phases};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, CPU, m) {
  m.impl("rotate_score", TORCH_BOX(&rotate_score));
  m.impl("rotate_score_backward", TORCH_BOX(&rotate_score_backward));
  m.impl("rotate_score_backward_queries", TORCH_BOX(&rotate_score_backward_queries));
}

}  // namespace mmkgc
