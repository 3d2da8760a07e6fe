// Torch glue of mmkgc::rgcn_propagate and its backward on CUDA; the work is in cuda/rgcn_*.cu.
#include <optional>
#include <tuple>
#include <utility>

#include "../../cuda/rgcn_propagate.h"
#include "cuda_glue.h"
#include "../checks/rgcn_arguments.h"

namespace mmkgc {
namespace {

// Where entities stand in a table; kept alive while kernels are launched that read it.
struct Placed {
  Tensor place;
  cuda::TableRows rows;

  Placed(const EntityList& list, int64_t entities, bool sources, const OnDevice& device) {
    rows = {list.data(), nullptr, list.count};
    if (!list.ids) return;
    place = torch::stable::new_empty(*list.ids, {entities});
    torch::stable::fill_(place, -1);
    cuda::place_rows(rows.ids, rows.count, entities, sources, write_as<int64_t>(place),
                     device.stream());
    rows.place = place.const_data_ptr<int64_t>();
  }
};

// What the kernels need besides a direction of the graph, and room for it.
struct Workspace {
  Tensor owner, partial;

  // `columns` of sums that are of the type of `like`.
  Workspace(const GraphDirection& graph, int64_t columns, const Tensor& like) {
    const int64_t parts = cuda::count_edge_parts(graph.edges);
    owner = torch::stable::new_empty(graph.ptr, {parts});
    partial = torch::stable::new_empty(like, {2 * parts, columns});
  }
};

template <typename T>
cuda::EdgeRows<T> edge_rows(const GraphDirection& graph, const Tensor& coefficients,
                            const Placed& own, const Placed& others, const Workspace& workspace) {
  return {graph.ptr.const_data_ptr<int64_t>(),
          graph.other.const_data_ptr<int64_t>(),
          graph.relation.const_data_ptr<int64_t>(),
          read_as<T>(graph.norm),
          graph.entities,
          graph.edges,
          coefficients.size(0),
          own.rows,
          others.rows,
          write_as<int64_t>(workspace.owner),
          write_as<T>(workspace.partial)};
}

Tensor rgcn_propagate(const Tensor& x, const Tensor& coefficients, const Tensor& ptr,
                      const Tensor& source, const Tensor& relation, const Tensor& norm,
                      const Tensor& back_ptr, const Tensor& back_target, const Tensor&,
                      const Tensor&, std::optional<Tensor> rows_in,
                      std::optional<Tensor> sources_in) {
  const std::pair<const char*, const Tensor*> others[] = {{"coefficients", &coefficients},
                                                          {"source", &ptr},
                                                          {"source", &source},
                                                          {"relation", &relation},
                                                          {"norm", &norm}};
  for (const auto& [name, tensor] : others) check_device(kPropagate, name, *tensor, "x", x);
  check_device(kPropagate, "rows", rows_in, "x", x);
  check_device(kPropagate, "sources", sources_in, "x", x);
  const OnDevice device(x);
  const PropagateArguments given(x, coefficients, ptr, source, relation, norm, back_ptr,
                                 back_target, rows_in, sources_in);
  if (given.out.numel() == 0) return given.out;
  const GraphDirection& graph = given.graph;
  const Placed rows(given.rows, graph.entities, false, device);
  const Placed sources(given.sources, graph.entities, true, device);
  const Workspace workspace(graph, given.out.size(1), given.out);
  with_stored(x, [&]<typename S>() {
    using T = Accumulator<S>;
    const cuda::PropagateTask<S> task{
        edge_rows<T>(graph, given.coefficients, rows, sources, workspace),
        read_as<S>(given.x),
        read_as<T>(given.coefficients),
        given.coefficients.size(1),
        given.x.size(1),
        write_as<T>(given.out)};
    cuda::propagate(task, device.stream());
  });
  return given.out;
}

// Fills the gradient of the coefficients from the products that the sums over edges leave.
template <typename T>
void sum_by_relation(const PropagateBackwardArguments& given, const Tensor& dots, int64_t slices,
                     void* stream) {
  const auto [relation, order] = stable_sort(kPropagate, given.back.relation, std::nullopt, stream);
  const int64_t edges = given.back.edges, bases = given.coefficients.size(1);
  const Tensor partial = torch::stable::new_empty(
      given.coefficients, {cuda::count_edge_parts(edges), bases}, ScalarType::Double);
  const cuda::CoefficientsTask<T> task{relation.template const_data_ptr<int64_t>(),
                                       order.template const_data_ptr<int64_t>(),
                                       read_as<T>(given.back.norm),
                                       read_as<T>(dots),
                                       slices,
                                       edges,
                                       bases,
                                       given.coefficients.size(0),
                                       write_as<double>(partial),
                                       write_as<T>(given.d_coefficients)};
  cuda::coefficients_gradient(task, stream);
}

std::tuple<Tensor, Tensor> rgcn_propagate_backward(
    const Tensor& grad, const Tensor& x, const Tensor& coefficients, const Tensor& back_ptr,
    const Tensor& back_target, const Tensor& back_relation, const Tensor& back_norm,
    std::optional<Tensor> rows_in, std::optional<Tensor> sources_in, bool need_x,
    bool need_coefficients) {
  const std::pair<const char*, const Tensor*> others[] = {{"grad", &grad},
                                                          {"coefficients", &coefficients},
                                                          {"back_target", &back_ptr},
                                                          {"back_target", &back_target},
                                                          {"back_relation", &back_relation},
                                                          {"back_norm", &back_norm}};
  for (const auto& [name, tensor] : others) check_device(kPropagate, name, *tensor, "x", x);
  check_device(kPropagate, "rows", rows_in, "x", x);
  check_device(kPropagate, "sources", sources_in, "x", x);
  const OnDevice device(x);
  const PropagateBackwardArguments given(grad, x, coefficients, back_ptr, back_target,
                                         back_relation, back_norm, rows_in, sources_in, need_x,
                                         need_coefficients);
  const GraphDirection& back = given.back;
  const bool with_x = need_x && given.d_x.numel() > 0;
  const bool with_coefficients = need_coefficients && given.d_coefficients.numel() > 0;
  if (!with_x && !with_coefficients) return {given.d_x, given.d_coefficients};
  const Placed rows(given.rows, back.entities, false, device);
  const Placed sources(given.sources, back.entities, true, device);
  const int64_t bases = given.coefficients.size(1), width = given.x.size(1);
  const Workspace workspace(back, with_x ? width : 0, given.coefficients);
  with_stored(x, [&]<typename S>() {
    using T = Accumulator<S>;
    cuda::PropagateBackwardTask<S> task{
        edge_rows<T>(back, given.coefficients, sources, rows, workspace),
        read_as<T>(given.grad),
        read_as<S>(given.x),
        read_as<T>(given.coefficients),
        bases,
        width,
        with_x ? write_as<S>(given.d_x) : nullptr,
        nullptr};
    const int64_t slices = cuda::count_dot_slices(task);
    Tensor dots;
    if (with_coefficients) {
      // Edges between entities without a row are met by nobody.
      dots = given.rows.ids || given.sources.ids
                 ? torch::stable::new_zeros(given.coefficients, {slices, back.edges, bases})
                 : torch::stable::new_empty(given.coefficients, {slices, back.edges, bases});
      task.dots = write_as<T>(dots);
    }
    cuda::propagate_backward(task, device.stream());
    if (with_coefficients) sum_by_relation<T>(given, dots, slices, device.stream());
  });
  return {given.d_x, given.d_coefficients};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, MMKGC_CUDA_KEY, m) {
  m.impl("rgcn_propagate", TORCH_BOX(&rgcn_propagate));
  m.impl("rgcn_propagate_backward", TORCH_BOX(&rgcn_propagate_backward));
}

}  // namespace mmkgc
