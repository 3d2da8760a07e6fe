// The arguments of rgcn_propagate and its backward, checked, and where results go: for either device.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>

#include "arguments.h"

namespace mmkgc {

inline constexpr const char* kPropagate = "rgcn_propagate: ";

// All but x is of the type that x is summed in.
inline void check_summed(const char* name, const Tensor& tensor, const Tensor& x) {
  if (!is_low(x)) return check_same_dtype(kPropagate, name, tensor, "x", x);
  STD_TORCH_CHECK(tensor.scalar_type() == ScalarType::Float, kPropagate, name,
                  " must be float32, as x is float16 or bfloat16");
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
                    " edges, and relations or norms of another number");
    check_summed("norm", norm_in, tables.x);
    ptr = torch::stable::contiguous(ptr_in);
    other = torch::stable::contiguous(other_in);
    relation = torch::stable::contiguous(relation_in);
    norm = torch::stable::contiguous(norm_in);
    entities = ptr.size(0) - 1;
    if (is_readable(ptr)) check_rows(name);
    check_ids(kPropagate, name, other, entities);
    check_ids(kPropagate, relation_name, relation, tables.coefficients.size(0));
  }

 private:
  void check_rows(const char* name) const {
    const int64_t* p = ptr.const_data_ptr<int64_t>();
    STD_TORCH_CHECK(p[0] == 0 && p[entities] == edges, kPropagate, name, " rows run from ", p[0],
                    " to ", p[entities], ", expected 0 to ", edges);
    for (int64_t i = 0; i < entities; ++i) {
      STD_TORCH_CHECK(p[i] <= p[i + 1], kPropagate, name, " decreases at entry ", i + 1);
    }
  }
};

// Which entities the rows of a table stand for: all in order, or those that are listed.
struct EntityList {
  std::optional<Tensor> ids;
  int64_t count;

  EntityList(const char* name, const std::optional<Tensor>& given, int64_t entities)
      : count(entities) {
    if (!given) return;
    check_index(kPropagate, name, *given);
    ids = torch::stable::contiguous(*given);
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
                    kPropagate, "the edges by source are not as many as those by receiver");
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

}  // namespace mmkgc
