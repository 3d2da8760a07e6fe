// The losses and their gradients on a GPU.
#pragma once

#include "../common/losses.h"

namespace mmkgc::cuda {

// Computes the losses and gradients of all rows, and writes the mean of the losses to *loss.
template <typename T>
void loss_of_rows(const char* op, const SelfAdversarialTask<T>& task, T* loss, void* stream);
template <typename T>
void loss_of_rows(const char* op, const EntropyWeightedTask<T>& task, T* loss, void* stream);

}  // namespace mmkgc::cuda
