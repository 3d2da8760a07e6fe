// The self-adversarial losses and their gradients: plain pointers in, plain pointers out.
#pragma once

#include <cstdint>

#include "loss_rows.h"

namespace mmkgc::cpu {

// Values are part of the op's schema.
enum class AdversarialForm : int64_t { log_sigmoid = 0, margin_inside = 1, margin_outside = 2 };

template <typename T>
struct SelfAdversarialTask {
  LossRows<T> rows;
  T temperature;
  T margin;
  AdversarialForm form;
};

// Losses and gradients of the rows of one block.
template <typename T>
void self_adversarial_rows(const SelfAdversarialTask<T>& task, int64_t block);

}  // namespace mmkgc::cpu
