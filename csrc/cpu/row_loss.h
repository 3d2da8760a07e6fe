// One of the losses over one positive and N negatives, for one row at a time.
#pragma once

#include "loss_rows.h"

namespace mmkgc::cpu {

template <typename T>
struct RowLoss {
  bool by_entropy;  // selects the task
  SelfAdversarialTask<T> adversarial;
  EntropyWeightedTask<T> entropy;

  // The loss of a row, and d(loss)/d(score) of its scores; `mask` may be nullptr.
  double operator()(const T* positive, const T* negative, const uint8_t* mask, int64_t n,
                    T* d_positive, T* d_negative) const {
    double loss = 0;
    const LossRows<T> row{positive, 1, negative, n, mask, n, 1, n, d_positive, d_negative, &loss};
    if (by_entropy) {
      EntropyWeightedTask<T> task = entropy;
      task.rows = row;
      loss_rows(task, 0);
    } else {
      SelfAdversarialTask<T> task = adversarial;
      task.rows = row;
      loss_rows(task, 0);
    }
    return loss;
  }
};

}  // namespace mmkgc::cpu
