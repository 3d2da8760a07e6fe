// Torch glue of mmkgc::filtered_negatives on CUDA; the work is in cuda/filtered_negatives.cu.
#include <optional>
#include <tuple>

#include "../../cuda/filtered_negatives.h"
#include "cuda_glue.h"
#include "../checks/negatives_arguments.h"

namespace mmkgc {
namespace {

constexpr const char* kOp = "filtered_negatives: ";

std::tuple<Tensor, Tensor, Tensor, Tensor> filtered_negatives(
    const Tensor& positives, const Tensor& head_share, const Tensor& tail_keys,
    const Tensor& tail_ptr, const Tensor& tail_answers, const Tensor& head_keys,
    const Tensor& head_ptr, const Tensor& head_answers, int64_t entities, int64_t n,
    int64_t choice, int64_t rounds, bool with_positive, int64_t seed, int64_t step,
    std::optional<Tensor> counter) {
  const std::pair<const char*, const Tensor*> others[] = {
      {"head_share", &head_share}, {"tails", &tail_keys}, {"tails", &tail_ptr},
      {"tails", &tail_answers},    {"heads", &head_keys}, {"heads", &head_ptr},
      {"heads", &head_answers}};
  for (const auto& [name, tensor] : others) {
    check_device(kOp, name, *tensor, "positives", positives);
  }
  check_device(kOp, "counter", counter, "positives", positives);
  check_counter(kOp, counter);
  const OnDevice device(positives);
  const NegativesArguments arguments(kOp, positives, head_share,
                                     {kOp, "tails", tail_keys, tail_ptr, tail_answers},
                                     {kOp, "heads", head_keys, head_ptr, head_answers},
                                     {entities, n, choice, rounds, with_positive, seed, step});
  const int64_t count = arguments.ids.numel();
  const bool short_keys = count > cuda::kFew && entities <= INT32_MAX;
  const Tensor keys =
      torch::stable::new_empty(arguments.ids, {short_keys ? count : 0}, ScalarType::Int);
  cuda::draw_negatives(kOp, arguments.task, counter ? read_as<int64_t>(*counter) : nullptr,
                       short_keys ? write_as<int32_t>(keys) : nullptr, device.stream());
  const Tensor order = short_keys ? sort_many(keys).second
                                  : stable_sort(kOp, torch::stable::flatten(arguments.ids),
                                                std::nullopt, device.stream())
                                        .second;
  return {arguments.ids, arguments.side, arguments.usable, order};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, MMKGC_CUDA_KEY, m) {
  m.impl("filtered_negatives", TORCH_BOX(&filtered_negatives));
}

}  // namespace mmkgc
