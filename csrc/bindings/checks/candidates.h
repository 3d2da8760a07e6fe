// What ops over sampled candidates share: checking them, and the gradient of their scores.
#pragma once

#include <torch/csrc/stable/ops.h>

#include "arguments.h"

namespace mmkgc {

// Candidate ids and sides, checked and contiguous.
struct Candidates {
  Tensor ids;   // [B, N] int64
  Tensor side;  // [B, N] int8

  Candidates(const char* op, const Tensor& ids_in, const Tensor& side_in, int64_t batch,
             int64_t sides, int64_t entities)
      : ids(ids_in), side(side_in) {
    STD_TORCH_CHECK(ids.dim() == 2 && ids.size(0) == batch, op, "ids must be [", batch,
                    ", N], a row a query");
    STD_TORCH_CHECK(ids.scalar_type() == ScalarType::Long, op, "ids must be int64");
    STD_TORCH_CHECK(side.dim() == 2 && side.size(0) == batch && side.size(1) == ids.size(1), op,
                    "side must have the shape of ids");
    STD_TORCH_CHECK(side.scalar_type() == ScalarType::Char, op, "side must be int8");
    ids = torch::stable::contiguous(ids);
    side = torch::stable::contiguous(side);
    check_ids(op, "ids", ids, entities);
    if (!is_readable(side)) return;
    const int8_t* p = side.const_data_ptr<int8_t>();
    const int64_t n = side.numel();
    uint8_t outside = 0;
    for (int64_t i = 0; i < n; ++i) outside |= static_cast<uint8_t>(p[i]) >= sides;
    for (int64_t i = 0; outside && i < n; ++i) {
      STD_TORCH_CHECK(p[i] >= 0 && p[i] < sides, op, "side[", i, "] is ", int64_t(p[i]),
                      ", outside 0..", sides - 1);
    }
  }
};

// The gradient of the scores, checked and contiguous.
inline Tensor checked_gradient(const char* op, const Tensor& grad, const Tensor& ids,
                               const char* like, const Tensor& of) {
  STD_TORCH_CHECK(grad.dim() == 2 && grad.size(0) == ids.size(0) && grad.size(1) == ids.size(1),
                  op, "grad must have the shape of ids");
  check_same_dtype(op, "grad", grad, like, of);
  return torch::stable::contiguous(grad);
}

}  // namespace mmkgc
