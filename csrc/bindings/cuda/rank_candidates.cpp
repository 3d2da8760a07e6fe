// Bindings of mmkgc::rank_candidates on CUDA.
#include "../rank_candidates.h"

#include <vector>

#include "../../cuda/rank_candidates.h"
#include "device.h"

namespace mmkgc {
namespace {

constexpr const char* kOp = "rank_candidates: ";

void check_columns(const char* name, const Tensor& x) {
  STD_TORCH_CHECK(x.size(1) <= cuda::kMostColumns, kOp, name, " has ", x.size(1),
                  " columns, at most ", cuda::kMostColumns, " on CUDA");
}

struct Kernels {
  static void count(const RankArguments& arguments) {
    STD_TORCH_CHECK(arguments.pairs.size() <= kMostTerms, kOp, "there are ",
                    arguments.pairs.size(), " pairs, at most ", kMostTerms, " on CUDA");
    check_columns("queries", arguments.queries);
    check_columns("table", arguments.table);
    const OnDevice device(arguments.queries);
    with_stored(arguments.table, [&]<typename Table>() {
      using T = Accumulator<Table>;
      const std::vector<int64_t> shape{arguments.target_ids.size(0)};
      const Tensor scores = torch::stable::new_empty(arguments.queries, shape);
      const Tensor rows = torch::stable::new_empty(arguments.target_ids, shape, ScalarType::Char);
      cuda::rank_candidates<Table>(kOp, arguments.task<Table>(),
                                   {write_as<T>(scores), write_as<int8_t>(rows)},
                                   device.stream());
    });
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, MMKGC_CUDA_KEY, m) { RankCandidates<Kernels>::add_to(m); }

}  // namespace mmkgc
