// Checks and torch glue of mmkgc::self_adversarial_loss; the work is in cpu/.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>

#include "cpu/self_adversarial_loss.h"
#include "loss_scores.h"

namespace mmkgc {
namespace {

constexpr const char* kOp = "self_adversarial_loss: ";

template <typename T>
void run(const LossScores& scores, double temperature, int64_t form, double margin) {
  const cpu::SelfAdversarialTask<T> task{scores.rows<T>(), static_cast<T>(temperature),
                                         static_cast<T>(margin),
                                         static_cast<cpu::AdversarialForm>(form)};
  scores.run<T>(task, cpu::self_adversarial_rows<T>);
}

std::tuple<Tensor, Tensor, Tensor> self_adversarial_loss(const Tensor& positive,
                                                         const Tensor& negative,
                                                         std::optional<Tensor> usable,
                                                         double temperature, int64_t form,
                                                         double margin) {
  const LossScores scores(kOp, positive, negative, usable);
  STD_TORCH_CHECK(form >= 0 && form <= 2, kOp, "form is ", form,
                  ", expected 0 (log_sigmoid), 1 (margin_inside) or 2 (margin_outside)");
  const bool single = positive.scalar_type() == ScalarType::Float;
  (single ? run<float> : run<double>)(scores, temperature, form, margin);
  return scores.results();
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, CPU, m) {
  m.impl("self_adversarial_loss", TORCH_BOX(&self_adversarial_loss));
}

}  // namespace mmkgc
