// Checks and torch glue of mmkgc::rgcn_propagate and its backward; the work is in cpu/.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "common/arguments.h"
#include "cpu/rgcn_propagate.h"

namespace mmkgc {
namespace {

constexpr const char* kOp = "rgcn_propagate: ";
constexpr int64_t kLongest = 1024;  // edges of a segment

// Ranges of equal work. Each sums its own gradient of the coefficients, so there are fewer where those
// are many; their number follows from shapes alone, as sums over them must.
int64_t count_ranges(const Tensor& coefficients) {
  return std::clamp<int64_t>((int64_t{1} << 19) / std::max<int64_t>(1, coefficients.numel()), 8, 64);
}

// One direction of the graph: row pointers, the entity at the other end, relation and norm.
struct Direction {
  Tensor ptr, other, relation, norm;
  int64_t entities;

  Direction(const char* name, const Tensor& ptr_in, const Tensor& other_in,
            const Tensor& relation_in, const Tensor& norm_in, const Tensor& x) {
    check_index(kOp, name, ptr_in);
    check_index(kOp, name, other_in);
    check_index(kOp, name, relation_in);
    const int64_t edges = other_in.size(0);
    STD_TORCH_CHECK(ptr_in.size(0) >= 1, kOp, name, " has no row pointers");
    STD_TORCH_CHECK(relation_in.size(0) == edges && norm_in.dim() == 1 && norm_in.size(0) == edges,
                    kOp, name, " has ", edges, " edges, and relations or norms of another number");
    check_same_dtype(kOp, "norm", norm_in, "x", x);
    ptr = torch::stable::contiguous(ptr_in);
    other = torch::stable::contiguous(other_in);
    relation = torch::stable::contiguous(relation_in);
    norm = torch::stable::contiguous(norm_in);
    entities = ptr.size(0) - 1;
    const int64_t* p = ptr.const_data_ptr<int64_t>();
    STD_TORCH_CHECK(p[0] == 0 && p[entities] == edges, kOp, name, " rows run from ", p[0], " to ",
                    p[entities], ", expected 0 to ", edges);
    for (int64_t i = 0; i < entities; ++i) {
      STD_TORCH_CHECK(p[i] <= p[i + 1], kOp, name, " decreases at entry ", i + 1);
    }
    check_ids(kOp, name, other, entities);
  }
};

// Which entities the rows of a table stand for: all in order, or those that are listed.
struct Chosen {
  Tensor ids;
  int64_t count;
  std::vector<int64_t> place;  // of each entity, -1 where it has none; empty when all are there

  Chosen(const char* name, const std::optional<Tensor>& given, int64_t entities)
      : count(entities) {
    if (!given) return;
    check_index(kOp, name, *given);
    ids = torch::stable::contiguous(*given);
    check_ids(kOp, name, ids, entities);
    count = ids.size(0);
    place.assign(static_cast<size_t>(entities), -1);
    const int64_t* p = ids.const_data_ptr<int64_t>();
    for (int64_t i = 0; i < count; ++i) {
      int64_t& at = place[static_cast<size_t>(p[i])];
      STD_TORCH_CHECK(at < 0, kOp, name, " lists entity ", p[i], " twice");
      at = i;
    }
  }

  const int64_t* map() const { return place.empty() ? nullptr : place.data(); }

