// Argument checks that ops share. Messages name the op and the argument; the reference
// implementations make the same checks with the same messages (mmkgc_cli/ops/_arguments.py).
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <initializer_list>
#include <optional>
#include <vector>

#include "../common/metric.h"

namespace mmkgc {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Whether the host may read values. Reading from a GPU would make the host wait for it.
inline bool is_readable([[maybe_unused]] const Tensor& x) {
#if defined(MMKGC_EMULATE)
  return false;
#else
  return !x.is_cuda();
#endif
}

// Calls `use` with float or double, the dtype of a tensor of real numbers.
template <typename Use>
void with_real(const Tensor& x, Use use) {
  if (x.scalar_type() == ScalarType::Float) return use.template operator()<float>();
  use.template operator()<double>();
}

// An argument, or an optional one, with its name.
struct Named {
  const char* name;
  const Tensor* tensor;  // nullptr if absent

  Named(const char* name_in, const Tensor& x) : name(name_in), tensor(&x) {}
  Named(const char* name_in, const std::optional<Tensor>& x)
      : name(name_in), tensor(x ? &*x : nullptr) {}
};

// All arguments are on the device of `y`: a kernel cannot read from another device.
inline void check_devices(const char* op, std::initializer_list<Named> arguments,
                          const char* other_name, const Tensor& y) {
  const auto expected = y.device();
  for (const auto& [name, tensor] : arguments) {
    if (!tensor) continue;
    const auto device = tensor->device();
    STD_TORCH_CHECK(device.type() == expected.type() && device.index() == expected.index(), op,
                    name, " and ", other_name, " must be on the same device");
  }
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

inline void check_real(const char* op, const char* name, const Tensor& x) {
  const ScalarType dtype = x.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double, op, name,
                  " must be float32 or float64");
}

inline void check_same_dtype(const char* op, const char* name, const Tensor& x,
                             const char* other_name, const Tensor& y) {
  STD_TORCH_CHECK(x.scalar_type() == y.scalar_type(), op, name, " and ", other_name,
                  " must have the same dtype");
}

// Whether a table is float16 or bfloat16, which only CUDA kernels accept. All other tensors are
// then float32.
inline bool is_low(const Tensor& table) {
  const ScalarType dtype = table.scalar_type();
  return (dtype == ScalarType::Half || dtype == ScalarType::BFloat16) && !is_readable(table);
}

// The table has the dtype of `y`, or is low while `y` is float32.
inline void check_table_dtype(const char* op, const Tensor& table, const char* other_name,
                              const Tensor& y) {
  if (is_low(table) && y.scalar_type() == ScalarType::Float) return;
  check_same_dtype(op, "table", table, other_name, y);
}

// A number that is added to the step.
inline void check_counter(const char* op, const std::optional<Tensor>& counter) {
  STD_TORCH_CHECK(!counter || (counter->numel() == 1 && counter->scalar_type() == ScalarType::Long),
                  op, "counter must hold one int64 value");
}

// All of a contiguous integer tensor within 0..bound-1; the message counts positions in row-major
// order.
template <typename Integer = int64_t>
void check_ids(const char* op, const char* name, const Tensor& ids, int64_t bound) {
  if (!is_readable(ids)) return;
  const Integer* p = ids.const_data_ptr<Integer>();
  const int64_t n = ids.numel();
  // One flag for all ids, so that the loop vectorises. The position is searched for afterwards.
  uint64_t outside = 0;
  for (int64_t i = 0; i < n; ++i) {
    outside |= static_cast<uint64_t>(p[i]) >= static_cast<uint64_t>(bound);
  }
  for (int64_t i = 0; outside && i < n; ++i) {
    STD_TORCH_CHECK(p[i] >= 0 && p[i] < bound, op, name, "[", i, "] is ", int64_t{p[i]},
                    ", outside 0..", bound - 1);
  }
}

// Row pointers of ragged rows: from 0 to `count`, and ascending.
inline void check_pointers(const char* op, const char* name, const char* runs, const Tensor& ptr,
                           int64_t count) {
  if (!is_readable(ptr)) return;
  const int64_t* p = ptr.const_data_ptr<int64_t>();
  const int64_t rows = ptr.size(0) - 1;
  STD_TORCH_CHECK(p[0] == 0 && p[rows] == count, op, name, runs, p[0], " to ", p[rows],
                  ", expected 0 to ", count);
  for (int64_t i = 0; i < rows; ++i) {
    STD_TORCH_CHECK(p[i] <= p[i + 1], op, name, " decreases at entry ", i + 1);
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
                  " weights, expected three per weight and at least one pair");
  std::vector<Pair> out;
  for (size_t i = 0; i < weights.size(); ++i) {
    const Pair pair{pairs[3 * i], pairs[3 * i + 1], pairs[3 * i + 2], weights[i]};
    STD_TORCH_CHECK(pair.query >= 0 && pair.candidate >= 0 && pair.width >= 0 &&
                        pair.width <= query_width && pair.query <= query_width - pair.width &&
                        pair.width <= candidate_width &&
                        pair.candidate <= candidate_width - pair.width,
                    op, "pair ", i, " (", pair.query, ", ", pair.candidate, ", ", pair.width,
                    ") exceeds queries of width ", query_width, " or a table of width ",
                    candidate_width);
    STD_TORCH_CHECK(metric != Metric::modulus || pair.width % 2 == 0, op, "pair ", i,
                    " has odd width ", pair.width,
                    ", expected an even width for a complex block [re | im]");
    out.push_back(pair);
  }
  return out;
}

}  // namespace mmkgc
