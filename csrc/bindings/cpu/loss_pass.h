// One pass over the rows of a loss on all threads, which makes the loss and its gradient.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <vector>

#include "../../cpu/loss_rows.h"
#include "../checks/loss_checks.h"
#include "../checks/loss_scores.h"

namespace mmkgc {

// Calls `work(task, block)` for all blocks, then takes the mean of the rows, in their order.
template <typename T, typename Task, typename Work>
void pass_over_rows(const LossScores& scores, Task task, Work work) {
  const int64_t batch = task.rows.batch;
  std::vector<double> losses(static_cast<size_t>(batch));
  task.rows.losses = losses.data();
  constexpr int64_t kScoresPerThread = 16384;  // fewer are not worth waking a thread
  const int64_t blocks = (batch + cpu::kLossBlock - 1) / cpu::kLossBlock;
  const int64_t grain = std::max<int64_t>(
      1, kScoresPerThread / (cpu::kLossBlock * std::max<int64_t>(1, task.rows.n)));
  torch::stable::parallel_for(0, blocks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) work(task, block);
  });
  *scores.loss.mutable_data_ptr<T>() = static_cast<T>(mean_of_rows(losses));
}

}  // namespace mmkgc
