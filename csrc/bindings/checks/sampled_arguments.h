// The arguments of sampled scoring, checked: sampled_score and table_adam take the same.
#pragma once

#include <optional>
#include <vector>

#include "candidates.h"

namespace mmkgc {

// Checked and contiguous; messages begin with the op's name.
struct SampledArguments {
  const char* op;
  Tensor queries, table;
  std::optional<Tensor> scale;
  Metric metric;
  std::vector<Pair> pairs;
  Candidates candidates;

  SampledArguments(const char* op_in, const Tensor& queries_in, const Tensor& table_in,
                   const Tensor& ids, const Tensor& side, int64_t metric_in,
                   const std::vector<int64_t>& pairs_in, const std::vector<double>& weights,
                   const std::optional<Tensor>& scale_in)
      : op(op_in),
        queries(checked_queries(queries_in)),
        table(checked_table(table_in, queries_in)),
        scale(checked_scale(scale_in, queries_in, table_in)),
        metric(check_metric(op, metric_in)),
        pairs(read_pairs(op, pairs_in, weights, metric, queries.size(2), table.size(1))),
        candidates(op, ids, side, queries.size(1), queries.size(0), table.size(0)) {}

  Tensor checked_queries(const Tensor& x) const {
    STD_TORCH_CHECK(x.dim() == 3 && (x.size(0) == 1 || x.size(0) == 2), op,
                    "queries must be [1 or 2, B, Dq]");
    check_real(op, "queries", x);
    return torch::stable::contiguous(x);
  }

  Tensor checked_table(const Tensor& x, const Tensor& queries_in) const {
    check_matrix(op, "table", x);
    check_table_dtype(op, x, "queries", queries_in);
    return torch::stable::contiguous(x);
  }

  std::optional<Tensor> checked_scale(const std::optional<Tensor>& x, const Tensor& queries_in,
                                      const Tensor& table_in) const {
    if (!x) return std::nullopt;
    STD_TORCH_CHECK(x->dim() == 3 && x->size(0) == queries_in.size(0) &&
                        x->size(1) == queries_in.size(1) && x->size(2) == table_in.size(1) &&
                        x->scalar_type() == queries_in.scalar_type(),
                    op, "scale must be [", queries_in.size(0), ", ", queries_in.size(1), ", ",
                    table_in.size(1), "] of the queries' dtype");
    return torch::stable::contiguous(*x);
  }

  // Where the gradient of the scale goes, empty when there is none.
  Tensor d_scale() const {
    return scale ? torch::stable::empty_like(*scale) : torch::stable::new_empty(queries, {0});
  }
};

}  // namespace mmkgc
