// Torch glue of mmkgc::rgcn_propagate and its backward on the CPU; the work is in cpu/.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "../../cpu/rgcn_propagate.h"
#include "../checks/rgcn_arguments.h"

namespace mmkgc {
namespace {

constexpr int64_t kLongest = 1024;  // edges of a segment

// Ranges of equal work. Each sums its own gradient of the coefficients, so there are fewer where those
// are many; their number follows from shapes alone, as sums over them must.
int64_t count_ranges(const Tensor& coefficients) {
  return std::clamp<int64_t>((int64_t{1} << 19) / std::max<int64_t>(1, coefficients.numel()), 8, 64);
}

// The entities that are listed, and where each of all entities stands among them.
struct Chosen {
  const EntityList& list;
  std::vector<int64_t> place;  // -1 where it has none; empty when all are there

  Chosen(const char* name, const EntityList& list_in, int64_t entities) : list(list_in) {
    if (!list.ids) return;
    place.assign(static_cast<size_t>(entities), -1);
    const int64_t* p = list.data();
    for (int64_t i = 0; i < list.count; ++i) {
      int64_t& at = place[static_cast<size_t>(p[i])];
      STD_TORCH_CHECK(at < 0, kPropagate, name, " lists entity ", p[i], " twice");
      at = i;
    }
  }

  const int64_t* map() const { return list.ids ? place.data() : nullptr; }

  // The edges of the entity behind row `row`.
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
cpu::Edges<T> edges_of(const GraphDirection& d, const Chosen& at_other_end) {
  return {d.other.const_data_ptr<int64_t>(), d.relation.const_data_ptr<int64_t>(),
          d.norm.const_data_ptr<T>(), at_other_end.map()};
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
void forward(const PropagateArguments& given, const Chosen& rows, const Chosen& sources) {
  const Segments segments = rows.cut(given.graph);
  const int64_t wide = given.out.size(1);
  const Tensor partial = torch::stable::new_empty(given.x, {segments.parts, wide});
  const cpu::PropagateTask<T> task{given.x.const_data_ptr<T>(),
                                   given.coefficients.const_data_ptr<T>(),
                                   given.coefficients.size(1),
                                   given.x.size(1),
                                   given.out.mutable_data_ptr<T>(),
                                   partial.mutable_data_ptr<T>()};
  const cpu::Edges<T> edges = edges_of<T>(given.graph, sources);
  if (edges.place) {
    for (const Segment& s : segments.all) {
      for (int64_t i = s.begin; i < s.end; ++i) {
        STD_TORCH_CHECK(edges.place[edges.other[i]] >= 0, kPropagate, "entity ", edges.other[i],
                        " is a source of the rows, but not among sources");
      }
    }
  }
  over_ranges(segments, 64,
              [&](const Segment& s, int64_t) { cpu::propagate_segment(task, edges, s); });
  finish_split(segments, partial, wide, task.out);
}

template <typename T>
void backward(const PropagateBackwardArguments& given, const Chosen& rows,
              const Chosen& sources) {
  const Segments segments = sources.cut(given.back);
  const int64_t width = given.x.size(1);
  const Tensor partial = torch::stable::new_empty(given.x, {segments.parts, width});
  const cpu::PropagateBackwardTask<T> task{
      given.grad.const_data_ptr<T>(),
      given.x.const_data_ptr<T>(),
      given.coefficients.const_data_ptr<T>(),
      given.coefficients.size(1),
      width,
      given.need_x ? given.d_x.mutable_data_ptr<T>() : nullptr,
      partial.mutable_data_ptr<T>(),
      given.need_coefficients};
  const cpu::Edges<T> edges = edges_of<T>(given.back, rows);
  const auto numbers = static_cast<size_t>(given.coefficients.numel());
  const int64_t ranges = count_ranges(given.coefficients);
  std::vector<double> sums(given.need_coefficients ? numbers * static_cast<size_t>(ranges) : 0);
  over_ranges(segments, ranges, [&](const Segment& s, int64_t range) {
    double* of_range =
        given.need_coefficients ? sums.data() + static_cast<size_t>(range) * numbers : nullptr;
    cpu::propagate_segment_backward(task, edges, s, of_range);
  });
  if (given.need_x) finish_split(segments, partial, width, task.d_x);
  if (!given.need_coefficients) return;
  T* out = given.d_coefficients.mutable_data_ptr<T>();
  for (size_t i = 0; i < numbers; ++i) {
    double sum = 0;
    for (size_t range = 0; range < static_cast<size_t>(ranges); ++range) {
      sum += sums[range * numbers + i];
    }
    out[i] = static_cast<T>(sum);
  }
}

Tensor rgcn_propagate(const Tensor& x, const Tensor& coefficients, const Tensor& ptr,
                      const Tensor& source, const Tensor& relation, const Tensor& norm,
                      const Tensor& back_ptr, const Tensor& back_target, const Tensor&,
                      const Tensor&, std::optional<Tensor> rows_in,
                      std::optional<Tensor> sources_in) {
  const PropagateArguments given(x, coefficients, ptr, source, relation, norm, back_ptr,
                                 back_target, rows_in, sources_in);
  const Chosen rows("rows", given.rows, given.graph.entities);
  const Chosen sources("sources", given.sources, given.graph.entities);
  const bool single = x.scalar_type() == ScalarType::Float;
  (single ? forward<float> : forward<double>)(given, rows, sources);
  return given.out;
}

std::tuple<Tensor, Tensor> rgcn_propagate_backward(
    const Tensor& grad, const Tensor& x, const Tensor& coefficients, const Tensor& back_ptr,
    const Tensor& back_target, const Tensor& back_relation, const Tensor& back_norm,
    std::optional<Tensor> rows_in, std::optional<Tensor> sources_in, bool need_x,
    bool need_coefficients) {
  const PropagateBackwardArguments given(grad, x, coefficients, back_ptr, back_target,
                                         back_relation, back_norm, rows_in, sources_in, need_x,
                                         need_coefficients);
  const Chosen rows("rows", given.rows, given.back.entities);
  const Chosen sources("sources", given.sources, given.back.entities);
  if (need_x || need_coefficients) {
    const bool single = x.scalar_type() == ScalarType::Float;
    (single ? backward<float> : backward<double>)(given, rows, sources);
  }
  return {given.d_x, given.d_coefficients};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, CPU, m) {
  m.impl("rgcn_propagate", TORCH_BOX(&rgcn_propagate));
  m.impl("rgcn_propagate_backward", TORCH_BOX(&rgcn_propagate_backward));
}

}  // namespace mmkgc
