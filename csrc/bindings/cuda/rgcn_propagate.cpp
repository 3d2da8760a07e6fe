// Bindings of mmkgc::rgcn_propagate and its backward op on CUDA.
#include "../rgcn_propagate.h"

#include <optional>

#include "../../cuda/rgcn_propagate.h"
#include "device.h"

namespace mmkgc {
namespace {

// The entities of the rows of a table, and the row of each entity for the kernels.
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

// Temporary memory of the kernels for one direction of the graph.
struct Workspace {
  Tensor owner, partial;

  // `columns` is the width of sums, which have the dtype of `like`.
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

// Computes the gradient of the coefficients from the products of the backward pass over edges.
template <typename T>
void sum_by_relation(const PropagateBackwardArguments& arguments, const Tensor& dots,
                     int64_t slices, void* stream) {
  const auto [relation, order] =
      stable_sort(kPropagate, arguments.back.relation, std::nullopt, stream);
  const int64_t edges = arguments.back.edges, bases = arguments.coefficients.size(1);
  const Tensor partial = torch::stable::new_empty(
      arguments.coefficients, {cuda::count_edge_parts(edges), bases}, ScalarType::Double);
  const cuda::CoefficientsTask<T> task{relation.template const_data_ptr<int64_t>(),
                                       order.template const_data_ptr<int64_t>(),
                                       read_as<T>(arguments.back.norm),
                                       read_as<T>(dots),
                                       slices,
                                       edges,
                                       bases,
                                       arguments.coefficients.size(0),
                                       write_as<double>(partial),
                                       write_as<T>(arguments.d_coefficients)};
  cuda::coefficients_gradient(task, stream);
}

struct Kernels {
  static void sum(const PropagateArguments& arguments) {
    if (arguments.out.numel() == 0) return;
    const OnDevice device(arguments.x);
    const GraphDirection& graph = arguments.graph;
    const Placed rows(arguments.rows, graph.entities, false, device);
    const Placed sources(arguments.sources, graph.entities, true, device);
    const Workspace workspace(graph, arguments.out.size(1), arguments.out);
    with_stored(arguments.x, [&]<typename S>() {
      using T = Accumulator<S>;
      const cuda::PropagateTask<S> task{
          edge_rows<T>(graph, arguments.coefficients, rows, sources, workspace),
          read_as<S>(arguments.x),
          read_as<T>(arguments.coefficients),
          arguments.coefficients.size(1),
          arguments.x.size(1),
          write_as<T>(arguments.out)};
      cuda::propagate(task, device.stream());
    });
  }

  static void gradients(const PropagateBackwardArguments& arguments) {
    const GraphDirection& back = arguments.back;
    const bool with_x = arguments.need_x && arguments.d_x.numel() > 0;
    const bool with_coefficients =
        arguments.need_coefficients && arguments.d_coefficients.numel() > 0;
    if (!with_x && !with_coefficients) return;
    const OnDevice device(arguments.x);
    const Placed rows(arguments.rows, back.entities, false, device);
    const Placed sources(arguments.sources, back.entities, true, device);
    const int64_t bases = arguments.coefficients.size(1), width = arguments.x.size(1);
    const Workspace workspace(back, with_x ? width : 0, arguments.coefficients);
    with_stored(arguments.x, [&]<typename S>() {
      using T = Accumulator<S>;
      cuda::PropagateBackwardTask<S> task{
          edge_rows<T>(back, arguments.coefficients, sources, rows, workspace),
          read_as<T>(arguments.grad),
          read_as<S>(arguments.x),
          read_as<T>(arguments.coefficients),
          bases,
          width,
          with_x ? write_as<S>(arguments.d_x) : nullptr,
          nullptr};
      const int64_t slices = cuda::count_dot_slices(task);
      Tensor dots;
      if (with_coefficients) {
        // The kernels skip edges of entities without a row; their products must be 0.
        const bool restricted = arguments.rows.ids || arguments.sources.ids;
        const Tensor& like = arguments.coefficients;
        dots = restricted ? torch::stable::new_zeros(like, {slices, back.edges, bases})
                          : torch::stable::new_empty(like, {slices, back.edges, bases});
        task.dots = write_as<T>(dots);
      }
      cuda::propagate_backward(task, device.stream());
      if (with_coefficients) sum_by_relation<T>(arguments, dots, slices, device.stream());
    });
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, MMKGC_CUDA_KEY, m) { RgcnPropagate<Kernels>::add_to(m); }

}  // namespace mmkgc
