// mmkgc::rgcn_propagate and its backward op for either device; `Kernels` sums.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>

#include "arguments.h"

namespace mmkgc {

inline constexpr const char* kPropagate = "rgcn_propagate: ";

// All tensors but x have the dtype in which x is summed.
inline void check_summed(const char* name, const Tensor& tensor, const Tensor& x) {
  if (!is_low(x)) return check_same_dtype(kPropagate, name, tensor, "x", x);
  STD_TORCH_CHECK(tensor.scalar_type() == ScalarType::Float, kPropagate, name,
                  " must be float32 with float16 or bfloat16 x");
}

inline void check_row_count(const char* name, const Tensor& x, int64_t expected) {
  STD_TORCH_CHECK(x.size(0) == expected, kPropagate, name, " has ", x.size(0), " rows, expected ",
                  expected);
}

struct PropagateTables {
  Tensor x, coefficients;

  PropagateTables(const Tensor& x_in, const Tensor& coefficients_in) {
    check_matrix(kPropagate, "x", x_in);
    if (!is_low(x_in)) check_real(kPropagate, "x", x_in);
    check_matrix(kPropagate, "coefficients", coefficients_in);
    check_summed("coefficients", coefficients_in, x_in);
    x = torch::stable::contiguous(x_in);
    coefficients = torch::stable::contiguous(coefficients_in);
  }
};

// One direction of the graph: row pointers, the entity at the other end, relation and norm.
struct GraphDirection {
  Tensor ptr, other, relation, norm;
  int64_t entities, edges;

  GraphDirection(const char* name, const char* relation_name, const Tensor& ptr_in,
                 const Tensor& other_in, const Tensor& relation_in, const Tensor& norm_in,
                 const PropagateTables& tables) {
    check_index(kPropagate, name, ptr_in);
    check_index(kPropagate, name, other_in);
    check_index(kPropagate, name, relation_in);
    edges = other_in.size(0);
    STD_TORCH_CHECK(ptr_in.size(0) >= 1, kPropagate, name, " has no row pointers");
    STD_TORCH_CHECK(relation_in.size(0) == edges && norm_in.dim() == 1 && norm_in.size(0) == edges,
                    kPropagate, name, " has ", edges,
                    " edges, expected as many relations and norms");
    check_summed("norm", norm_in, tables.x);
    ptr = torch::stable::contiguous(ptr_in);
    other = torch::stable::contiguous(other_in);
    relation = torch::stable::contiguous(relation_in);
    norm = torch::stable::contiguous(norm_in);
    entities = ptr.size(0) - 1;
    check_pointers(kPropagate, name, " rows run from ", ptr, edges);
    check_ids(kPropagate, name, other, entities);
    check_ids(kPropagate, relation_name, relation, tables.coefficients.size(0));
  }
};

// The entities of the rows of a table: all in order, or a list.
struct EntityList {
  std::optional<Tensor> ids;
  int64_t count;

  EntityList(const char* name, const std::optional<Tensor>& list, int64_t entities)
      : count(entities) {
    if (!list) return;
    check_index(kPropagate, name, *list);
    ids = torch::stable::contiguous(*list);
    check_ids(kPropagate, name, *ids, entities);
    count = ids->size(0);
  }

  const int64_t* data() const { return ids ? ids->const_data_ptr<int64_t>() : nullptr; }
};

struct PropagateArguments : PropagateTables {
  GraphDirection graph;
  EntityList rows, sources;
  Tensor out;

  PropagateArguments(const Tensor& x_in, const Tensor& coefficients_in, const Tensor& ptr,
                     const Tensor& source, const Tensor& relation, const Tensor& norm,
                     const Tensor& back_ptr, const Tensor& back_target,
                     const std::optional<Tensor>& rows_in, const std::optional<Tensor>& sources_in)
      : PropagateTables(x_in, coefficients_in),
        graph("source", "relation", ptr, source, relation, norm, *this),
        rows("rows", rows_in, graph.entities),
        sources("sources", sources_in, graph.entities) {
    check_row_count("x", x, sources.count);
    STD_TORCH_CHECK(back_ptr.numel() == ptr.numel() && back_target.numel() == source.numel(),
                    kPropagate, "back_ptr and back_target must have the lengths of ptr and source");
    out = torch::stable::new_empty(coefficients, {rows.count, coefficients.size(1) * x.size(1)});
  }
};

struct PropagateBackwardArguments : PropagateTables {
  GraphDirection back;
  EntityList rows, sources;
  bool need_x, need_coefficients;
  Tensor grad, d_x, d_coefficients;

