// Checks and torch glue of mmkgc::rank_candidates; the work is in cpu/rank_candidates.cpp.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>
#include <vector>

#include "common/arguments.h"
#include "cpu/rank_candidates.h"

namespace mmkgc {
namespace {

constexpr const char* kOp = "rank_candidates: ";

void check_rows(const Tensor& ptr, const char* name, int64_t rows, int64_t ids) {
  const int64_t* p = ptr.const_data_ptr<int64_t>();
  STD_TORCH_CHECK(ptr.size(0) == rows + 1, kOp, name, " has ", ptr.size(0), " entries, expected ",
                  rows + 1, " (queries + 1)");
  STD_TORCH_CHECK(p[0] == 0 && p[rows] == ids, kOp, name, " runs from ", p[0], " to ", p[rows],
                  ", expected 0 to ", ids);
  for (int64_t i = 0; i < rows; ++i) {
    STD_TORCH_CHECK(p[i] <= p[i + 1], kOp, name, " decreases at entry ", i + 1);
  }
}

void check_ascending(const Tensor& ptr, const Tensor& ids) {
  const int64_t* p = ptr.const_data_ptr<int64_t>();
  const int64_t* v = ids.const_data_ptr<int64_t>();
  for (int64_t row = 0, rows = ptr.size(0) - 1; row < rows; ++row) {
    for (int64_t i = p[row] + 1; i < p[row + 1]; ++i) {
      STD_TORCH_CHECK(v[i - 1] < v[i], kOp, "filter_ids of query ", row,
                      " are not strictly ascending");
    }
  }
}

template <typename T>
void run(const Tensor& queries, const Tensor& table, const std::optional<Tensor>& scale,
         const Tensor& target_ptr, const Tensor& target_ids, const Tensor& filter_ptr,
         const Tensor& filter_ids, Metric metric, const std::vector<Pair>& pairs,
         const Tensor& better, const Tensor& equal, const Tensor& nonfinite) {
  const cpu::RankTask<T> task{
      queries.const_data_ptr<T>(),
      table.const_data_ptr<T>(),
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
      queries.size(1),
      table.size(1),
      metric,
      pairs.data(),
      static_cast<int64_t>(pairs.size())};
  torch::stable::parallel_for(0, task.n_queries, cpu::kQueryBlock / 4,
                              [&](int64_t begin, int64_t end) { rank_queries(task, begin, end); });
}

std::tuple<Tensor, Tensor, Tensor> rank_candidates(
    const Tensor& queries_in, const Tensor& table_in, const Tensor& target_ptr_in,
    const Tensor& target_ids_in, const Tensor& filter_ptr_in, const Tensor& filter_ids_in,
    int64_t metric_in, const std::vector<int64_t>& pairs_in, const std::vector<double>& weights,
    std::optional<Tensor> scale_in) {
  check_matrix(kOp, "queries", queries_in);
  check_matrix(kOp, "table", table_in);
  check_real(kOp, "queries", queries_in);
  check_same_dtype(kOp, "table", table_in, "queries", queries_in);
  const ScalarType dtype = queries_in.scalar_type();
  const int64_t n = queries_in.size(0);
  if (scale_in) {
    check_matrix(kOp, "scale", *scale_in);
    STD_TORCH_CHECK(scale_in->scalar_type() == dtype && scale_in->size(0) == n &&
                        scale_in->size(1) == table_in.size(1),
                    kOp, "scale must be [", n, ", ", table_in.size(1), "] of the queries' dtype");
    scale_in = torch::stable::contiguous(*scale_in);
  }
  check_index(kOp, "target_ptr", target_ptr_in);
  check_index(kOp, "target_ids", target_ids_in);
  check_index(kOp, "filter_ptr", filter_ptr_in);
  check_index(kOp, "filter_ids", filter_ids_in);
  const Metric metric = check_metric(kOp, metric_in);
  const std::vector<Pair> pairs =
      read_pairs(kOp, pairs_in, weights, metric, queries_in.size(1), table_in.size(1));

  const Tensor queries = torch::stable::contiguous(queries_in);
  const Tensor table = torch::stable::contiguous(table_in);
  const Tensor target_ptr = torch::stable::contiguous(target_ptr_in);
  const Tensor target_ids = torch::stable::contiguous(target_ids_in);
  const Tensor filter_ptr = torch::stable::contiguous(filter_ptr_in);
  const Tensor filter_ids = torch::stable::contiguous(filter_ids_in);
  check_rows(target_ptr, "target_ptr", n, target_ids.size(0));
  check_rows(filter_ptr, "filter_ptr", n, filter_ids.size(0));
  check_ids(kOp, "target_ids", target_ids, table.size(0));
  check_ids(kOp, "filter_ids", filter_ids, table.size(0));
  check_ascending(filter_ptr, filter_ids);

  const Tensor better = torch::stable::empty_like(target_ids);
  const Tensor equal = torch::stable::empty_like(target_ids);
  const Tensor nonfinite = torch::stable::new_empty(target_ids, {n});
  const auto work = dtype == ScalarType::Float ? run<float> : run<double>;
  work(queries, table, scale_in, target_ptr, target_ids, filter_ptr, filter_ids, metric, pairs,
       better, equal, nonfinite);
  return {better, equal, nonfinite};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, CPU, m) {
  m.impl("rank_candidates", TORCH_BOX(&rank_candidates));
}

}  // namespace mmkgc
