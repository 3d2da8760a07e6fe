// Negatives that are not known triples, on a GPU: the draws of the CPU, a thread each.
#pragma once

#include "../common/negatives.h"

namespace mmkgc::cuda {

// `counter` is one number on the device that is added to the task's step, or nullptr.
void draw_negatives(const char* op, const NegativesTask& task, const int64_t* counter, void* stream);

}  // namespace mmkgc::cuda
