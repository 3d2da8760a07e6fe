// Torch glue of mmkgc::self_adversarial_loss; the work is in cpu/.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>

#include "../../cpu/self_adversarial_loss.h"
#include "loss_pass.h"
#include "../checks/self_adversarial_arguments.h"

namespace mmkgc {
namespace {

constexpr const char* kOp = "self_adversarial_loss: ";

template <typename T>
void run(const SelfAdversarialArguments& arguments) {
  pass_over_rows<T>(arguments.scores, arguments.task<T>(), cpu::self_adversarial_rows<T>);
}

std::tuple<Tensor, Tensor, Tensor> self_adversarial_loss(const Tensor& positive,
                                                         const Tensor& negative,
                                                         std::optional<Tensor> usable,
                                                         double temperature, int64_t form,
                                                         double margin) {
  const SelfAdversarialArguments arguments(kOp, positive, negative, usable, temperature, form,
                                           margin);
  (arguments.scores.is_single() ? run<float> : run<double>)(arguments);
  return arguments.scores.results();
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, CPU, m) {
  m.impl("self_adversarial_loss", TORCH_BOX(&self_adversarial_loss));
}

}  // namespace mmkgc
