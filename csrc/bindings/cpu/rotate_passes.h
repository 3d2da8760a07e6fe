// RotatE's queries, and the gradients of heads, tails and phases from theirs, on all threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include "../../cpu/rotate_score.h"
#include "../rotate_score.h"
#include "sorted_candidates.h"

namespace mmkgc {

struct RotatePasses {
  const RotateArguments& a;
  IdOrder by_relation;
  Tensor cosines, sines;

  explicit RotatePasses(const RotateArguments& arguments)
      : a(arguments),
        by_relation(a.relations.const_data_ptr<int64_t>(), a.heads.size(0), a.phases.size(0)),
        cosines(torch::stable::empty_like(a.phases)),
        sines(torch::stable::empty_like(a.phases)) {}

  // Fills the angles and the queries; returns the task.
  template <typename T>
  cpu::RotateTask<T> rotate_queries() const {
    cpu::RotateTask<T> task{};
    task.table = a.table.const_data_ptr<T>();
    task.phases = a.phases.const_data_ptr<T>();
    task.heads = a.heads.const_data_ptr<int64_t>();
    task.relations = a.relations.const_data_ptr<int64_t>();
    task.tails = a.tails.const_data_ptr<int64_t>();
    task.batch = a.heads.size(0);
    task.dim = a.phases.size(1);
    task.cosines = cosines.mutable_data_ptr<T>();
    task.sines = sines.mutable_data_ptr<T>();
    task.queries = a.scoring.queries.mutable_data_ptr<T>();
    task.order = by_relation.order.data();
    task.starts = by_relation.starts.data();
    torch::stable::parallel_for(0, a.phases.size(0), 8, [&](int64_t begin, int64_t end) {
      cpu::rotate_angles(task, begin, end);
    });
    torch::stable::parallel_for(0, task.batch, 64, [&](int64_t begin, int64_t end) {
      cpu::rotate_queries(task, begin, end);
    });
    return task;
  }

  // Replaces the gradients of the queries in `d_known` with those of the rows of heads and tails,
  // and fills the gradient of the phases.
  template <typename T>
  void rotate_back(cpu::RotateTask<T> task, const Tensor& d_known, const Tensor& d_phases) const {
    const Tensor d_phase_rows = torch::stable::new_empty(a.phases, {task.batch, task.dim});
    task.d_known = d_known.mutable_data_ptr<T>();
    task.d_phase_rows = d_phase_rows.mutable_data_ptr<T>();
    task.d_phases = d_phases.mutable_data_ptr<T>();
    torch::stable::parallel_for(0, task.batch, 64, [&](int64_t begin, int64_t end) {
      cpu::rotate_backward(task, begin, end);
    });
    torch::stable::parallel_for(0, a.phases.size(0), 8, [&](int64_t begin, int64_t end) {
      cpu::rotate_sum_phases(task, begin, end);
    });
  }
};

}  // namespace mmkgc
