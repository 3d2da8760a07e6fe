// Bindings of mmkgc::rank_candidates on the CPU.
#include "../rank_candidates.h"

#include "../../cpu/rank_candidates.h"

namespace mmkgc {
namespace {

struct Kernels {
  static void count(const RankArguments& arguments) {
    with_real(arguments.queries, [&]<typename T>() {
      const RankTask<T> task = arguments.task<T>();
      torch::stable::parallel_for(
          0, task.n_queries, cpu::kQueryBlock / 4,
          [&](int64_t begin, int64_t end) { cpu::rank_queries(task, begin, end); });
    });
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, CPU, m) { RankCandidates<Kernels>::add_to(m); }

}  // namespace mmkgc
