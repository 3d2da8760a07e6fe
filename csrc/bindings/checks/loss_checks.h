// Numbers that losses take, checked: as arguments of their own, or among the settings of another op.
#pragma once

#include <algorithm>
#include <vector>

#include "arguments.h"

namespace mmkgc {

// Doubles, since settings are: what lies between two values is none of them.
inline bool is_one_of_three(double value) { return value == 0 || value == 1 || value == 2; }

inline void check_form(const char* op, double form) {
  STD_TORCH_CHECK(is_one_of_three(form), op, "form is ", form,
                  ", expected 0 (log_sigmoid), 1 (margin_inside) or 2 (margin_outside)");
}

inline void check_cuts(const char* op, double easy_above, double hard_upto) {
  STD_TORCH_CHECK(easy_above >= hard_upto, op, "cuts are ", easy_above, " and ", hard_upto,
                  ", expected the first no smaller than the second");
}

inline void check_reduction(const char* op, double reduction) {
  STD_TORCH_CHECK(is_one_of_three(reduction), op, "reduction is ", reduction,
                  ", expected 0 (mean), 1 (sum) or 2 (self_adversarial)");
}

// The mean of no rows is 0: a batch without triples teaches nothing.
inline double mean_of_rows(const std::vector<double>& losses) {
  double sum = 0;
  for (const double of_row : losses) sum += of_row;
  return sum / static_cast<double>(std::max<size_t>(1, losses.size()));
}

}  // namespace mmkgc
