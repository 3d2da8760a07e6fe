// The tasks of the CUDA kernels over sampled candidates, and their temporary memory.
#pragma once

#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "../../cuda/sampled_task.h"
#include "../scoring.h"
#include "device.h"

namespace mmkgc {

template <typename T>
cuda::SampledTask<T> device_task(const Scoring& scoring) {
  const auto& [op, queries, table, scale, metric, pairs, candidates] = scoring;
  using A = Accumulator<T>;
  const auto limit = static_cast<size_t>(cuda::kMaxPairs);
  STD_TORCH_CHECK(pairs.size() <= limit, op, "there are ", pairs.size(), " pairs, at most ", limit,
                  " on CUDA");
  const int64_t rows = queries.size(0) * queries.size(1);
  for (const int64_t size : {rows, table.size(0), queries.size(2), table.size(1)}) {
    STD_TORCH_CHECK(size <= INT32_MAX, op, "there are ", size, " rows or columns, at most ",
                    INT32_MAX, " on CUDA");
  }
  cuda::SampledTask<T> task{};
  task.op = op;
  task.queries = read_as<A>(queries);
  task.table = read_as<T>(table);
  task.scale = scale ? read_as<A>(*scale) : nullptr;
  task.ids = read_as<int64_t>(candidates.ids);
  task.corrupted_side = read_as<int8_t>(candidates.corrupted_side);
  task.sides = queries.size(0);
  task.batch = queries.size(1);
  task.n = candidates.ids.size(1);
  task.entities = table.size(0);
  task.query_width = queries.size(2);
  task.candidate_width = table.size(1);
  task.metric = metric;
  task.terms.n = static_cast<int32_t>(pairs.size());
  for (size_t i = 0; i < pairs.size(); ++i) {
    task.terms.term[i] = {static_cast<int32_t>(pairs[i].query),
                          static_cast<int32_t>(pairs[i].candidate),
                          static_cast<int32_t>(pairs[i].width), static_cast<A>(pairs[i].weight)};
  }
  return task;
}

// Under l2, weight * grad / distance of each pair and candidate; otherwise empty.
template <typename T>
Tensor device_factors(const cuda::SampledTask<T>& task, const Tensor& grad, void* stream) {
  if (task.metric != Metric::l2) return torch::stable::new_empty(grad, {0});
  const Tensor factors = torch::stable::new_empty(grad, {task.terms.n, grad.numel()});
  cuda::sampled_factors(task, read_as<Accumulator<T>>(grad), write_as<Accumulator<T>>(factors),
                        stream);
  return factors;
}

template <typename A>
cuda::ScoreGradient<A> device_gradient(const Tensor& grad, const Tensor& factors) {
  return {read_as<A>(grad), factors.numel() ? read_as<A>(factors) : nullptr};
}

// The start of each of the values 0..ids-1 among sorted values.
inline Tensor device_starts(const char* op, const char* name,
                            const std::pair<Tensor, Tensor>& sorted, int64_t ids, void* stream) {
  const Tensor starts = torch::stable::new_empty(sorted.first, {ids + 1});
  cuda::run_starts(op, name, read_as<int64_t>(sorted.first), read_as<int64_t>(sorted.second),
                   sorted.first.numel(), ids, write_as<int64_t>(starts), stream);
  return starts;
}

// Candidates in the order of their ids, with the gradients of their scores.
struct DeviceOrder {
  Tensor order, entity, where, starts, gradient, partial;
  Tensor factors;

  template <typename T>
  DeviceOrder(const cuda::SampledTask<T>& task, const Candidates& candidates, const Tensor& grad,
              const Tensor& factors_in, const std::optional<Tensor>& given, void* stream)
      : factors(factors_in) {
    using A = Accumulator<T>;
    const Tensor& ids = candidates.ids;
    const int64_t n = ids.numel();
    if (given) {
      check_index(task.op, "order", *given);
      STD_TORCH_CHECK(given->size(0) == n, task.op, "order has ", given->size(0),
                      " entries, expected ", n, " (one per candidate)");
      check_devices(task.op, {{"order", *given}}, "table", ids);
      order = torch::stable::contiguous(*given);
    } else {
      order = stable_sort(task.op, torch::stable::flatten(ids), std::nullopt, stream).second;
    }
    entity = torch::stable::new_empty(ids, {n}, ScalarType::Int);
    where = torch::stable::new_empty(ids, {n}, ScalarType::Int);
    starts = torch::stable::new_empty(ids, {task.entities + 1});
    gradient = torch::stable::new_empty(grad, {n});
    partial = torch::stable::new_empty(
        grad, {(n + cuda::kPartLength - 1) / cuda::kPartLength, task.candidate_width});
    cuda::describe_sorted(task, read_as<int64_t>(order), read_as<A>(grad),
                          write_as<int32_t>(entity), write_as<int32_t>(where),
                          write_as<A>(gradient), stream);
    cuda::run_starts(task.op, "ids", read_as<int32_t>(entity), read_as<int64_t>(order), n,
                     task.entities, write_as<int64_t>(starts), stream);
  }

  template <typename A>
  cuda::SortedCandidates<A> view() const {
    return {read_as<int64_t>(order),
            read_as<int32_t>(entity),
            read_as<int32_t>(where),
            read_as<int64_t>(starts),
            read_as<A>(gradient),
            factors.numel() ? read_as<A>(factors) : nullptr,
            order.numel()};
  }
};

// Gradient rows of the entities `first` and then `second`, sorted by entity.
struct DeviceExtra {
  Tensor rows, order, starts;

  DeviceExtra(const char* op, const Tensor& rows_in, const Tensor& first,
              const std::optional<Tensor>& second, int64_t entities, void* stream)
      : rows(rows_in) {
    const auto sorted = stable_sort(op, first, second, stream);
    order = sorted.second;
    starts = device_starts(op, "extra_ids", sorted, entities, stream);
  }

  template <typename A>
  cuda::ExtraRows<A> view() const {
    return {read_as<A>(rows), read_as<int64_t>(order), read_as<int64_t>(starts)};
  }
};

}  // namespace mmkgc
