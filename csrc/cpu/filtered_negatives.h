// Negatives that are not known triples, with pointer arguments.
#pragma once

#include "../common/negatives.h"

namespace mmkgc::cpu {

// Fills rows [begin, end) of the batch.
void draw_negatives(const NegativesTask& task, int64_t begin, int64_t end);

}  // namespace mmkgc::cpu
