// The self-adversarial losses and their gradients: plain pointers in, plain pointers out.
#pragma once

#include "loss_rows.h"

namespace mmkgc::cpu {

// Losses and gradients of the rows of one block.
template <typename T>
void self_adversarial_rows(const SelfAdversarialTask<T>& task, int64_t block);

}  // namespace mmkgc::cpu
