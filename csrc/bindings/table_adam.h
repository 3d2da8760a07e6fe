// mmkgc::table_adam for either device; `Kernels` runs the step.
#pragma once

#include <optional>
#include <vector>

#include "../common/adam.h"
#include "sampled_score.h"

namespace mmkgc {

struct AdamArguments : Scoring {
  static constexpr const char* kOp = "table_adam: ";

  Tensor exp_avg, exp_avg_sq, grad;
  std::optional<Tensor> order;
  std::optional<Tensor> extra, extra_ids;  // additional gradient rows and their entities
  std::optional<Tensor> dense;             // a dense gradient to add
  AdamSettings settings;
  std::optional<Tensor> counter;

  AdamArguments(const Scoring& scoring, const Tensor& table_in, const Tensor& exp_avg_in,
                const Tensor& exp_avg_sq_in, const Tensor& grad_in,
                const std::optional<Tensor>& order_in, const std::optional<Tensor>& extra_in,
                const std::optional<Tensor>& extra_ids_in, const std::optional<Tensor>& dense_in,
                const AdamSettings& settings_in, const std::optional<Tensor>& counter_in)
      : Scoring(scoring),
        exp_avg(exp_avg_in),
        exp_avg_sq(exp_avg_sq_in),
        order(order_in),
        settings(settings_in),
        counter(counter_in) {
    check_real(kOp, "table", table_in);
    check_state("table", table_in);
    check_state("exp_avg", exp_avg);
    check_state("exp_avg_sq", exp_avg_sq);
    STD_TORCH_CHECK(settings.step >= 1, kOp, "step is ", settings.step, ", expected 1 or more");
    check_counter(kOp, counter);
    if (dense_in) {
      STD_TORCH_CHECK(dense_in->dim() == 2 && dense_in->size(0) == table.size(0) &&
                          dense_in->size(1) == table.size(1),
                      kOp, "dense must have the shape of table");
      check_same_dtype(kOp, "dense", *dense_in, "table", table);
      dense = torch::stable::contiguous(*dense_in);
    }
    grad = checked_gradient(*this, grad_in, "queries", queries);
    check_extra(extra_in, extra_ids_in);
  }

 private:
  // A tensor that is changed in place, and so must be contiguous.
  void check_state(const char* name, const Tensor& x) const {
    check_same_dtype(kOp, name, x, "table", table);
    STD_TORCH_CHECK(x.dim() == 2 && x.size(0) == table.size(0) && x.size(1) == table.size(1), kOp,
                    name, " must have the shape of table");
    STD_TORCH_CHECK(x.is_contiguous(), kOp, name, " must be contiguous");
  }

  void check_extra(const std::optional<Tensor>& rows, const std::optional<Tensor>& ids) {
    STD_TORCH_CHECK(rows.has_value() == ids.has_value(), kOp,
                    "extra and extra_ids must be given together");
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

// `Kernels` has the static function step(arguments, squares), which writes the squared norm of the
// gradient to a float64 scalar.
template <typename Kernels>
struct TableAdam {
  static Tensor step(const Tensor& grad, const Tensor& queries, const Tensor& table,
                     const Tensor& exp_avg, const Tensor& exp_avg_sq, const Tensor& ids,
                     const Tensor& corrupted_side, int64_t metric,
                     const std::vector<int64_t>& pairs, const std::vector<double>& weights,
                     std::optional<Tensor> scale, std::optional<Tensor> order,
                     std::optional<Tensor> extra, std::optional<Tensor> extra_ids,
                     std::optional<Tensor> dense, double lr, double beta1, double beta2,
                     double eps, double weight_decay, bool decoupled, int64_t step,
                     std::optional<Tensor> counter) {
    constexpr const char* kOp = AdamArguments::kOp;
    check_devices(kOp,
                  {{"grad", grad},
                   {"queries", queries},
                   {"exp_avg", exp_avg},
                   {"exp_avg_sq", exp_avg_sq},
                   {"ids", ids},
                   {"corrupted_side", corrupted_side},
                   {"scale", scale},
                   {"extra", extra},
                   {"extra_ids", extra_ids},
                   {"dense", dense},
                   {"counter", counter}},
                  "table", table);
    const Scoring scoring = checked_scoring(kOp, queries, table, ids, corrupted_side, metric, pairs,
                                            weights, scale);
    const AdamArguments arguments(scoring, table, exp_avg, exp_avg_sq, grad, order, extra,
                                  extra_ids, dense,
                                  {lr, beta1, beta2, eps, weight_decay, decoupled, step}, counter);
    const Tensor squares = torch::stable::new_empty(table, {}, ScalarType::Double);
    Kernels::step(arguments, squares);
    return squares;
  }

  static void add_to(auto& library) { library.impl("table_adam", TORCH_BOX(&TableAdam::step)); }
};

}  // namespace mmkgc
