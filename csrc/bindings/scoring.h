// Checked arguments of the ops that score sampled candidates.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <optional>
#include <vector>

#include "arguments.h"

namespace mmkgc {

// Candidates in contiguous tensors.
struct Candidates {
  Tensor ids;             // [B, N] int64
  Tensor corrupted_side;  // [B, N] int8

  Candidates(const char* op, const Tensor& ids_in, const Tensor& side_in, int64_t batch,
             int64_t sides, int64_t entities)
      : ids(ids_in), corrupted_side(side_in) {
    STD_TORCH_CHECK(ids.dim() == 2 && ids.size(0) == batch, op, "ids must be [", batch,
                    ", N], one row per query");
    STD_TORCH_CHECK(ids.scalar_type() == ScalarType::Long, op, "ids must be int64");
    STD_TORCH_CHECK(corrupted_side.dim() == 2 && corrupted_side.size(0) == batch &&
                        corrupted_side.size(1) == ids.size(1),
                    op, "corrupted_side must have the shape of ids");
    STD_TORCH_CHECK(corrupted_side.scalar_type() == ScalarType::Char, op,
                    "corrupted_side must be int8");
    ids = torch::stable::contiguous(ids);
    corrupted_side = torch::stable::contiguous(corrupted_side);
    check_ids(op, "ids", ids, entities);
    check_ids<int8_t>(op, "corrupted_side", corrupted_side, sides);
  }
};

// What a score of candidates depends on, in contiguous tensors. Messages begin with `op`.
struct Scoring {
  const char* op;
  Tensor queries;               // [S, B, Dq]
  Tensor table;                 // [E, Dc]
  std::optional<Tensor> scale;  // [S, B, Dc]
  Metric metric;
  std::vector<Pair> pairs;
  Candidates candidates;

  Tensor new_scores() const {
    return torch::stable::new_empty(queries, {queries.size(1), candidates.ids.size(1)});
  }
};

// The gradient of the scores, checked and contiguous.
inline Tensor checked_gradient(const Scoring& s, const Tensor& grad, const char* other_name,
                               const Tensor& y) {
  const Tensor& ids = s.candidates.ids;
  STD_TORCH_CHECK(grad.dim() == 2 && grad.size(0) == ids.size(0) && grad.size(1) == ids.size(1),
                  s.op, "grad must have the shape of ids");
  check_same_dtype(s.op, "grad", grad, other_name, y);
  return torch::stable::contiguous(grad);
}

// The gradient of a table, or nothing where an optimizer computes it.
inline std::optional<Tensor> new_table_gradient(const Scoring& s, bool with_table) {
  if (!with_table) return std::nullopt;
  return torch::stable::empty_like(s.table);
}

}  // namespace mmkgc
