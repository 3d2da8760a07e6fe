// Torch glue of mmkgc::entropy_weighted_loss; the work is in cpu/.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>
#include <vector>

#include "../../cpu/entropy_weighted_loss.h"
#include "../checks/entropy_weighted_arguments.h"
#include "loss_pass.h"

namespace mmkgc {
namespace {

constexpr const char* kOp = "entropy_weighted_loss: ";

template <typename T>
void run(const EntropyWeightedArguments& arguments) {
  pass_over_rows<T>(arguments.scores, arguments.task<T>(), cpu::entropy_weighted_rows<T>);
}

std::tuple<Tensor, Tensor, Tensor> entropy_weighted_loss(
    const Tensor& positive, const Tensor& negative, std::optional<Tensor> usable,
    double easy_above, double hard_upto, const std::vector<double>& weights, int64_t reduction,
    double temperature, bool one_sided) {
  const EntropyWeightedArguments arguments(
      kOp, positive, negative, usable,
      {easy_above, hard_upto, weights, reduction, temperature, one_sided});
  (arguments.scores.is_single() ? run<float> : run<double>)(arguments);
  return arguments.scores.results();
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, CPU, m) {
  m.impl("entropy_weighted_loss", TORCH_BOX(&entropy_weighted_loss));
}

}  // namespace mmkgc
