// Bindings of mmkgc::filtered_negatives on CUDA.
#include "../filtered_negatives.h"

#include <optional>

#include "../../cuda/filtered_negatives.h"
#include "device.h"

namespace mmkgc {
namespace {

struct Kernels {
  // Returns the positions of the ids sorted by id.
  static Tensor draw(const char* op, const NegativesArguments& arguments,
                     const std::optional<Tensor>& counter) {
    const OnDevice device(arguments.positives);
    const int64_t count = arguments.ids.numel();
    const bool short_keys = count > cuda::kFew && arguments.task.entities <= INT32_MAX;
    const Tensor keys =
        torch::stable::new_empty(arguments.ids, {short_keys ? count : 0}, ScalarType::Int);
    cuda::draw_negatives(op, arguments.task, counter ? read_as<int64_t>(*counter) : nullptr,
                         short_keys ? write_as<int32_t>(keys) : nullptr, device.stream());
    if (short_keys) return sort_many(keys).second;
    return stable_sort(op, torch::stable::flatten(arguments.ids), std::nullopt, device.stream())
        .second;
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, MMKGC_CUDA_KEY, m) { FilteredNegatives<Kernels>::add_to(m); }

}  // namespace mmkgc
