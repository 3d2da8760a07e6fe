// The arguments of rotate_score, checked and contiguous: for either device.
#pragma once

#include <torch/csrc/stable/ops.h>

#include "candidates.h"

namespace mmkgc {

struct RotateArguments {
  static constexpr const char* kOp = "rotate_score: ";
  static constexpr int64_t kSides = 2;

  Tensor table, phases, heads, relations, tails;
  Candidates candidates;

  RotateArguments(const Tensor& table_in, const Tensor& phases_in, const Tensor& heads_in,
                  const Tensor& relations_in, const Tensor& tails_in, const Tensor& ids,
                  const Tensor& side)
      : table(checked_table(table_in)),
        phases(checked_phases(phases_in, table_in)),
        heads(checked_ids("heads", heads_in, heads_in.numel(), table.size(0))),
        relations(checked_ids("relations", relations_in, heads.size(0), phases.size(0))),
        tails(checked_ids("tails", tails_in, heads.size(0), table.size(0))),
        candidates(kOp, ids, side, heads.size(0), kSides, table.size(0)) {}

  static Tensor checked_ids(const char* name, const Tensor& ids, int64_t batch, int64_t bound) {
    check_index(kOp, name, ids);
    STD_TORCH_CHECK(ids.size(0) == batch, kOp, name, " has ", ids.size(0), " entries, expected ",
                    batch, " (one a positive)");
    const Tensor dense = torch::stable::contiguous(ids);
    check_ids(kOp, name, dense, bound);
    return dense;
  }

  static Tensor checked_table(const Tensor& x) {
    check_matrix(kOp, "table", x);
    if (!is_low(x)) check_real(kOp, "table", x);
    STD_TORCH_CHECK(x.size(1) % 2 == 0, kOp, "table has odd width ", x.size(1),
                    ", a complex row is [re | im]");
    return torch::stable::contiguous(x);
  }

  static Tensor checked_phases(const Tensor& x, const Tensor& table) {
    check_matrix(kOp, "phases", x);
    if (is_low(table)) {
      STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float, kOp,
                      "phases must be float32 beside a float16 or bfloat16 table");
    } else {
      check_same_dtype(kOp, "phases", x, "table", table);
    }
    STD_TORCH_CHECK(2 * x.size(1) == table.size(1), kOp, "phases has width ", x.size(1),
                    ", expected ", table.size(1) / 2, " (half a table row)");
    return torch::stable::contiguous(x);
  }
};

}  // namespace mmkgc
