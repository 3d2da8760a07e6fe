// Checks and torch glue of mmkgc::entropy_weighted_loss; the work is in cpu/.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>
#include <vector>

#include "cpu/entropy_weighted_loss.h"
#include "loss_scores.h"

namespace mmkgc {
namespace {

constexpr const char* kOp = "entropy_weighted_loss: ";

// What every row is treated by, in double as the schema has it.
struct Settings {
  double easy_above, hard_upto;
  const std::vector<double>& weights;
  int64_t reduction;
  double temperature;
  bool one_sided;
};

template <typename T>
void run(const LossScores& scores, const Settings& settings) {
  const cpu::EntropyWeightedTask<T> task{
      scores.rows<T>(),
      static_cast<T>(settings.easy_above),
      static_cast<T>(settings.hard_upto),
      static_cast<T>(settings.weights[0]),
      static_cast<T>(settings.weights[1]),
      static_cast<T>(settings.weights[2]),
      static_cast<T>(settings.temperature),
      static_cast<cpu::NegativeReduction>(settings.reduction),
      settings.one_sided};
  scores.run<T>(task, cpu::entropy_weighted_rows<T>);
}

std::tuple<Tensor, Tensor, Tensor> entropy_weighted_loss(
    const Tensor& positive, const Tensor& negative, std::optional<Tensor> usable,
    double easy_above, double hard_upto, const std::vector<double>& weights, int64_t reduction,
    double temperature, bool one_sided) {
  const LossScores scores(kOp, positive, negative, usable);
  STD_TORCH_CHECK(easy_above >= hard_upto, kOp, "cuts are ", easy_above, " and ", hard_upto,
                  ", expected the first no smaller than the second");
  STD_TORCH_CHECK(weights.size() == 3, kOp, "weights holds ", weights.size(),
                  " numbers, expected 3 (easy, ambiguous, hard)");
  STD_TORCH_CHECK(reduction >= 0 && reduction <= 2, kOp, "reduction is ", reduction,
                  ", expected 0 (mean), 1 (sum) or 2 (self_adversarial)");
  const Settings settings{easy_above, hard_upto, weights, reduction, temperature, one_sided};
  const bool single = positive.scalar_type() == ScalarType::Float;
  (single ? run<float> : run<double>)(scores, settings);
  return scores.results();
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, CPU, m) {
  m.impl("entropy_weighted_loss", TORCH_BOX(&entropy_weighted_loss));
}

}  // namespace mmkgc
