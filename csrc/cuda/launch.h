// Launching kernels with one dimension of blocks and threads. Launches are checked and do not wait.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <tuple>

#if defined(MMKGC_EMULATE)
#include "../emulate/emulate.h"
#else
#include <cuda_runtime.h>
#endif

namespace mmkgc::cuda {

using Stream = void*;  // a cudaStream_t; opaque, so that bindings need no CUDA header

// The number of blocks, of threads per block, and of bytes of dynamic shared memory per block.
struct Shape {
  int64_t blocks;
  int threads;
  std::size_t shared = 0;
};

// Runs `kernel(arguments...)`, if there are any blocks.
template <typename... Parameters, typename... Arguments>
void launch(const char* op, void (*kernel)(Parameters...), const Shape& shape, Stream stream,
            Arguments... arguments) {
  if (shape.blocks == 0) return;
  if (shape.blocks > INT32_MAX) {
    throw std::runtime_error(std::string(op) + "too large for one launch: " +
                             std::to_string(shape.blocks) + " blocks");
  }
  std::tuple<Parameters...> values(static_cast<Parameters>(arguments)...);
#if defined(MMKGC_EMULATE)
  (void)stream;
  emulate::run(shape.blocks, shape.threads, shape.shared, [&] { std::apply(kernel, values); });
#else
  const cudaError_t error = std::apply(
      [&](Parameters&... value) {
        void* pointers[] = {static_cast<void*>(&value)...};
        return cudaLaunchKernel(reinterpret_cast<const void*>(kernel),
                                dim3(static_cast<unsigned>(shape.blocks)),
                                dim3(static_cast<unsigned>(shape.threads)), pointers, shape.shared,
                                static_cast<cudaStream_t>(stream));
      },
      values);
  if (error != cudaSuccess) {
    cudaGetLastError();  // clears the error, so that later calls do not report it
    throw std::runtime_error(std::string(op) + "a kernel was not launched: " +
                             cudaGetErrorString(error));
  }
#endif
}

}  // namespace mmkgc::cuda
