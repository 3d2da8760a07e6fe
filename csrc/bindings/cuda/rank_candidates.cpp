// Torch glue of mmkgc::rank_candidates on CUDA; the work is in cuda/rank_candidates.cu.
#include <optional>
#include <tuple>
#include <vector>

#include "../../cuda/rank_candidates.h"
#include "cuda_glue.h"
#include "../checks/rank_arguments.h"

namespace mmkgc {
namespace {

constexpr const char* kOp = "rank_candidates: ";

void check_columns(const char* name, const Tensor& x) {
  STD_TORCH_CHECK(x.size(1) <= cuda::kMostColumns, kOp, name, " has ", x.size(1),
                  " columns, at most ", cuda::kMostColumns, " on CUDA");
}

template <typename Table>
void run(const RankArguments& arguments, void* stream) {
  using T = Accumulator<Table>;
  const std::vector<int64_t> each{arguments.target_ids.size(0)};
  const Tensor scores = torch::stable::new_empty(arguments.queries, each);
  const Tensor rows = torch::stable::new_empty(arguments.target_ids, each, ScalarType::Char);
  cuda::rank_candidates<Table>(kOp, arguments.task<Table>(),
                               {scores.mutable_data_ptr<T>(), rows.mutable_data_ptr<int8_t>()},
                               stream);
}

std::tuple<Tensor, Tensor, Tensor> rank_candidates(
    const Tensor& queries, const Tensor& table, const Tensor& target_ptr, const Tensor& target_ids,
    const Tensor& filter_ptr, const Tensor& filter_ids, int64_t metric,
    const std::vector<int64_t>& pairs, const std::vector<double>& weights,
    std::optional<Tensor> scale) {
  const std::pair<const char*, const Tensor*> others[] = {{"table", &table},
                                                          {"target_ptr", &target_ptr},
                                                          {"target_ids", &target_ids},
                                                          {"filter_ptr", &filter_ptr},
                                                          {"filter_ids", &filter_ids}};
  for (const auto& [name, tensor] : others) check_device(kOp, name, *tensor, "queries", queries);
  check_device(kOp, "scale", scale, "queries", queries);
  const OnDevice device(queries);
  const RankArguments arguments(kOp, queries, table, target_ptr, target_ids, filter_ptr, filter_ids,
                                metric, pairs, weights, scale);
  STD_TORCH_CHECK(weights.size() <= kMostTerms, kOp, "there are ", weights.size(),
                  " pairs, at most ", kMostTerms, " on CUDA");
  check_columns("queries", queries);
  check_columns("table", table);
  with_stored(table, [&]<typename T>() { run<T>(arguments, device.stream()); });
  return {arguments.better, arguments.equal, arguments.nonfinite};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, MMKGC_CUDA_KEY, m) {
  m.impl("rank_candidates", TORCH_BOX(&rank_candidates));
}

}  // namespace mmkgc
