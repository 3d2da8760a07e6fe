// Negatives that are not known triples, on a GPU: the draws of the CPU, a thread each.
#pragma once

#include "../common/negatives.h"

namespace mmkgc::cuda {

// `counter` is one number on the device that is added to the task's step, or nullptr. `keys` gets the
// ids once more, in half the digits to sort by, unless it is nullptr.
void draw_negatives(const char* op, const NegativesTask& task, const int64_t* counter,
                    int32_t* keys, void* stream);

}  // namespace mmkgc::cuda
