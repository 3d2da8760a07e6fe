// What the losses share: checking scores, and one pass over their rows that makes the loss and its
// gradient.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "common/arguments.h"
#include "cpu/loss_rows.h"

namespace mmkgc {

// Scores of one positive and N negatives a row, checked. Training hands in slices of one matrix:
// only what is not dense within a row is copied.
struct LossScores {
  Tensor positive;               // [B]
  Tensor negative;               // [B, N]
  std::optional<Tensor> usable;  // [B, N] bool
  Tensor loss, d_positive, d_negative;

  LossScores(const char* op, const Tensor& positive_in, const Tensor& negative_in,
             const std::optional<Tensor>& usable_in)
      : positive(positive_in), negative(negative_in) {
    check_dimensions(op, "positive", positive, 1);
    check_real(op, "positive", positive);
    check_matrix(op, "negative", negative);
    check_same_dtype(op, "negative", negative, "positive", positive);
    STD_TORCH_CHECK(negative.size(0) == positive.size(0), op, "negative has ", negative.size(0),
                    " rows, expected ", positive.size(0), " (one a positive)");
    if (usable_in) {
      STD_TORCH_CHECK(usable_in->dim() == 2 && usable_in->size(0) == negative.size(0) &&
                          usable_in->size(1) == negative.size(1),
                      op, "usable must have the shape of negative");
      STD_TORCH_CHECK(usable_in->scalar_type() == ScalarType::Bool, op, "usable must be bool");
      usable = dense_rows(*usable_in);
    }
    negative = dense_rows(negative);
    loss = torch::stable::new_empty(positive, {});
    d_positive = torch::stable::new_empty(positive, {positive.size(0)});
    d_negative = torch::stable::new_empty(negative, {negative.size(0), negative.size(1)});
  }

  static Tensor dense_rows(const Tensor& x) {
    return x.stride(1) == 1 ? x : torch::stable::contiguous(x);
  }

  template <typename T>
  cpu::LossRows<T> rows() const {
    cpu::LossRows<T> rows{};
    rows.positive = positive.const_data_ptr<T>();
    rows.positive_stride = positive.stride(0);
    rows.negative = negative.const_data_ptr<T>();
    rows.negative_stride = negative.stride(0);
    if (usable) {
      rows.usable = reinterpret_cast<const uint8_t*>(usable->const_data_ptr<bool>());
      rows.usable_stride = usable->stride(0);
    }
    rows.batch = negative.size(0);
    rows.n = negative.size(1);
    rows.d_positive = d_positive.mutable_data_ptr<T>();
    rows.d_negative = d_negative.mutable_data_ptr<T>();
    return rows;
  }

  // Calls `work(task, block)` for all blocks, then takes the mean of the rows, in their order.
  template <typename T, typename Task, typename Work>
  void run(Task task, Work work) const {
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
    double sum = 0;
    for (const double of_row : losses) sum += of_row;
    // The mean of no rows is 0: a batch without triples teaches nothing.
    const double divisor = static_cast<double>(std::max<int64_t>(1, batch));
    *loss.mutable_data_ptr<T>() = static_cast<T>(sum / divisor);
  }

  std::tuple<Tensor, Tensor, Tensor> results() const { return {loss, d_positive, d_negative}; }
};

}  // namespace mmkgc
