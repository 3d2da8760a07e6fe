// Torch glue of mmkgc::entropy_weighted_loss on CUDA; the work is in cuda/entropy_weighted_loss.cu.
#include <optional>
#include <tuple>
#include <vector>

#include "../../cuda/entropy_weighted_loss.h"
#include "cuda_glue.h"
#include "../checks/entropy_weighted_arguments.h"

namespace mmkgc {
namespace {

constexpr const char* kOp = "entropy_weighted_loss: ";

template <typename T>
void run(const EntropyWeightedArguments& arguments, void* stream) {
  const LossScores& scores = arguments.scores;
  const int64_t batch = scores.positive.size(0);
  const Tensor losses = torch::stable::new_empty(scores.positive, {batch}, ScalarType::Double);
  auto task = arguments.task<T>();
  task.rows.losses = losses.mutable_data_ptr<double>();
  cuda::entropy_weighted_loss(kOp, task, scores.loss.mutable_data_ptr<T>(), stream);
}

std::tuple<Tensor, Tensor, Tensor> entropy_weighted_loss(
    const Tensor& positive, const Tensor& negative, std::optional<Tensor> usable,
    double easy_above, double hard_upto, const std::vector<double>& weights, int64_t reduction,
    double temperature, bool one_sided) {
  check_device(kOp, "negative", negative, "positive", positive);
  check_device(kOp, "usable", usable, "positive", positive);
  const OnDevice device(positive);
  const EntropyWeightedArguments arguments(
      kOp, positive, negative, usable,
      {easy_above, hard_upto, weights, reduction, temperature, one_sided});
  (arguments.scores.is_single() ? run<float> : run<double>)(arguments, device.stream());
  return arguments.scores.results();
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, MMKGC_CUDA_KEY, m) {
  m.impl("entropy_weighted_loss", TORCH_BOX(&entropy_weighted_loss));
}

}  // namespace mmkgc
