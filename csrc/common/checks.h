// Argument checks that every op shares. Messages name the op and the argument.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

namespace mmkgc {

inline void check_matrix(const char* op, const char* name, const torch::stable::Tensor& x) {
  STD_TORCH_CHECK(x.dim() == 2, op, name, " has ", x.dim(), " dimensions, expected 2");
}

inline void check_index(const char* op, const char* name, const torch::stable::Tensor& x) {
  STD_TORCH_CHECK(x.dim() == 1, op, name, " has ", x.dim(), " dimensions, expected 1");
  STD_TORCH_CHECK(x.scalar_type() == torch::headeronly::ScalarType::Long, op, name,
                  " must be int64");
}

}  // namespace mmkgc
