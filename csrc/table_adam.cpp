// Checks and torch glue of mmkgc::table_adam; the work is in cpu/sampled_score.cpp.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <vector>

#include "sampled_arguments.h"

namespace mmkgc {
namespace {

constexpr const char* kOp = "table_adam: ";

// What is stepped is changed in place, and so must be dense.
void check_state(const char* name, const Tensor& x, const Tensor& table) {
  check_same_dtype(kOp, name, x, "table", table);
  STD_TORCH_CHECK(x.dim() == 2 && x.size(0) == table.size(0) && x.size(1) == table.size(1), kOp,
                  name, " must have the shape of table");
  STD_TORCH_CHECK(x.is_contiguous(), kOp, name, " must be contiguous");
}

// Gradient rows of listed entities, in the order of `extra_ids`.
struct Extra {
  Tensor rows;
  std::optional<IdOrder> order;

  Extra(const std::optional<Tensor>& rows_in, const std::optional<Tensor>& ids_in,
        const Tensor& table) {
    STD_TORCH_CHECK(rows_in.has_value() == ids_in.has_value(), kOp,
                    "extra and extra_ids come together");
    if (!rows_in) return;
    check_matrix(kOp, "extra", *rows_in);
    check_same_dtype(kOp, "extra", *rows_in, "table", table);
    check_index(kOp, "extra_ids", *ids_in);
    STD_TORCH_CHECK(rows_in->size(0) == ids_in->size(0) && rows_in->size(1) == table.size(1), kOp,
                    "extra must be [", ids_in->size(0), ", ", table.size(1), "]");
    rows = torch::stable::contiguous(*rows_in);
    const Tensor ids = torch::stable::contiguous(*ids_in);
    check_ids(kOp, "extra_ids", ids, table.size(0));
    order.emplace(ids.const_data_ptr<int64_t>(), ids.size(0), table.size(0));
  }
};

template <typename T>
double run(const SampledArguments& arguments, const Tensor& grad, const SortedCandidates& order,
           const Extra& extra, const std::optional<Tensor>& dense, const Tensor& table,
           const Tensor& exp_avg, const Tensor& exp_avg_sq, const AdamStep<T>& step) {
  cpu::SampledTask<T> task = arguments.task<T>(order);
  task.grad = grad.const_data_ptr<T>();
  if (extra.order) {
    task.extra = extra.rows.const_data_ptr<T>();
    task.extra_order = extra.order->order.data();
    task.extra_starts = extra.order->starts.data();
  }
  const cpu::AdamTask<T> adam{step, table.mutable_data_ptr<T>(), exp_avg.mutable_data_ptr<T>(),
                              exp_avg_sq.mutable_data_ptr<T>(),
                              dense ? dense->const_data_ptr<T>() : nullptr};
  double squares[kTableParts] = {};
  over_table(task, [&](int64_t part, int64_t first, int64_t last) {
    squares[part] = cpu::sampled_step_table(task, adam, first, last);
  });
  double sum = 0;
  for (const double square : squares) sum += square;
  return sum;
}

Tensor table_adam(const Tensor& grad_in, const Tensor& queries, const Tensor& table,
                  const Tensor& exp_avg, const Tensor& exp_avg_sq, const Tensor& ids,
                  const Tensor& side, int64_t metric, const std::vector<int64_t>& pairs,
                  const std::vector<double>& weights, std::optional<Tensor> scale,
                  std::optional<Tensor> order_in, std::optional<Tensor> extra_in,
                  std::optional<Tensor> extra_ids, std::optional<Tensor> dense_in, double lr,
                  double beta1, double beta2, double eps, double weight_decay, bool decoupled,
                  int64_t step) {
  const SampledArguments arguments(kOp, queries, table, ids, side, metric, pairs, weights, scale);
  check_state("table", table, table);
  check_state("exp_avg", exp_avg, table);
  check_state("exp_avg_sq", exp_avg_sq, table);
  STD_TORCH_CHECK(step >= 1, kOp, "step is ", step, ", expected 1 or more");
  std::optional<Tensor> dense = dense_in;
  if (dense) {
    STD_TORCH_CHECK(dense->dim() == 2 && dense->size(0) == table.size(0) &&
                        dense->size(1) == table.size(1),
                    kOp, "dense must have the shape of table");
    check_same_dtype(kOp, "dense", *dense, "table", table);
    dense = torch::stable::contiguous(*dense);
  }
  const Tensor& ids_of = arguments.candidates.ids;
  const Tensor grad = checked_gradient(kOp, grad_in, ids_of, "queries", queries);
  const SortedCandidates order(kOp, arguments.candidates, table.size(0), order_in);
  const Extra extra(extra_in, extra_ids, table);
  const bool single = table.scalar_type() == ScalarType::Float;
  const double squares =
      single ? run<float>(arguments, grad, order, extra, dense, table, exp_avg, exp_avg_sq,
                          {lr, beta1, beta2, eps, weight_decay, decoupled, step})
             : run<double>(arguments, grad, order, extra, dense, table, exp_avg, exp_avg_sq,
                           {lr, beta1, beta2, eps, weight_decay, decoupled, step});
  const Tensor out = torch::stable::new_empty(table, {}, ScalarType::Double);
  *out.mutable_data_ptr<double>() = squares;
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, CPU, m) { m.impl("table_adam", TORCH_BOX(&table_adam)); }

}  // namespace mmkgc