  PropagateBackwardArguments(const Tensor& grad_in, const Tensor& x_in,
                             const Tensor& coefficients_in, const Tensor& ptr,
                             const Tensor& target, const Tensor& relation, const Tensor& norm,
                             const std::optional<Tensor>& rows_in,
                             const std::optional<Tensor>& sources_in, bool need_x_in,
                             bool need_coefficients_in)
      : PropagateTables(x_in, coefficients_in),
        back("back_target", "back_relation", ptr, target, relation, norm, *this),
        rows("rows", rows_in, back.entities),
        sources("sources", sources_in, back.entities),
        need_x(need_x_in),
        need_coefficients(need_coefficients_in) {
    check_row_count("x", x, sources.count);
    check_matrix(kPropagate, "grad", grad_in);
    check_summed("grad", grad_in, x);
    check_row_count("grad", grad_in, rows.count);
    const int64_t wide = coefficients.size(1) * x.size(1);
    STD_TORCH_CHECK(grad_in.size(1) == wide, kPropagate, "grad has width ", grad_in.size(1),
                    ", expected ", wide, " (bases times the width of x)");
    grad = torch::stable::contiguous(grad_in);
    d_x = need_x ? torch::stable::empty_like(x) : torch::stable::new_empty(x, {0});
    d_coefficients = need_coefficients ? torch::stable::empty_like(coefficients)
                                       : torch::stable::new_empty(coefficients, {0});
  }
};

// `Kernels` has the static functions sum(arguments) and gradients(arguments).
template <typename Kernels>
struct RgcnPropagate {
  using Optional = std::optional<Tensor>;

  static Tensor forward(const Tensor& x, const Tensor& coefficients, const Tensor& ptr,
                        const Tensor& source, const Tensor& relation, const Tensor& norm,
                        const Tensor& back_ptr, const Tensor& back_target, const Tensor&,
                        const Tensor&, Optional rows, Optional sources) {
    check_devices(kPropagate,
                  {{"coefficients", coefficients},
                   {"source", ptr},
                   {"source", source},
                   {"relation", relation},
                   {"norm", norm},
                   {"rows", rows},
                   {"sources", sources}},
                  "x", x);
    const PropagateArguments arguments(x, coefficients, ptr, source, relation, norm, back_ptr,
                                       back_target, rows, sources);
    Kernels::sum(arguments);
    return arguments.out;
  }

  static std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Tensor& x,
                                             const Tensor& coefficients, const Tensor& back_ptr,
                                             const Tensor& back_target,
                                             const Tensor& back_relation,
                                             const Tensor& back_norm, Optional rows,
                                             Optional sources, bool need_x,
                                             bool need_coefficients) {
    check_devices(kPropagate,
                  {{"grad", grad},
                   {"coefficients", coefficients},
                   {"back_target", back_ptr},
                   {"back_target", back_target},
                   {"back_relation", back_relation},
                   {"back_norm", back_norm},
                   {"rows", rows},
                   {"sources", sources}},
                  "x", x);
    const PropagateBackwardArguments arguments(grad, x, coefficients, back_ptr, back_target,
                                               back_relation, back_norm, rows, sources, need_x,
                                               need_coefficients);
    Kernels::gradients(arguments);
    return {arguments.d_x, arguments.d_coefficients};
  }

  static void add_to(auto& library) {
    library.impl("rgcn_propagate", TORCH_BOX(&RgcnPropagate::forward));
    library.impl("rgcn_propagate_backward", TORCH_BOX(&RgcnPropagate::backward));
  }
};

}  // namespace mmkgc
