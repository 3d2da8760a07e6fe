// Argument checks that ops share. Messages name the op and the argument; the references say the same.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>
#include <vector>

#include "../../common/metric.h"

namespace mmkgc {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Whether values may be looked at: those on a GPU are not, which would wait for it.
inline bool is_readable([[maybe_unused]] const Tensor& x) {
#if defined(MMKGC_EMULATE)
  return false;
#else
  return !x.is_cuda();
#endif
}

inline void check_dimensions(const char* op, const char* name, const Tensor& x, int64_t expected) {
  STD_TORCH_CHECK(x.dim() == expected, op, name, " has ", x.dim(), " dimensions, expected ",
                  expected);
}

inline void check_matrix(const char* op, const char* name, const Tensor& x) {
  check_dimensions(op, name, x, 2);
}

inline void check_index(const char* op, const char* name, const Tensor& x) {
  check_dimensions(op, name, x, 1);
  STD_TORCH_CHECK(x.scalar_type() == ScalarType::Long, op, name, " must be int64");
}

// float32 or float64.
inline void check_real(const char* op, const char* name, const Tensor& x) {
  const ScalarType dtype = x.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double, op, name,
                  " must be float32 or float64");
}

inline void check_same_dtype(const char* op, const char* name, const Tensor& x, const char* like,
                             const Tensor& y) {
  STD_TORCH_CHECK(x.scalar_type() == y.scalar_type(), op, name, " and ", like,
                  " must have the same dtype");
}

// float16 or bfloat16, which only the kernels of a GPU take, and of tables; all else is float32 then.
inline bool is_low(const Tensor& table) {
  const ScalarType dtype = table.scalar_type();
  return (dtype == ScalarType::Half || dtype == ScalarType::BFloat16) && !is_readable(table);
}

// A table of the dtype that another tensor has.
inline void check_table_dtype(const char* op, const Tensor& table, const char* like,
                              const Tensor& y) {
  if (is_low(table) && y.scalar_type() == ScalarType::Float) return;
  check_same_dtype(op, "table", table, like, y);
}

// One number that is added to the step.
inline void check_counter(const char* op, const std::optional<Tensor>& counter) {
  STD_TORCH_CHECK(!counter || (counter->numel() == 1 && counter->scalar_type() == ScalarType::Long),
                  op, "counter must be one int64");
}

// All of a contiguous int64 tensor within 0..bound-1; positions are counted in row-major order.
inline void check_ids(const char* op, const char* name, const Tensor& ids, int64_t bound) {
  if (!is_readable(ids)) return;
  const int64_t* p = ids.const_data_ptr<int64_t>();
  const int64_t n = ids.numel();
  // As one number, so that the loop vectorises; which one it was is looked up when it is wrong.
  uint64_t outside = 0;
  for (int64_t i = 0; i < n; ++i) {
    outside |= static_cast<uint64_t>(p[i]) >= static_cast<uint64_t>(bound);
  }
  for (int64_t i = 0; outside && i < n; ++i) {
    STD_TORCH_CHECK(p[i] >= 0 && p[i] < bound, op, name, "[", i, "] is ", p[i], ", outside 0..",
                    bound - 1);
  }
}

inline Metric check_metric(const char* op, int64_t metric) {
  STD_TORCH_CHECK(metric >= 0 && metric <= 3, op, "metric is ", metric,
                  ", expected 0 (dot), 1 (l1), 2 (l2) or 3 (modulus)");
  return static_cast<Metric>(metric);
}

inline std::vector<Pair> read_pairs(const char* op, const std::vector<int64_t>& pairs,
                                    const std::vector<double>& weights, Metric metric,
                                    int64_t query_width, int64_t candidate_width) {
  STD_TORCH_CHECK(!weights.empty() && pairs.size() == 3 * weights.size(), op, "pairs holds ",
                  pairs.size(), " numbers for ", weights.size(),
                  " weights, expected three a weight and at least one pair");
  std::vector<Pair> out;
  for (size_t i = 0; i < weights.size(); ++i) {
    const Pair pair{pairs[3 * i], pairs[3 * i + 1], pairs[3 * i + 2], weights[i]};
    STD_TORCH_CHECK(pair.query >= 0 && pair.candidate >= 0 && pair.width >= 0 &&
                        pair.width <= query_width && pair.query <= query_width - pair.width &&
                        pair.width <= candidate_width &&
                        pair.candidate <= candidate_width - pair.width,
                    op, "pair ", i, " (", pair.query, ", ", pair.candidate, ", ", pair.width,
                    ") reaches outside queries of width ", query_width, " or a table of width ",
                    candidate_width);
    STD_TORCH_CHECK(metric != Metric::modulus || pair.width % 2 == 0, op, "pair ", i,
                    " has odd width ", pair.width, ", a complex block is [re | im]");
    out.push_back(pair);
  }
  return out;
}

}  // namespace mmkgc
