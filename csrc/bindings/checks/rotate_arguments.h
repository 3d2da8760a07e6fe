// The arguments of rotate_score and rotate_loss, checked and contiguous: for either device.
#pragma once

#include <torch/csrc/stable/ops.h>

#include "candidates.h"

namespace mmkgc {

struct RotateArguments {
  static constexpr int64_t kSides = 2;

  const char* op;
  Tensor table, phases, heads, relations, tails;
  Candidates candidates;

  RotateArguments(const char* op_in, const Tensor& table_in, const Tensor& phases_in,
                  const Tensor& heads_in, const Tensor& relations_in, const Tensor& tails_in,
                  const Tensor& ids, const Tensor& side)
      : op(op_in),
        table(checked_table(table_in)),
        phases(checked_phases(phases_in, table_in)),
        heads(checked_ids("heads", heads_in, heads_in.numel(), table.size(0))),
        relations(checked_ids("relations", relations_in, heads.size(0), phases.size(0))),
        tails(checked_ids("tails", tails_in, heads.size(0), table.size(0))),
        candidates(op, ids, side, heads.size(0), kSides, table.size(0)) {}

  Tensor checked_ids(const char* name, const Tensor& ids, int64_t batch, int64_t bound) const {
    check_index(op, name, ids);
    STD_TORCH_CHECK(ids.size(0) == batch, op, name, " has ", ids.size(0), " entries, expected ",
                    batch, " (one a positive)");
    const Tensor dense = torch::stable::contiguous(ids);
    check_ids(op, name, dense, bound);
    return dense;
  }

  Tensor checked_table(const Tensor& x) const {
    check_matrix(op, "table", x);
    if (!is_low(x)) check_real(op, "table", x);
    STD_TORCH_CHECK(x.size(1) % 2 == 0, op, "table has odd width ", x.size(1),
                    ", a complex row is [re | im]");
    return torch::stable::contiguous(x);
  }

  Tensor checked_phases(const Tensor& x, const Tensor& table_in) const {
    check_matrix(op, "phases", x);
    if (is_low(table_in)) {
      STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float, op,
                      "phases must be float32 beside a float16 or bfloat16 table");
    } else {
      check_same_dtype(op, "phases", x, "table", table_in);
    }
    STD_TORCH_CHECK(2 * x.size(1) == table_in.size(1), op, "phases has width ", x.size(1),
                    ", expected ", table_in.size(1) / 2, " (half a table row)");
    return torch::stable::contiguous(x);
  }
};

}  // namespace mmkgc
