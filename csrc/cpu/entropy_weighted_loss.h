// The entropy-weighted loss and its gradient: plain pointers in, plain pointers out.
#pragma once

#include "loss_rows.h"

namespace mmkgc::cpu {

// Losses and gradients of the rows of one block.
template <typename T>
void entropy_weighted_rows(const EntropyWeightedTask<T>& task, int64_t block);

}  // namespace mmkgc::cpu
