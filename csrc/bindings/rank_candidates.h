// mmkgc::rank_candidates for either device; `Kernels` counts.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>
#include <vector>

#include "../common/ranking.h"
#include "arguments.h"

namespace mmkgc {

// Row pointers with one row per query.
inline void check_rows(const char* op, const char* name, const Tensor& ptr, int64_t rows,
                       int64_t ids) {
  STD_TORCH_CHECK(ptr.size(0) == rows + 1, op, name, " has ", ptr.size(0), " entries, expected ",
                  rows + 1, " (queries + 1)");
  check_pointers(op, name, " runs from ", ptr, ids);
}

inline void check_ascending(const char* op, const Tensor& ptr, const Tensor& ids) {
  if (!is_readable(ids)) return;
  const int64_t* p = ptr.const_data_ptr<int64_t>();
  const int64_t* v = ids.const_data_ptr<int64_t>();
  for (int64_t row = 0, rows = ptr.size(0) - 1; row < rows; ++row) {
    for (int64_t i = p[row] + 1; i < p[row + 1]; ++i) {
      STD_TORCH_CHECK(v[i - 1] < v[i], op, "filter_ids of query ", row,
                      " are not strictly ascending");
    }
  }
}

// The arguments, checked and contiguous, and room for the results.
struct RankArguments {
  Tensor queries, table;
  std::optional<Tensor> scale;
  Tensor target_ptr, target_ids, filter_ptr, filter_ids;
  Metric metric;
  std::vector<Pair> pairs;
  Tensor better, equal, nonfinite;

  RankArguments(const char* op, const Tensor& queries_in, const Tensor& table_in,
                const Tensor& target_ptr_in, const Tensor& target_ids_in,
                const Tensor& filter_ptr_in, const Tensor& filter_ids_in, int64_t metric_in,
                const std::vector<int64_t>& pairs_in, const std::vector<double>& weights,
                const std::optional<Tensor>& scale_in) {
    check_matrix(op, "queries", queries_in);
    check_matrix(op, "table", table_in);
    check_real(op, "queries", queries_in);
    check_table_dtype(op, table_in, "queries", queries_in);
    const int64_t n = queries_in.size(0);
    if (scale_in) {
      check_matrix(op, "scale", *scale_in);
      STD_TORCH_CHECK(scale_in->scalar_type() == queries_in.scalar_type() &&
                          scale_in->size(0) == n && scale_in->size(1) == table_in.size(1),
                      op, "scale must be [", n, ", ", table_in.size(1),
                      "] with the dtype of queries");
      scale = torch::stable::contiguous(*scale_in);
    }
    check_index(op, "target_ptr", target_ptr_in);
    check_index(op, "target_ids", target_ids_in);
    check_index(op, "filter_ptr", filter_ptr_in);
    check_index(op, "filter_ids", filter_ids_in);
    metric = check_metric(op, metric_in);
    pairs = read_pairs(op, pairs_in, weights, metric, queries_in.size(1), table_in.size(1));

    queries = torch::stable::contiguous(queries_in);
    table = torch::stable::contiguous(table_in);
    target_ptr = torch::stable::contiguous(target_ptr_in);
    target_ids = torch::stable::contiguous(target_ids_in);
    filter_ptr = torch::stable::contiguous(filter_ptr_in);
    filter_ids = torch::stable::contiguous(filter_ids_in);
    check_rows(op, "target_ptr", target_ptr, n, target_ids.size(0));
    check_rows(op, "filter_ptr", filter_ptr, n, filter_ids.size(0));
    check_ids(op, "target_ids", target_ids, table.size(0));
    check_ids(op, "filter_ids", filter_ids, table.size(0));
    check_ascending(op, filter_ptr, filter_ids);

    better = torch::stable::empty_like(target_ids);
    equal = torch::stable::empty_like(target_ids);
    nonfinite = torch::stable::new_empty(target_ids, {n});
  }

  // The task points into the tensors of this struct. `Table` is the dtype of the table.
  template <typename Table>
  RankTask<Table> task() const {
    using T = Accumulator<Table>;
    return {queries.const_data_ptr<T>(),
            static_cast<const Table*>(table.const_data_ptr()),
            scale ? scale->const_data_ptr<T>() : nullptr,
            target_ptr.const_data_ptr<int64_t>(),
            target_ids.const_data_ptr<int64_t>(),
            filter_ptr.const_data_ptr<int64_t>(),
            filter_ids.const_data_ptr<int64_t>(),
            better.mutable_data_ptr<int64_t>(),
            equal.mutable_data_ptr<int64_t>(),
            nonfinite.mutable_data_ptr<int64_t>(),
            queries.size(0),
            table.size(0),
            target_ids.size(0),
            filter_ids.size(0),
            queries.size(1),
            table.size(1),
            metric,
            pairs.data(),
            static_cast<int64_t>(pairs.size())};
  }
};

// `Kernels` has the static function count(arguments).
template <typename Kernels>
struct RankCandidates {
  static std::tuple<Tensor, Tensor, Tensor> count(
      const Tensor& queries, const Tensor& table, const Tensor& target_ptr,
      const Tensor& target_ids, const Tensor& filter_ptr, const Tensor& filter_ids, int64_t metric,
      const std::vector<int64_t>& pairs, const std::vector<double>& weights,
      std::optional<Tensor> scale) {
    constexpr const char* kOp = "rank_candidates: ";
    check_devices(kOp,
                  {{"table", table},
                   {"target_ptr", target_ptr},
                   {"target_ids", target_ids},
                   {"filter_ptr", filter_ptr},
                   {"filter_ids", filter_ids},
                   {"scale", scale}},
                  "queries", queries);
    const RankArguments arguments(kOp, queries, table, target_ptr, target_ids, filter_ptr,
                                  filter_ids, metric, pairs, weights, scale);
    Kernels::count(arguments);
    return {arguments.better, arguments.equal, arguments.nonfinite};
  }

  static void add_to(auto& library) {
    library.impl("rank_candidates", TORCH_BOX(&RankCandidates::count));
  }
};

}  // namespace mmkgc
