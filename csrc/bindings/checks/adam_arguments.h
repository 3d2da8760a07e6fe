// The arguments of table_adam, checked: for either device.
#pragma once

#include <optional>
#include <vector>

#include "../../common/adam.h"
#include "sampled_arguments.h"

namespace mmkgc {

struct AdamArguments : SampledArguments {
  static constexpr const char* kOp = "table_adam: ";

  Tensor exp_avg, exp_avg_sq, grad;
  std::optional<Tensor> order;
  std::optional<Tensor> extra, extra_ids;  // gradient rows of listed entities
  std::optional<Tensor> dense;
  AdamSettings settings;
  std::optional<Tensor> counter;

  AdamArguments(const Tensor& grad_in, const Tensor& queries_in, const Tensor& table_in,
                const Tensor& exp_avg_in, const Tensor& exp_avg_sq_in, const Tensor& ids,
                const Tensor& side, int64_t metric_in, const std::vector<int64_t>& pairs_in,
                const std::vector<double>& weights, const std::optional<Tensor>& scale_in,
                const std::optional<Tensor>& order_in, const std::optional<Tensor>& extra_in,
                const std::optional<Tensor>& extra_ids_in, const std::optional<Tensor>& dense_in,
                const AdamSettings& settings_in, const std::optional<Tensor>& counter_in)
      : SampledArguments(kOp, queries_in, table_in, ids, side, metric_in, pairs_in, weights,
                         scale_in),
        exp_avg(exp_avg_in),
        exp_avg_sq(exp_avg_sq_in),
        order(order_in),
        settings(settings_in),
        counter(counter_in) {
    check_state("table", table_in, queries_in);
    check_state("exp_avg", exp_avg, table_in);
    check_state("exp_avg_sq", exp_avg_sq, table_in);
    STD_TORCH_CHECK(settings.step >= 1, kOp, "step is ", settings.step, ", expected 1 or more");
    check_counter(kOp, counter);
    if (dense_in) {
      STD_TORCH_CHECK(dense_in->dim() == 2 && dense_in->size(0) == table.size(0) &&
                          dense_in->size(1) == table.size(1),
                      kOp, "dense must have the shape of table");
      check_same_dtype(kOp, "dense", *dense_in, "table", table);
      dense = torch::stable::contiguous(*dense_in);
    }
    grad = checked_gradient(kOp, grad_in, candidates.ids, "queries", queries);
    check_extra(extra_in, extra_ids_in);
  }

  // What is stepped is changed in place, and so must be dense.
  void check_state(const char* name, const Tensor& x, const Tensor& like) const {
    check_same_dtype(kOp, name, x, "table", like);
    STD_TORCH_CHECK(x.dim() == 2 && x.size(0) == table.size(0) && x.size(1) == table.size(1), kOp,
                    name, " must have the shape of table");
    STD_TORCH_CHECK(x.is_contiguous(), kOp, name, " must be contiguous");
  }

  void check_extra(const std::optional<Tensor>& rows, const std::optional<Tensor>& ids) {
    STD_TORCH_CHECK(rows.has_value() == ids.has_value(), kOp, "extra and extra_ids come together");
    if (!rows) return;
    check_matrix(kOp, "extra", *rows);
    check_same_dtype(kOp, "extra", *rows, "table", table);
    check_index(kOp, "extra_ids", *ids);
    STD_TORCH_CHECK(rows->size(0) == ids->size(0) && rows->size(1) == table.size(1), kOp,
                    "extra must be [", ids->size(0), ", ", table.size(1), "]");
    extra = torch::stable::contiguous(*rows);
    extra_ids = torch::stable::contiguous(*ids);
    check_ids(kOp, "extra_ids", *extra_ids, table.size(0));
  }
};

}  // namespace mmkgc
