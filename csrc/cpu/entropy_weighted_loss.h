// The entropy-weighted loss and its gradient: plain pointers in, plain pointers out.
#pragma once

#include <cstdint>

#include "loss_rows.h"

namespace mmkgc::cpu {

// Values are part of the op's schema.
enum class NegativeReduction : int64_t { mean = 0, sum = 1, self_adversarial = 2 };

template <typename T>
struct EntropyWeightedTask {
  LossRows<T> rows;
  T easy_above;  // a negative is easy where |s| is above this,
  T hard_upto;   // hard where |s| is at most that, and ambiguous between the two
  T easy, ambiguous, hard;  // weights
  T temperature;            // of self_adversarial
  NegativeReduction reduction;
  bool one_sided;           // a score above 0 is hard whatever its entropy
};

// Losses and gradients of the rows of one block.
template <typename T>
void entropy_weighted_rows(const EntropyWeightedTask<T>& task, int64_t block);

}  // namespace mmkgc::cpu
