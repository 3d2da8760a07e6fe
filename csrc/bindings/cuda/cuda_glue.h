// What the glue of the CUDA kernels shares: device, stream, sorting, arguments on one device.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <optional>
#include <utility>

#include "../checks/arguments.h"
#include "../../common/low_precision.h"
#include "../../cuda/sort.h"

// Emulated kernels stand in for those of the CPU, so that the same tests run them.
#if defined(MMKGC_EMULATE)
#define MMKGC_CUDA_KEY CPU
#else
#define MMKGC_CUDA_KEY CUDA
#endif

namespace mmkgc {

// Makes the device of a tensor the current one, and knows its current stream.
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

// `x` lies where `y` does: a kernel cannot read across.
inline void check_device(const char* op, const char* name, const Tensor& x, const char* like,
                         const Tensor& y) {
  const auto device = x.device(), expected = y.device();
  STD_TORCH_CHECK(device.type() == expected.type() && device.index() == expected.index(), op, name,
                  " and ", like, " must be on the same device");
}

inline void check_device(const char* op, const char* name, const std::optional<Tensor>& x,
                         const char* like, const Tensor& y) {
  if (x) check_device(op, name, *x, like, y);
}

// Calls `use` with the type that a tensor of real numbers is stored in.
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

// Values ascending and the positions that they had, equal values in order, by torch's own sort.
inline std::pair<Tensor, Tensor> sort_many(const Tensor& x) {
  std::array<StableIValue, 4> stack{
      torch::stable::detail::from(x), torch::stable::detail::from(std::optional<bool>(true)),
      torch::stable::detail::from(int64_t{0}), torch::stable::detail::from(false)};
  TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::sort", "stable", stack.data(), TORCH_ABI_VERSION));
  return {torch::stable::detail::to<Tensor>(stack[0]), torch::stable::detail::to<Tensor>(stack[1])};
}

// The same of contiguous ids, those of `second` behind those of `first`.
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
