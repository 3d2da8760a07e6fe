// The rows of a loss over sampled candidates, on all threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <optional>
#include <vector>

#include "../checks/candidates.h"
#include "../../cpu/sampled_loss.h"
#include "../checks/loss_checks.h"
#include "../checks/loss_settings.h"

namespace mmkgc {

// Fills in what all such ops have in common, runs, and puts the mean of the rows into `loss`. The task
// knows queries, table, widths, metric and pairs.
template <typename T>
void pass_over_candidates(cpu::SampledLossTask<T> task, const Candidates& candidates,
                          const std::optional<Tensor>& usable, const LossSettings& settings,
                          double offset, const Tensor& d_scores, const Tensor& loss) {
  task.ids = candidates.ids.const_data_ptr<int64_t>();
  task.side = candidates.side.const_data_ptr<int8_t>();
  if (usable) {
    task.usable = reinterpret_cast<const uint8_t*>(usable->const_data_ptr<bool>());
    task.usable_stride = usable->stride(0);
  }
  task.batch = candidates.ids.size(0);
  task.n = candidates.ids.size(1);
  task.offset = static_cast<T>(offset);
  task.loss = settings.of_row<T>();
  std::vector<Pair> swapped;
  for (int64_t p = 0; p < task.n_pairs; ++p) {
    const Pair& pair = task.pairs[p];
    swapped.push_back({pair.candidate, pair.query, pair.width, pair.weight});
  }
  task.swapped = swapped.data();
  std::vector<double> losses(static_cast<size_t>(task.batch));
  task.losses = losses.data();
  task.d_scores = d_scores.mutable_data_ptr<T>();
  torch::stable::parallel_for(0, task.batch, 8, [&](int64_t begin, int64_t end) {
    cpu::sampled_loss_rows(task, begin, end);
  });
  *loss.mutable_data_ptr<T>() = static_cast<T>(mean_of_rows(losses));
}

}  // namespace mmkgc
