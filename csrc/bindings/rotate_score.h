// mmkgc::rotate_score and its backward ops for either device; `Kernels` runs the passes.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <optional>
#include <tuple>

#include "scoring.h"

namespace mmkgc {

// The arguments of rotate_score and rotate_loss, checked and contiguous, and room for the queries.
struct RotateArguments {
  const char* op;
  Tensor table, phases, heads, relations, tails;
  Scoring scoring;  // of the queries, which the kernels fill

  RotateArguments(const char* op_in, const Tensor& table_in, const Tensor& phases_in,
                  const Tensor& heads_in, const Tensor& relations_in, const Tensor& tails_in,
                  const Tensor& ids, const Tensor& corrupted_side)
      : op(op_in),
        table(checked_table(table_in)),
        phases(checked_phases(phases_in)),
        heads(checked_ids("heads", heads_in, heads_in.numel(), table.size(0))),
        relations(checked_ids("relations", relations_in, heads.size(0), phases.size(0))),
        tails(checked_ids("tails", tails_in, heads.size(0), table.size(0))),
        scoring{op,
                torch::stable::new_empty(phases, {2, heads.size(0), table.size(1)}),
                table,
                std::nullopt,
                Metric::modulus,
                {{0, 0, table.size(1), 1.0}},
                {op, ids, corrupted_side, heads.size(0), 2, table.size(0)}} {
    check_devices(op,
                  {{"phases", phases},
                   {"heads", heads},
                   {"relations", relations},
                   {"tails", tails},
                   {"ids", scoring.candidates.ids},
                   {"corrupted_side", scoring.candidates.corrupted_side}},
                  "table", table);
  }

  // Room for the gradients of the rows of heads and tails.
  Tensor new_known_gradient() const {
    return torch::stable::new_empty(phases, {2 * heads.size(0), table.size(1)});
  }

 private:
  Tensor checked_table(const Tensor& x) const {
    check_matrix(op, "table", x);
    if (!is_low(x)) check_real(op, "table", x);
    STD_TORCH_CHECK(x.size(1) % 2 == 0, op, "table has odd width ", x.size(1),
                    ", expected an even width for complex rows [re | im]");
    return torch::stable::contiguous(x);
  }

  Tensor checked_phases(const Tensor& x) const {
    check_matrix(op, "phases", x);
    if (is_low(table)) {
      STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float, op,
                      "phases must be float32 with a float16 or bfloat16 table");
    } else {
      check_same_dtype(op, "phases", x, "table", table);
    }
    STD_TORCH_CHECK(2 * x.size(1) == table.size(1), op, "phases has width ", x.size(1),
                    ", expected ", table.size(1) / 2, " (half the width of table)");
    return torch::stable::contiguous(x);
  }

  Tensor checked_ids(const char* name, const Tensor& ids, int64_t batch, int64_t bound) const {
    check_index(op, name, ids);
    STD_TORCH_CHECK(ids.size(0) == batch, op, name, " has ", ids.size(0), " entries, expected ",
                    batch, " (one per positive)");
    const Tensor dense = torch::stable::contiguous(ids);
    check_ids(op, name, dense, bound);
    return dense;
  }
};

// `Kernels` has the static functions
//   scores(arguments, order, out) and
//   gradients(arguments, grad, order, d_known, d_phases, d_table), where d_known holds the gradients
//   of the rows of heads and tails, and d_table, if present, includes them.
template <typename Kernels>
struct RotateScore {
  static constexpr const char* kOp = "rotate_score: ";
  using Optional = std::optional<Tensor>;

  struct Gradients {
    Tensor d_known, d_phases;
    Optional d_table;
  };

  static Gradients gradients(const RotateArguments& a, const Tensor& grad_in,
                             const Optional& order, bool with_table) {
    check_devices(kOp, {{"grad", grad_in}}, "table", a.table);
    const Tensor grad = checked_gradient(a.scoring, grad_in, "phases", a.phases);
    const Gradients out{a.new_known_gradient(), torch::stable::empty_like(a.phases),
                        new_table_gradient(a.scoring, with_table)};
    Kernels::gradients(a, grad, order, out.d_known, out.d_phases, out.d_table);
    return out;
  }

  static Tensor forward(const Tensor& table, const Tensor& phases, const Tensor& heads,
                        const Tensor& relations, const Tensor& tails, const Tensor& ids,
                        const Tensor& corrupted_side, Optional order) {
    const RotateArguments a(kOp, table, phases, heads, relations, tails, ids, corrupted_side);
    const Tensor scores = a.scoring.new_scores();
    Kernels::scores(a, order, scores);
    return scores;
  }

  static std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Tensor& table,
                                             const Tensor& phases, const Tensor& heads,
                                             const Tensor& relations, const Tensor& tails,
                                             const Tensor& ids, const Tensor& corrupted_side,
                                             Optional order) {
    const RotateArguments a(kOp, table, phases, heads, relations, tails, ids, corrupted_side);
    const Gradients g = gradients(a, grad, order, true);
    return {*g.d_table, g.d_phases};
  }

  static std::tuple<Tensor, Tensor, Tensor> backward_queries(
      const Tensor& grad, const Tensor& table, const Tensor& phases, const Tensor& heads,
      const Tensor& relations, const Tensor& tails, const Tensor& ids,
      const Tensor& corrupted_side, Optional order) {
    const RotateArguments a(kOp, table, phases, heads, relations, tails, ids, corrupted_side);
    const Gradients g = gradients(a, grad, order, false);
    return {a.scoring.queries, g.d_known, g.d_phases};
  }

  static void add_to(auto& library) {
    library.impl("rotate_score", TORCH_BOX(&RotateScore::forward));
    library.impl("rotate_score_backward", TORCH_BOX(&RotateScore::backward));
    library.impl("rotate_score_backward_queries", TORCH_BOX(&RotateScore::backward_queries));
  }
};

}  // namespace mmkgc
