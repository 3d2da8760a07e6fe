// Bindings of mmkgc::rgcn_propagate and its backward op on the CPU.
#include "../rgcn_propagate.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "../../cpu/rgcn_propagate.h"

namespace mmkgc {
namespace {

constexpr int64_t kLongest = 1024;  // the most edges of a segment

// The number of ranges of equal work. Each range has its own sum of the gradient of the
// coefficients, so there are fewer ranges for many coefficients. It depends on shapes alone, so
// that sums over ranges do not depend on threads.
int64_t count_ranges(const Tensor& coefficients) {
  const int64_t count = std::max<int64_t>(1, coefficients.numel());
  return std::clamp<int64_t>((int64_t{1} << 19) / count, 8, 64);
}

// A list of entities, and the row of each entity of the graph in it.
struct RowOfEntity {
  const EntityList& list;
  std::vector<int64_t> row;  // -1 for entities that are not listed; empty without a list

  RowOfEntity(const char* name, const EntityList& list_in, int64_t entities) : list(list_in) {
    if (!list.ids) return;
    row.assign(static_cast<size_t>(entities), -1);
    const int64_t* p = list.data();
    for (int64_t i = 0; i < list.count; ++i) {
      int64_t& entry = row[static_cast<size_t>(p[i])];
      STD_TORCH_CHECK(entry < 0, kPropagate, name, " lists entity ", p[i], " twice");
      entry = i;
    }
  }

  const int64_t* map() const { return list.ids ? row.data() : nullptr; }

  // Segments of the edges of each row.
  Segments cut(const GraphDirection& direction) const {
    const int64_t* ptr = direction.ptr.const_data_ptr<int64_t>();
    const int64_t* id = list.data();
    return cut_rows(list.count, kLongest, [=](int64_t row) {
      const int64_t entity = id ? id[row] : row;
      return std::pair(ptr[entity], ptr[entity + 1]);
    });
  }
};

template <typename T>
cpu::Edges<T> edges_of(const GraphDirection& d, const RowOfEntity& other_rows) {
  return {d.other.const_data_ptr<int64_t>(), d.relation.const_data_ptr<int64_t>(),
          d.norm.const_data_ptr<T>(), other_rows.map()};
}

template <typename Work>
void over_ranges(const Segments& segments, int64_t ranges, Work work) {
  const std::vector<int64_t> bounds = even_bounds(segments.all, ranges);
  torch::stable::parallel_for(0, ranges, 1, [&](int64_t begin, int64_t end) {
    for (int64_t range = begin; range < end; ++range) {
      for (int64_t i = bounds[static_cast<size_t>(range)];
           i < bounds[static_cast<size_t>(range) + 1]; ++i) {
        work(segments.all[static_cast<size_t>(i)], range);
      }
    }
  });
}

template <typename T>
void finish_split(const Segments& segments, const Tensor& partial, int64_t width, T* out) {
  const T* parts = partial.const_data_ptr<T>();
  torch::stable::parallel_for(0, static_cast<int64_t>(segments.split.size()), 1,
                              [&](int64_t begin, int64_t end) {
                                for (int64_t i = begin; i < end; ++i) {
                                  cpu::sum_parts(parts, segments.split[static_cast<size_t>(i)],
                                                 width, out);
                                }
                              });
}

template <typename T>
void forward(const PropagateArguments& a, const RowOfEntity& rows, const RowOfEntity& sources) {
  const Segments segments = rows.cut(a.graph);
  const int64_t wide = a.out.size(1);
  const Tensor partial = torch::stable::new_empty(a.x, {segments.parts, wide});
  const cpu::PropagateTask<T> task{a.x.const_data_ptr<T>(),
                                   a.coefficients.const_data_ptr<T>(),
                                   a.coefficients.size(1),
                                   a.x.size(1),
                                   a.out.mutable_data_ptr<T>(),
                                   partial.mutable_data_ptr<T>()};
  const cpu::Edges<T> edges = edges_of<T>(a.graph, sources);
  if (edges.row) {
    for (const Segment& s : segments.all) {
      for (int64_t i = s.begin; i < s.end; ++i) {
        STD_TORCH_CHECK(edges.row[edges.other[i]] >= 0, kPropagate, "entity ", edges.other[i],
                        " has an edge into rows, but is missing from sources");
      }
    }
  }
  over_ranges(segments, 64,
              [&](const Segment& s, int64_t) { cpu::propagate_segment(task, edges, s); });
  finish_split(segments, partial, wide, task.out);
}

template <typename T>
void backward(const PropagateBackwardArguments& a, const RowOfEntity& rows,
              const RowOfEntity& sources) {
  const Segments segments = sources.cut(a.back);
  const int64_t width = a.x.size(1);
  const Tensor partial = torch::stable::new_empty(a.x, {segments.parts, width});
  const cpu::PropagateBackwardTask<T> task{
      a.grad.const_data_ptr<T>(),
      a.x.const_data_ptr<T>(),
      a.coefficients.const_data_ptr<T>(),
      a.coefficients.size(1),
      width,
      a.need_x ? a.d_x.mutable_data_ptr<T>() : nullptr,
      partial.mutable_data_ptr<T>(),
      a.need_coefficients};
  const cpu::Edges<T> edges = edges_of<T>(a.back, rows);
  const auto numbers = static_cast<size_t>(a.coefficients.numel());
  const int64_t ranges = count_ranges(a.coefficients);
  std::vector<double> sums(a.need_coefficients ? numbers * static_cast<size_t>(ranges) : 0);
  over_ranges(segments, ranges, [&](const Segment& s, int64_t range) {
    double* range_sums =
        a.need_coefficients ? sums.data() + static_cast<size_t>(range) * numbers : nullptr;
    cpu::propagate_segment_backward(task, edges, s, range_sums);
  });
  if (a.need_x) finish_split(segments, partial, width, task.d_x);
  if (!a.need_coefficients) return;
  T* out = a.d_coefficients.mutable_data_ptr<T>();
  for (size_t i = 0; i < numbers; ++i) {
    double sum = 0;
    for (size_t range = 0; range < static_cast<size_t>(ranges); ++range) {
      sum += sums[range * numbers + i];
    }
    out[i] = static_cast<T>(sum);
  }
}

struct Kernels {
  static void sum(const PropagateArguments& arguments) {
    const RowOfEntity rows("rows", arguments.rows, arguments.graph.entities);
    const RowOfEntity sources("sources", arguments.sources, arguments.graph.entities);
    with_real(arguments.x, [&]<typename T>() { forward<T>(arguments, rows, sources); });
  }

  static void gradients(const PropagateBackwardArguments& arguments) {
    const RowOfEntity rows("rows", arguments.rows, arguments.back.entities);
    const RowOfEntity sources("sources", arguments.sources, arguments.back.entities);
    if (!arguments.need_x && !arguments.need_coefficients) return;
    with_real(arguments.x, [&]<typename T>() { backward<T>(arguments, rows, sources); });
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, CPU, m) { RgcnPropagate<Kernels>::add_to(m); }

}  // namespace mmkgc
