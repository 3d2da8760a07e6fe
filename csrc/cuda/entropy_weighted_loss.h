// The entropy-weighted loss and its gradient, on a GPU.
#pragma once

#include "../common/losses.h"

namespace mmkgc::cuda {

// Makes the losses and gradients of all rows, and writes the mean of the losses to *loss.
template <typename T>
void entropy_weighted_loss(const char* op, const EntropyWeightedTask<T>& task, T* loss,
                           void* stream);

}  // namespace mmkgc::cuda
