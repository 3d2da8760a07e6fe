// Torch glue of mmkgc::self_adversarial_loss on CUDA; the work is in cuda/self_adversarial_loss.cu.
#include <optional>
#include <tuple>

#include "../../cuda/self_adversarial_loss.h"
#include "cuda_glue.h"
#include "../checks/self_adversarial_arguments.h"

namespace mmkgc {
namespace {

constexpr const char* kOp = "self_adversarial_loss: ";

template <typename T>
void run(const SelfAdversarialArguments& arguments, void* stream) {
  const LossScores& scores = arguments.scores;
  const int64_t batch = scores.positive.size(0);
  const Tensor losses = torch::stable::new_empty(scores.positive, {batch}, ScalarType::Double);
  auto task = arguments.task<T>();
  task.rows.losses = losses.mutable_data_ptr<double>();
  cuda::self_adversarial_loss(kOp, task, scores.loss.mutable_data_ptr<T>(), stream);
}

std::tuple<Tensor, Tensor, Tensor> self_adversarial_loss(const Tensor& positive,
                                                         const Tensor& negative,
                                                         std::optional<Tensor> usable,
                                                         double temperature, int64_t form,
                                                         double margin) {
  check_device(kOp, "negative", negative, "positive", positive);
  check_device(kOp, "usable", usable, "positive", positive);
  const OnDevice device(positive);
  const SelfAdversarialArguments arguments(kOp, positive, negative, usable, temperature, form,
                                           margin);
  (arguments.scores.is_single() ? run<float> : run<double>)(arguments, device.stream());
  return arguments.scores.results();
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, MMKGC_CUDA_KEY, m) {
  m.impl("self_adversarial_loss", TORCH_BOX(&self_adversarial_loss));
}

}  // namespace mmkgc
