// Checks and torch glue of mmkgc::sampled_score and its backward; the work is in cpu/.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>
#include <vector>

#include "candidates.h"

namespace mmkgc {
namespace {

constexpr const char* kOp = "sampled_score: ";

// The arguments of both passes, checked and contiguous.
struct Arguments {
  Tensor queries, table;
  std::optional<Tensor> scale;
  Metric metric;
  std::vector<Pair> pairs;
  Candidates candidates;

  Arguments(const Tensor& queries_in, const Tensor& table_in, const Tensor& ids,
            const Tensor& side, int64_t metric_in, const std::vector<int64_t>& pairs_in,
            const std::vector<double>& weights, const std::optional<Tensor>& scale_in)
      : queries(checked_queries(queries_in)),
        table(checked_table(table_in, queries_in)),
        scale(checked_scale(scale_in, queries_in, table_in)),
        metric(check_metric(kOp, metric_in)),
        pairs(read_pairs(kOp, pairs_in, weights, metric, queries.size(2), table.size(1))),
        candidates(kOp, ids, side, queries.size(1), queries.size(0), table.size(0)) {}

  static Tensor checked_queries(const Tensor& x) {
    STD_TORCH_CHECK(x.dim() == 3 && (x.size(0) == 1 || x.size(0) == 2), kOp,
                    "queries must be [1 or 2, B, Dq]");
    check_real(kOp, "queries", x);
    return torch::stable::contiguous(x);
  }

  static Tensor checked_table(const Tensor& x, const Tensor& queries) {
    check_matrix(kOp, "table", x);
    check_same_dtype(kOp, "table", x, "queries", queries);
    return torch::stable::contiguous(x);
  }

  static std::optional<Tensor> checked_scale(const std::optional<Tensor>& x, const Tensor& queries,
                                             const Tensor& table) {
    if (!x) return std::nullopt;
    STD_TORCH_CHECK(x->dim() == 3 && x->size(0) == queries.size(0) &&
                        x->size(1) == queries.size(1) && x->size(2) == table.size(1) &&
                        x->scalar_type() == queries.scalar_type(),
                    kOp, "scale must be [", queries.size(0), ", ", queries.size(1), ", ",
                    table.size(1), "] of the queries' dtype");
    return torch::stable::contiguous(*x);
  }

  template <typename T>
  cpu::SampledTask<T> task() const {
    cpu::SampledTask<T> task{};
    task.queries = queries.const_data_ptr<T>();
    task.table = table.const_data_ptr<T>();
    task.scale = scale ? scale->const_data_ptr<T>() : nullptr;
    task.ids = candidates.ids.const_data_ptr<int64_t>();
    task.side = candidates.side.const_data_ptr<int8_t>();
    task.sides = queries.size(0);
    task.batch = queries.size(1);
    task.n = candidates.ids.size(1);
    task.entities = table.size(0);
    task.query_width = queries.size(2);
    task.candidate_width = table.size(1);
    task.metric = metric;
    task.pairs = pairs.data();
    task.n_pairs = static_cast<int64_t>(pairs.size());
    return task;
  }
};

template <typename T>
void forward(const Arguments& arguments, const Tensor& scores) {
  cpu::SampledTask<T> task = arguments.task<T>();
  task.scores = scores.mutable_data_ptr<T>();
  run_forward(task);
}

template <typename T>
void backward(const Arguments& arguments, const Tensor& grad, const IdOrder& order,
              const Tensor& d_queries, const Tensor& d_table, const Tensor& d_scale) {
  cpu::SampledTask<T> task = arguments.task<T>();
  task.grad = grad.const_data_ptr<T>();
  task.d_queries = d_queries.mutable_data_ptr<T>();
  task.d_scale = arguments.scale ? d_scale.mutable_data_ptr<T>() : nullptr;
  task.order = order.order.const_data_ptr<int64_t>();
  task.starts = order.starts.const_data_ptr<int64_t>();
  task.d_table = d_table.mutable_data_ptr<T>();
  run_backward_queries(task);
  run_backward_table(task);
}

Tensor sampled_score(const Tensor& queries, const Tensor& table, const Tensor& ids,
                     const Tensor& side, int64_t metric, const std::vector<int64_t>& pairs,
                     const std::vector<double>& weights, std::optional<Tensor> scale,
                     std::optional<Tensor> order) {
  const Arguments arguments(queries, table, ids, side, metric, pairs, weights, scale);
  const Tensor scores =
      torch::stable::new_empty(queries, {arguments.queries.size(1), arguments.candidates.ids.size(1)});
  const bool single = queries.scalar_type() == ScalarType::Float;
  (single ? forward<float> : forward<double>)(arguments, scores);
  return scores;
}

std::tuple<Tensor, Tensor, Tensor> sampled_score_backward(
    const Tensor& grad_in, const Tensor& queries, const Tensor& table, const Tensor& ids,
    const Tensor& side, int64_t metric, const std::vector<int64_t>& pairs,
    const std::vector<double>& weights, std::optional<Tensor> scale,
    std::optional<Tensor> order_in) {
  const Arguments arguments(queries, table, ids, side, metric, pairs, weights, scale);
  const Tensor& ids_of = arguments.candidates.ids;
  const Tensor grad = checked_gradient(kOp, grad_in, ids_of, "queries", queries);
  const IdOrder order(kOp, ids_of, arguments.table.size(0), order_in);
  const Tensor d_queries = torch::stable::empty_like(arguments.queries);
  const Tensor d_table = torch::stable::empty_like(arguments.table);
  const Tensor d_scale = arguments.scale ? torch::stable::empty_like(*arguments.scale)
                                         : torch::stable::new_empty(queries, {0});
  const bool single = queries.scalar_type() == ScalarType::Float;
  (single ? backward<float> : backward<double>)(arguments, grad, order, d_queries, d_table,
                                                d_scale);
  return {d_queries, d_table, d_scale};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, CPU, m) {
  m.impl("sampled_score", TORCH_BOX(&sampled_score));
  m.impl("sampled_score_backward", TORCH_BOX(&sampled_score_backward));
}

}  // namespace mmkgc
