// RotatE's queries and the way back from their gradients, on all threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include "../../cpu/rotate_score.h"
#include "../checks/rotate_arguments.h"
#include "sorted_candidates.h"

namespace mmkgc {

// The arguments of scoring or of a loss, and the queries made from them.
struct RotatePasses : RotateArguments {
  IdOrder by_relation;
  Tensor cosines, sines, queries;
  Pair whole;

  RotatePasses(const char* op_in, const Tensor& table_in, const Tensor& phases_in,
               const Tensor& heads_in, const Tensor& relations_in, const Tensor& tails_in,
               const Tensor& ids, const Tensor& side)
      : RotateArguments(op_in, table_in, phases_in, heads_in, relations_in, tails_in, ids, side),
        by_relation(relations.const_data_ptr<int64_t>(), heads.size(0), phases.size(0)),
        cosines(torch::stable::empty_like(phases)),
        sines(torch::stable::empty_like(phases)),
        queries(torch::stable::new_empty(table, {kSides, heads.size(0), table.size(1)})),
        whole{0, 0, table.size(1), 1.0} {}

  // Fills angles and queries; returns a task that knows them.
  template <typename T>
  cpu::RotateTask<T> make_queries() const {
    cpu::RotateTask<T> task{};
    task.table = table.const_data_ptr<T>();
    task.phases = phases.const_data_ptr<T>();
    task.heads = heads.const_data_ptr<int64_t>();
    task.relations = relations.const_data_ptr<int64_t>();
    task.tails = tails.const_data_ptr<int64_t>();
    task.batch = heads.size(0);
    task.dim = phases.size(1);
    task.cosines = cosines.mutable_data_ptr<T>();
    task.sines = sines.mutable_data_ptr<T>();
    task.queries = queries.mutable_data_ptr<T>();
    task.order = by_relation.order.data();
    task.starts = by_relation.starts.data();
    torch::stable::parallel_for(0, phases.size(0), 8, [&](int64_t begin, int64_t end) {
      cpu::rotate_angles(task, begin, end);
    });
    torch::stable::parallel_for(0, task.batch, 64, [&](int64_t begin, int64_t end) {
      cpu::rotate_queries(task, begin, end);
    });
    return task;
  }

  Tensor new_known() const {
    return torch::stable::new_empty(table, {2 * heads.size(0), table.size(1)});
  }

  // From the gradients of the queries, which lie in `d_known`, to those of heads and tails in their
  // place, and of the phases.
  template <typename T>
  void turn_back(cpu::RotateTask<T> task, const Tensor& d_known, const Tensor& d_phases) const {
    const Tensor d_phase_rows = torch::stable::new_empty(table, {task.batch, task.dim});
    task.d_known = d_known.mutable_data_ptr<T>();
    task.d_phase_rows = d_phase_rows.mutable_data_ptr<T>();
    task.d_phases = d_phases.mutable_data_ptr<T>();
    torch::stable::parallel_for(0, task.batch, 64, [&](int64_t begin, int64_t end) {
      cpu::rotate_backward(task, begin, end);
    });
    torch::stable::parallel_for(0, phases.size(0), 8, [&](int64_t begin, int64_t end) {
      cpu::rotate_sum_phases(task, begin, end);
    });
  }
};

}  // namespace mmkgc
