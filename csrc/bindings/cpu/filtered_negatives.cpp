// Torch glue of mmkgc::filtered_negatives; the work is in cpu/filtered_negatives.cpp.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>
#include <vector>

#include "../../cpu/filtered_negatives.h"
#include "../../cpu/sampled_score.h"
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
  check_counter(kOp, counter);
  const int64_t passed = counter ? *counter->const_data_ptr<int64_t>() : 0;
  const NegativesArguments arguments(kOp, positives, head_share,
                                     {kOp, "tails", tail_keys, tail_ptr, tail_answers},
                                     {kOp, "heads", head_keys, head_ptr, head_answers},
                                     {entities, n, choice, rounds, with_positive, seed,
                                      step + passed});
  const NegativesTask& task = arguments.task;
  torch::stable::parallel_for(0, task.batch, 32, [&](int64_t begin, int64_t end) {
    cpu::draw_negatives(task, begin, end);
  });
  const int64_t count = arguments.ids.numel();
  const Tensor order = torch::stable::new_empty(arguments.positives, {count});
  std::vector<int64_t> starts(static_cast<size_t>(entities) + 1);
  cpu::sort_by_id(task.ids, count, entities, order.mutable_data_ptr<int64_t>(), starts.data());
  return {arguments.ids, arguments.side, arguments.usable, order};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, CPU, m) {
  m.impl("filtered_negatives", TORCH_BOX(&filtered_negatives));
}

}  // namespace mmkgc
