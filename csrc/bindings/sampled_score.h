// mmkgc::sampled_score and its backward ops for either device; `Kernels` runs the passes.
#pragma once

#include <optional>
#include <tuple>
#include <vector>

#include "scoring.h"

namespace mmkgc {

// The arguments of sampled_score, checked.
inline Scoring checked_scoring(const char* op, const Tensor& queries, const Tensor& table,
                               const Tensor& ids, const Tensor& corrupted_side, int64_t metric_in,
                               const std::vector<int64_t>& pairs,
                               const std::vector<double>& weights,
                               const std::optional<Tensor>& scale_in) {
  STD_TORCH_CHECK(queries.dim() == 3 && (queries.size(0) == 1 || queries.size(0) == 2), op,
                  "queries must be [1 or 2, B, Dq]");
  check_real(op, "queries", queries);
  check_matrix(op, "table", table);
  check_table_dtype(op, table, "queries", queries);
  const int64_t sides = queries.size(0), batch = queries.size(1), width = table.size(1);
  std::optional<Tensor> scale;
  if (scale_in) {
    const Tensor& x = *scale_in;
    STD_TORCH_CHECK(x.dim() == 3 && x.size(0) == sides && x.size(1) == batch &&
                        x.size(2) == width && x.scalar_type() == queries.scalar_type(),
                    op, "scale must be [", sides, ", ", batch, ", ", width,
                    "] with the dtype of queries");
    scale = torch::stable::contiguous(x);
  }
  const Metric metric = check_metric(op, metric_in);
  return {op,
          torch::stable::contiguous(queries),
          torch::stable::contiguous(table),
          scale,
          metric,
          read_pairs(op, pairs, weights, metric, queries.size(2), width),
          {op, ids, corrupted_side, batch, sides, table.size(0)}};
}

// `Kernels` has the static functions
//   scores(scoring, order, out) and
//   gradients(scoring, grad, order, d_queries, d_scale, d_table), where d_scale is empty without a
//   scale and d_table is absent if an optimizer computes it.
template <typename Kernels>
struct SampledScore {
  static constexpr const char* kOp = "sampled_score: ";
  using Integers = const std::vector<int64_t>&;
  using Numbers = const std::vector<double>&;
  using Optional = std::optional<Tensor>;

  static Scoring check(const Tensor& queries, const Tensor& table, const Tensor& ids,
                       const Tensor& corrupted_side, int64_t metric, Integers pairs,
                       Numbers weights, const Optional& scale) {
    check_devices(kOp,
                  {{"queries", queries},
                   {"ids", ids},
                   {"corrupted_side", corrupted_side},
                   {"scale", scale}},
                  "table", table);
    return checked_scoring(kOp, queries, table, ids, corrupted_side, metric, pairs, weights, scale);
  }

  struct Gradients {
    Tensor d_queries, d_scale;
    Optional d_table;
  };

  static Gradients gradients(const Scoring& s, const Tensor& grad_in, const Optional& order,
                             bool with_table) {
    check_devices(kOp, {{"grad", grad_in}}, "table", s.table);
    const Tensor grad = checked_gradient(s, grad_in, "queries", s.queries);
    const Gradients out{torch::stable::empty_like(s.queries),
                        s.scale ? torch::stable::empty_like(*s.scale)
                                : torch::stable::new_empty(s.queries, {0}),
                        new_table_gradient(s, with_table)};
    Kernels::gradients(s, grad, order, out.d_queries, out.d_scale, out.d_table);
    return out;
  }

  static Tensor forward(const Tensor& queries, const Tensor& table, const Tensor& ids,
                        const Tensor& corrupted_side, int64_t metric, Integers pairs,
                        Numbers weights, Optional scale, Optional order) {
    const Scoring s = check(queries, table, ids, corrupted_side, metric, pairs, weights, scale);
    const Tensor scores = s.new_scores();
    Kernels::scores(s, order, scores);
    return scores;
  }

  static std::tuple<Tensor, Tensor, Tensor> backward(
      const Tensor& grad, const Tensor& queries, const Tensor& table, const Tensor& ids,
      const Tensor& corrupted_side, int64_t metric, Integers pairs, Numbers weights,
      Optional scale, Optional order) {
    const Scoring s = check(queries, table, ids, corrupted_side, metric, pairs, weights, scale);
    const Gradients g = gradients(s, grad, order, true);
    return {g.d_queries, *g.d_table, g.d_scale};
  }

  static std::tuple<Tensor, Tensor> backward_queries(
      const Tensor& grad, const Tensor& queries, const Tensor& table, const Tensor& ids,
      const Tensor& corrupted_side, int64_t metric, Integers pairs, Numbers weights,
      Optional scale, Optional order) {
    const Scoring s = check(queries, table, ids, corrupted_side, metric, pairs, weights, scale);
    const Gradients g = gradients(s, grad, order, false);
    return {g.d_queries, g.d_scale};
  }

  static void add_to(auto& library) {
    library.impl("sampled_score", TORCH_BOX(&SampledScore::forward));
    library.impl("sampled_score_backward", TORCH_BOX(&SampledScore::backward));
    library.impl("sampled_score_backward_queries", TORCH_BOX(&SampledScore::backward_queries));
  }
};

}  // namespace mmkgc
