// Candidates in sorted order on the CPU, and the tasks of the passes over them.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <vector>

#include "../../cpu/sampled_score.h"
#include "../scoring.h"

namespace mmkgc {

// Positions sorted by id, and the start of each id.
struct IdOrder {
  std::vector<int64_t> order, starts;  // [n], [n_ids + 1]

  IdOrder(const int64_t* ids, int64_t n, int64_t n_ids)
      : order(static_cast<size_t>(n)), starts(static_cast<size_t>(n_ids) + 1) {
    cpu::sort_by_id(ids, n, n_ids, order.data(), starts.data());
  }
};

// Candidates in the order of their ids, equal ids by position. A given order is checked.
struct SortedCandidates {
  Tensor order;                      // [n] int64 positions
  std::unique_ptr<int32_t[]> where;  // [n] the query row of each candidate, of sides * batch
  std::vector<cpu::Run> runs;        // one per entity

  SortedCandidates(const Scoring& scoring, const std::optional<Tensor>& given) {
    const char* op = scoring.op;
    const Tensor& ids = scoring.candidates.ids;
    const int64_t entities = scoring.table.size(0);
    const int64_t n = ids.numel(), batch = ids.size(0), columns = ids.size(1);
    const int64_t* id = ids.const_data_ptr<int64_t>();
    if (given) {
      check_index(op, "order", *given);
      STD_TORCH_CHECK(given->size(0) == n, op, "order has ", given->size(0),
                      " entries, expected ", n, " (one per candidate)");
      order = torch::stable::contiguous(*given);
      check_ids(op, "order", order, n);
    } else {
      order = torch::stable::new_empty(ids, {n});
      std::vector<int64_t> starts(static_cast<size_t>(entities) + 1);
      cpu::sort_by_id(id, n, entities, order.mutable_data_ptr<int64_t>(), starts.data());
    }
    where = std::make_unique_for_overwrite<int32_t[]>(static_cast<size_t>(n));
    const auto sorted = std::make_unique_for_overwrite<int64_t[]>(static_cast<size_t>(n));
    const int64_t* o = order.const_data_ptr<int64_t>();
    const int8_t* side = scoring.candidates.corrupted_side.const_data_ptr<int8_t>();
    torch::stable::parallel_for(0, n, 4096, [&](int64_t begin, int64_t end) {
      const auto width = static_cast<uint32_t>(columns);  // 32-bit division is faster
      for (int64_t i = begin; i < end; ++i) {
        const int64_t position = o[i];
        const int64_t row = n <= UINT32_MAX ? static_cast<uint32_t>(position) / width
                                            : position / columns;
        sorted[i] = id[position];
        where[i] = static_cast<int32_t>(side[position] * batch + row);
      }
    });
    // Ascending by id and, for equal ids, by position, so that no position is repeated.
    const auto in_order = [&](int64_t i) {
      return (sorted[i - 1] < sorted[i]) | ((sorted[i - 1] == sorted[i]) & (o[i - 1] < o[i]));
    };
    bool ascending = true;
    for (int64_t i = 1; i < n; ++i) ascending &= in_order(i);
    for (int64_t i = 1; !ascending && i < n; ++i) {
      STD_TORCH_CHECK(in_order(i), op, "order does not sort the ids at entry ", i);
    }
    // Without a branch on the ids, which would be mispredicted often.
    const auto ends = std::make_unique_for_overwrite<int64_t[]>(static_cast<size_t>(n));
    size_t count = 0;
    for (int64_t i = 0; i + 1 < n; ++i) {
      ends[count] = i + 1;
      count += sorted[i] != sorted[i + 1];
    }
    if (n) ends[count++] = n;
    runs.resize(count);
    for (size_t r = 0; r < count; ++r) {
      runs[r] = {sorted[ends[r] - 1], r ? ends[r - 1] : 0, ends[r]};
    }
  }
};

template <typename T>
cpu::SampledTask<T> sampled_task(const Scoring& scoring, const SortedCandidates& sorted) {
  const Tensor& queries = scoring.queries;
  const Tensor& table = scoring.table;
  cpu::SampledTask<T> task{};
  task.queries = queries.const_data_ptr<T>();
  task.table = table.const_data_ptr<T>();
  task.scale = scoring.scale ? scoring.scale->const_data_ptr<T>() : nullptr;
  task.sides = queries.size(0);
  task.batch = queries.size(1);
  task.n = scoring.candidates.ids.size(1);
  task.entities = table.size(0);
  task.query_width = queries.size(2);
  task.candidate_width = table.size(1);
  task.metric = scoring.metric;
  task.pairs = scoring.pairs.data();
  task.n_pairs = static_cast<int64_t>(scoring.pairs.size());
  task.order = sorted.order.const_data_ptr<int64_t>();
  task.where = sorted.where.get();
  task.runs = sorted.runs.data();
  task.n_runs = static_cast<int64_t>(sorted.runs.size());
  return task;
}

}  // namespace mmkgc