  // The edges of the entity behind row `row`.
  Segments cut(const Direction& direction) const {
    const int64_t* ptr = direction.ptr.const_data_ptr<int64_t>();
    const int64_t* id = place.empty() ? nullptr : ids.const_data_ptr<int64_t>();
    return cut_rows(count, kLongest, [=](int64_t row) {
      const int64_t entity = id ? id[row] : row;
      return std::pair(ptr[entity], ptr[entity + 1]);
    });
  }
};

void check_tables(const Tensor& x, const Tensor& coefficients) {
  check_matrix(kOp, "x", x);
  check_real(kOp, "x", x);
  check_matrix(kOp, "coefficients", coefficients);
  check_same_dtype(kOp, "coefficients", coefficients, "x", x);
}

void check_rows(const char* name, const Tensor& x, int64_t expected) {
  STD_TORCH_CHECK(x.size(0) == expected, kOp, name, " has ", x.size(0), " rows, expected ",
                  expected);
}

template <typename T>
cpu::Edges<T> edges_of(const Direction& d, const Chosen& at_other_end) {
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
void forward(const Tensor& x, const Tensor& coefficients, const Direction& graph,
             const Chosen& rows, const Chosen& sources, const Tensor& out) {
  const Segments segments = rows.cut(graph);
  const int64_t wide = out.size(1);
  const Tensor partial = torch::stable::new_empty(x, {segments.parts, wide});
  const cpu::PropagateTask<T> task{x.const_data_ptr<T>(), coefficients.const_data_ptr<T>(),
                                   coefficients.size(1),  x.size(1),
                                   out.mutable_data_ptr<T>(), partial.mutable_data_ptr<T>()};
  const cpu::Edges<T> edges = edges_of<T>(graph, sources);
  if (edges.place) {
    for (const Segment& s : segments.all) {
      for (int64_t i = s.begin; i < s.end; ++i) {
        STD_TORCH_CHECK(edges.place[edges.other[i]] >= 0, kOp, "entity ", edges.other[i],
                        " is a source of the rows, but not among sources");
      }
    }
  }
  over_ranges(segments, 64,
              [&](const Segment& s, int64_t) { cpu::propagate_segment(task, edges, s); });
  finish_split(segments, partial, wide, task.out);
}

template <typename T>
void backward(const Tensor& grad, const Tensor& x, const Tensor& coefficients,
              const Direction& back, const Chosen& rows, const Chosen& sources, const Tensor& d_x,
              const Tensor& d_coefficients, bool need_x, bool need_coefficients) {
  const Segments segments = sources.cut(back);
  const int64_t width = x.size(1);
  const Tensor partial = torch::stable::new_empty(x, {segments.parts, width});
  const cpu::PropagateBackwardTask<T> task{grad.const_data_ptr<T>(),
                                           x.const_data_ptr<T>(),
                                           coefficients.const_data_ptr<T>(),
                                           coefficients.size(1),
                                           width,
                                           need_x ? d_x.mutable_data_ptr<T>() : nullptr,
                                           partial.mutable_data_ptr<T>(),
                                           need_coefficients};
  const cpu::Edges<T> edges = edges_of<T>(back, rows);
  const auto numbers = static_cast<size_t>(coefficients.numel());
  const int64_t ranges = count_ranges(coefficients);
  std::vector<double> sums(need_coefficients ? numbers * static_cast<size_t>(ranges) : 0);
  over_ranges(segments, ranges, [&](const Segment& s, int64_t range) {
    cpu::propagate_segment_backward(
        task, edges, s,
        need_coefficients ? sums.data() + static_cast<size_t>(range) * numbers : nullptr);
  });
  if (need_x) finish_split(segments, partial, width, task.d_x);
  if (!need_coefficients) return;
  T* out = d_coefficients.mutable_data_ptr<T>();
  for (size_t i = 0; i < numbers; ++i) {
    double sum = 0;
    for (size_t range = 0; range < static_cast<size_t>(ranges); ++range) sum += sums[range * numbers + i];
    out[i] = static_cast<T>(sum);
  }
}

Tensor rgcn_propagate(const Tensor& x_in, const Tensor& coefficients_in, const Tensor& ptr,
                      const Tensor& source, const Tensor& relation, const Tensor& norm,
                      const Tensor& back_ptr, const Tensor& back_target,
                      const Tensor& back_relation, const Tensor& back_norm,
                      std::optional<Tensor> rows_in, std::optional<Tensor> sources_in) {
  check_tables(x_in, coefficients_in);
  const Direction graph("source", ptr, source, relation, norm, x_in);
  check_ids(kOp, "relation", graph.relation, coefficients_in.size(0));
  const Chosen rows("rows", rows_in, graph.entities);
  const Chosen sources("sources", sources_in, graph.entities);
  check_rows("x", x_in, sources.count);
  STD_TORCH_CHECK(back_ptr.numel() == ptr.numel() && back_target.numel() == source.numel(), kOp,
                  "the edges by source are not as many as those by receiver");
  const Tensor x = torch::stable::contiguous(x_in);
  const Tensor coefficients = torch::stable::contiguous(coefficients_in);
  const Tensor out =
      torch::stable::new_empty(x, {rows.count, coefficients.size(1) * x.size(1)});
  const bool single = x.scalar_type() == ScalarType::Float;
  (single ? forward<float> : forward<double>)(x, coefficients, graph, rows, sources, out);
  return out;
}

std::tuple<Tensor, Tensor> rgcn_propagate_backward(
    const Tensor& grad_in, const Tensor& x_in, const Tensor& coefficients_in,
    const Tensor& back_ptr, const Tensor& back_target, const Tensor& back_relation,
    const Tensor& back_norm, std::optional<Tensor> rows_in, std::optional<Tensor> sources_in,
    bool need_x, bool need_coefficients) {
  check_tables(x_in, coefficients_in);
  const Direction back("back_target", back_ptr, back_target, back_relation, back_norm, x_in);
  check_ids(kOp, "back_relation", back.relation, coefficients_in.size(0));
  const Chosen rows("rows", rows_in, back.entities);
  const Chosen sources("sources", sources_in, back.entities);
  check_rows("x", x_in, sources.count);
  check_matrix(kOp, "grad", grad_in);
  check_same_dtype(kOp, "grad", grad_in, "x", x_in);
  check_rows("grad", grad_in, rows.count);
  STD_TORCH_CHECK(grad_in.size(1) == coefficients_in.size(1) * x_in.size(1), kOp,
                  "grad has width ", grad_in.size(1), ", expected ",
                  coefficients_in.size(1) * x_in.size(1), " (bases times the width of x)");
  const Tensor grad = torch::stable::contiguous(grad_in);
  const Tensor x = torch::stable::contiguous(x_in);
  const Tensor coefficients = torch::stable::contiguous(coefficients_in);
  const Tensor d_x = need_x ? torch::stable::empty_like(x) : torch::stable::new_empty(x, {0});
  const Tensor d_coefficients = need_coefficients ? torch::stable::empty_like(coefficients)
                                                  : torch::stable::new_empty(x, {0});
  if (need_x || need_coefficients) {
    const bool single = x.scalar_type() == ScalarType::Float;
    (single ? backward<float> : backward<double>)(grad, x, coefficients, back, rows, sources, d_x,
                                                  d_coefficients, need_x, need_coefficients);
  }
  return {d_x, d_coefficients};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, CPU, m) {
  m.impl("rgcn_propagate", TORCH_BOX(&rgcn_propagate));
  m.impl("rgcn_propagate_backward", TORCH_BOX(&rgcn_propagate_backward));
}

}  // namespace mmkgc
