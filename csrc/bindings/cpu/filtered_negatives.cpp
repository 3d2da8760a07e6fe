// Bindings of mmkgc::filtered_negatives on the CPU.
#include "../filtered_negatives.h"

#include <optional>
#include <vector>

#include "../../cpu/filtered_negatives.h"
#include "../../cpu/sampled_score.h"

namespace mmkgc {
namespace {

struct Kernels {
  // Returns the positions of the ids sorted by id.
  static Tensor draw(const char*, const NegativesArguments& arguments,
                     const std::optional<Tensor>& counter) {
    NegativesTask task = arguments.task;
    if (counter) task.step += static_cast<uint64_t>(*counter->const_data_ptr<int64_t>());
    torch::stable::parallel_for(0, task.batch, 32, [&](int64_t begin, int64_t end) {
      cpu::draw_negatives(task, begin, end);
    });
    const int64_t count = arguments.ids.numel();
    const Tensor order = torch::stable::new_empty(arguments.positives, {count});
    std::vector<int64_t> starts(static_cast<size_t>(task.entities) + 1);
    cpu::sort_by_id(task.ids, count, task.entities, order.mutable_data_ptr<int64_t>(),
                    starts.data());
    return order;
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, CPU, m) { FilteredNegatives<Kernels>::add_to(m); }

}  // namespace mmkgc
