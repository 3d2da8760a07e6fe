// Arguments of sampled scoring as the kernels of a GPU take them, with what they need room for.
#pragma once

#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "../checks/candidates.h"
#include "../../cuda/sampled_task.h"
#include "cuda_glue.h"

namespace mmkgc {

// All tensors are dense. `queries` [sides, B, Dq] decides what is computed in.
template <typename T>
cuda::SampledTask<T> device_task(const char* op, const Tensor& queries, const Tensor& table,
                                 const std::optional<Tensor>& scale, const Candidates& candidates,
                                 Metric metric, const std::vector<Pair>& pairs) {
  using A = Accumulator<T>;
  const auto limit = static_cast<size_t>(cuda::kMaxPairs);
  STD_TORCH_CHECK(pairs.size() <= limit, op, "there are ", pairs.size(), " pairs, at most ", limit,
                  " run on a GPU");
  const int64_t rows = queries.size(0) * queries.size(1);
  for (const int64_t size : {rows, table.size(0), queries.size(2), table.size(1)}) {
    STD_TORCH_CHECK(size <= INT32_MAX, op, "too large for a GPU: ", size, " rows or columns");
  }
  cuda::SampledTask<T> task{};
  task.op = op;
  task.queries = read_as<A>(queries);
  task.table = read_as<T>(table);
  task.scale = scale ? read_as<A>(*scale) : nullptr;
  task.ids = read_as<int64_t>(candidates.ids);
  task.side = read_as<int8_t>(candidates.side);
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

// Under l2, weight * grad / distance of each pair and candidate; nothing otherwise.
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

// Where the values of each of 0..ids-1 begin among sorted ones.
inline Tensor device_starts(const char* op, const char* name,
                            const std::pair<Tensor, Tensor>& sorted, int64_t ids, void* stream) {
  const Tensor starts = torch::stable::new_empty(sorted.first, {ids + 1});
  cuda::run_starts(op, name, read_as<int64_t>(sorted.first), read_as<int64_t>(sorted.second),
                   sorted.first.numel(), ids, write_as<int64_t>(starts), stream);
  return starts;
}

// Candidates in the order of their ids: as given, or sorted here; with the gradients of their scores.
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
                      " entries, expected ", n, " (one a candidate)");
      check_device(task.op, "order", *given, "table", ids);
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

// Gradient rows of listed entities, those of `second` behind those of `first`, by entity.
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
