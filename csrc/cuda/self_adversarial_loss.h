// The self-adversarial losses and their gradients, on a GPU.
#pragma once

#include "../common/losses.h"

namespace mmkgc::cuda {

// Makes the losses and gradients of all rows, and writes the mean of the losses to *loss.
template <typename T>
void self_adversarial_loss(const char* op, const SelfAdversarialTask<T>& task, T* loss,
                           void* stream);

}  // namespace mmkgc::cuda
