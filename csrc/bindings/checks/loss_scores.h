// The scores that losses take, checked, and where the loss and its gradient go: for either device.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <optional>
#include <tuple>

#include "arguments.h"
#include "../../common/losses.h"

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

  bool is_single() const { return positive.scalar_type() == ScalarType::Float; }

  // Without room for the losses of the rows.
  template <typename T>
  LossRows<T> rows() const {
    LossRows<T> rows{};
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

  std::tuple<Tensor, Tensor, Tensor> results() const { return {loss, d_positive, d_negative}; }
};

}  // namespace mmkgc
