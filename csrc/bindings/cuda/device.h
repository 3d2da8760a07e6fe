// Shared parts of the bindings on CUDA: device, stream, pointers and sorting.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <optional>
#include <utility>

#include "../../common/low_precision.h"
#include "../../cuda/sort.h"
#include "../arguments.h"

// Emulated kernels replace those of the CPU, so that the same tests run them.
#if defined(MMKGC_EMULATE)
#define MMKGC_CUDA_KEY CPU
#else
#define MMKGC_CUDA_KEY CUDA
#endif

namespace mmkgc {

// Makes the device of a tensor the current device, and has its current stream.
class OnDevice {
 public:
#if defined(MMKGC_EMULATE)
  explicit OnDevice(const Tensor&) {}
#else
  explicit OnDevice(const Tensor& x) : guard_(x.get_device_index()) {
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream_));
  }
#endif

  void* stream() const { return stream_; }

 private:
#if !defined(MMKGC_EMULATE)
  torch::stable::accelerator::DeviceGuard guard_;
#endif
  void* stream_ = nullptr;
};

// Calls `use` with the dtype of a tensor of real numbers, including the low-precision ones.
template <typename Use>
void with_stored(const Tensor& x, Use use) {
  switch (x.scalar_type()) {
    case ScalarType::Float: return use.template operator()<float>();
    case ScalarType::Half: return use.template operator()<Half>();
    case ScalarType::BFloat16: return use.template operator()<BFloat16>();
    default: return use.template operator()<double>();
  }
}

template <typename T>
const T* read_as(const Tensor& x) {
  return static_cast<const T*>(x.const_data_ptr());
}

template <typename T>
T* write_as(const Tensor& x) {
  return static_cast<T*>(x.mutable_data_ptr());
}

// Sorted values and their positions by torch's stable sort.
inline std::pair<Tensor, Tensor> sort_many(const Tensor& x) {
  std::array<StableIValue, 4> stack{
      torch::stable::detail::from(x), torch::stable::detail::from(std::optional<bool>(true)),
      torch::stable::detail::from(int64_t{0}), torch::stable::detail::from(false)};
  TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::sort", "stable", stack.data(), TORCH_ABI_VERSION));
  return {torch::stable::detail::to<Tensor>(stack[0]), torch::stable::detail::to<Tensor>(stack[1])};
}

// Sorted ids and their positions in the concatenation of the contiguous `first` and `second`.
inline std::pair<Tensor, Tensor> stable_sort(const char* op, const Tensor& first,
                                             const std::optional<Tensor>& second, void* stream) {
  const int64_t n = first.numel(), m = second ? second->numel() : 0;
  if (n + m <= cuda::kFew) {
    const Tensor sorted = torch::stable::new_empty(first, {n + m});
    const Tensor order = torch::stable::new_empty(first, {n + m});
    cuda::sort_few(op, read_as<int64_t>(first), n, second ? read_as<int64_t>(*second) : nullptr, m,
                   write_as<int64_t>(sorted), write_as<int64_t>(order), stream);
    return {sorted, order};
  }
  if (!second) return sort_many(first);
  Tensor both = torch::stable::new_empty(first, {n + m});
  Tensor head = torch::stable::narrow(both, 0, 0, n), tail = torch::stable::narrow(both, 0, n, m);
  torch::stable::copy_(head, first);
  torch::stable::copy_(tail, *second);
  return sort_many(both);
}

}  // namespace mmkgc
