// What sampled_score and rotate_score share: checking candidates, and their order by entity.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <vector>

#include "common/arguments.h"
#include "cpu/sampled_score.h"

namespace mmkgc {

// Candidate ids and sides, checked and contiguous.
struct Candidates {
  Tensor ids;   // [B, N] int64
  Tensor side;  // [B, N] int8

  Candidates(const char* op, const Tensor& ids_in, const Tensor& side_in, int64_t batch,
             int64_t sides, int64_t entities)
      : ids(ids_in), side(side_in) {
    STD_TORCH_CHECK(ids.dim() == 2 && ids.size(0) == batch, op, "ids must be [", batch,
                    ", N], a row a query");
    STD_TORCH_CHECK(ids.scalar_type() == ScalarType::Long, op, "ids must be int64");
    STD_TORCH_CHECK(side.dim() == 2 && side.size(0) == batch && side.size(1) == ids.size(1), op,
                    "side must have the shape of ids");
    STD_TORCH_CHECK(side.scalar_type() == ScalarType::Char, op, "side must be int8");
    ids = torch::stable::contiguous(ids);
    side = torch::stable::contiguous(side);
    check_ids(op, "ids", ids, entities);
    const int8_t* p = side.const_data_ptr<int8_t>();
    for (int64_t i = 0, n = side.numel(); i < n; ++i) {
      STD_TORCH_CHECK(p[i] >= 0 && p[i] < sides, op, "side[", i, "] is ", int64_t(p[i]),
                      ", outside 0..", sides - 1);
    }
  }
};

// The gradient of the scores, checked and contiguous.
inline Tensor checked_gradient(const char* op, const Tensor& grad, const Tensor& ids,
                               const char* like, const Tensor& of) {
  STD_TORCH_CHECK(grad.dim() == 2 && grad.size(0) == ids.size(0) && grad.size(1) == ids.size(1),
                  op, "grad must have the shape of ids");
  check_same_dtype(op, "grad", grad, like, of);
  return torch::stable::contiguous(grad);
}

// Positions sorted by id, and where each id starts: made here, or checked where they are given.
struct IdOrder {
  Tensor order;   // [n] int64
  Tensor starts;  // [n_ids + 1] int64

  IdOrder(const char* op, const Tensor& ids, int64_t n_ids, const std::optional<Tensor>& given)
      : order(torch::stable::new_empty(ids, {ids.numel()})),
        starts(torch::stable::new_empty(ids, {n_ids + 1})) {
    const int64_t n = ids.numel();
    const int64_t* id = ids.const_data_ptr<int64_t>();
    if (!given) {
      cpu::sort_by_id(id, n, n_ids, order.mutable_data_ptr<int64_t>(),
                      starts.mutable_data_ptr<int64_t>());
      return;
    }
    check_index(op, "order", *given);
    STD_TORCH_CHECK(given->size(0) == n, op, "order has ", given->size(0), " entries, expected ",
                    n, " (one a candidate)");
    order = torch::stable::contiguous(*given);
    check_ids(op, "order", order, n);
    const int64_t* o = order.const_data_ptr<int64_t>();
    // Ascending by id and, for equal ids, by position: then no position can be there twice.
    for (int64_t i = 1; i < n; ++i) {
      STD_TORCH_CHECK(id[o[i - 1]] < id[o[i]] || (id[o[i - 1]] == id[o[i]] && o[i - 1] < o[i]), op,
                      "order does not sort the ids at entry ", i);
    }
    cpu::count_ids(id, n, n_ids, starts.mutable_data_ptr<int64_t>());
  }
};

// The three passes of sampled scoring on all threads.
template <typename T>
void run_forward(const cpu::SampledTask<T>& task) {
  torch::stable::parallel_for(0, task.batch, 8, [&](int64_t begin, int64_t end) {
    cpu::sampled_forward(task, begin, end);
  });
}

template <typename T>
void run_backward_queries(const cpu::SampledTask<T>& task) {
  torch::stable::parallel_for(0, task.batch, 8, [&](int64_t begin, int64_t end) {
    cpu::sampled_backward_queries(task, begin, end);
  });
}

template <typename T>
void run_backward_table(const cpu::SampledTask<T>& task) {
  // Ranges of equal work, so that entities which many candidates share do not hold up a thread.
  constexpr int64_t kParts = 128;
  const int64_t parts = std::min(kParts, std::max<int64_t>(1, task.entities));
  std::vector<int64_t> bounds(static_cast<size_t>(parts) + 1);
  cpu::even_ranges(task.starts, task.entities, parts, bounds.data());
  torch::stable::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    cpu::sampled_backward_table(task, bounds[static_cast<size_t>(begin)],
                                bounds[static_cast<size_t>(end)]);
  });
}

}  // namespace mmkgc
