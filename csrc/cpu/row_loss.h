// Any of the losses over one positive and N negatives, on a row at a time.
#pragma once

#include "entropy_weighted_loss.h"
#include "self_adversarial_loss.h"

namespace mmkgc::cpu {

template <typename T>
struct RowLoss {
  bool by_entropy;  // which of the two tasks says how
  SelfAdversarialTask<T> adversarial;
  EntropyWeightedTask<T> entropy;

  // The loss of a row, and d(loss)/d(score) of its scores; `usable` may be nullptr: all are.
  double operator()(const T* positive, const T* negative, const uint8_t* usable, int64_t n,
                    T* d_positive, T* d_negative) const {
    double loss = 0;
    const LossRows<T> row{positive, 1, negative, n, usable, n, 1, n, d_positive, d_negative, &loss};
    if (by_entropy) {
      EntropyWeightedTask<T> task = entropy;
      task.rows = row;
      entropy_weighted_rows(task, 0);
    } else {
      SelfAdversarialTask<T> task = adversarial;
      task.rows = row;
      self_adversarial_rows(task, 0);
    }
    return loss;
  }
};

}  // namespace mmkgc::cpu
