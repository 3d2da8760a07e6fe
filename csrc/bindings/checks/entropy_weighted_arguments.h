// The arguments of entropy_weighted_loss, checked, and where its results go: for either device.
#pragma once

#include <optional>
#include <vector>

#include "../../common/losses.h"
#include "loss_checks.h"
#include "loss_scores.h"

namespace mmkgc {

// How every row is treated, in double as the schema has it.
struct EntropySettings {
  double easy_above, hard_upto;
  const std::vector<double>& weights;
  int64_t reduction;
  double temperature;
  bool one_sided;
};

struct EntropyWeightedArguments {
  LossScores scores;
  EntropySettings settings;

  EntropyWeightedArguments(const char* op, const Tensor& positive, const Tensor& negative,
                           const std::optional<Tensor>& usable, const EntropySettings& s)
      : scores(op, positive, negative, usable), settings(s) {
    check_cuts(op, s.easy_above, s.hard_upto);
    STD_TORCH_CHECK(s.weights.size() == 3, op, "weights holds ", s.weights.size(),
                    " numbers, expected 3 (easy, ambiguous, hard)");
    check_reduction(op, static_cast<double>(s.reduction));
  }

  template <typename T>
  EntropyWeightedTask<T> task() const {
    return {scores.rows<T>(),
            static_cast<T>(settings.easy_above),
            static_cast<T>(settings.hard_upto),
            static_cast<T>(settings.weights[0]),
            static_cast<T>(settings.weights[1]),
            static_cast<T>(settings.weights[2]),
            static_cast<T>(settings.temperature),
            static_cast<NegativeReduction>(settings.reduction),
            settings.one_sided};
  }
};

}  // namespace mmkgc
