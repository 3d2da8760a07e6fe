// Negatives that are not known triples, on a GPU: the draws of the CPU, one thread per draw.
#pragma once

#include "../common/negatives.h"

namespace mmkgc::cuda {

// `counter` is a number on the device that is added to the step of the task, or nullptr. `keys`,
// unless nullptr, receives the ids in 32 bits, which are faster to sort.
void draw_negatives(const char* op, const NegativesTask& task, const int64_t* counter,
                    int32_t* keys, void* stream);

}  // namespace mmkgc::cuda
