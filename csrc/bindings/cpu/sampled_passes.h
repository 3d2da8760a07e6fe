// The passes of sampled scoring on all threads: scores, gradients of queries and of the table.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "../../common/gradient.h"
#include "../../cpu/sampled_blocks.h"
#include "../../cpu/sampled_score.h"
#include "../arguments.h"

namespace mmkgc {

// Boundaries of `parts` ranges of the runs [first, last) with about as many candidates each.
template <typename T>
std::vector<int64_t> even_runs(const cpu::SampledTask<T>& task, int64_t first, int64_t last,
                               int64_t parts) {
  std::vector<int64_t> bounds{first};
  const int64_t begin = task.runs[first].begin, n = task.runs[last - 1].end - begin;
  for (int64_t part = 1; part < parts; ++part) {
    const cpu::Run* at = std::lower_bound(
        task.runs + first, task.runs + last, begin + n * part / parts,
        [](const cpu::Run& run, int64_t position) { return run.begin < position; });
    bounds.push_back(at - task.runs);
  }
  bounds.push_back(last);
  return bounds;
}

// Packed columns of one block at a time, in memory that is allocated once.
template <typename T>
class Packing {
 public:
  explicit Packing(const cpu::SampledTask<T>& task)
      : whole_(task),
        rows_(task.sides * task.batch),
        queries_(columns()),
        scales_(task.scale ? columns() : nullptr) {}

  // The task of a block, valid until the next call.
  cpu::BlockTask<T> operator()(const cpu::Block& block) {
    cpu::pack_rows(whole_.queries, rows_, whole_.query_width, block, false, queries_.get());
    if (whole_.scale) {
      cpu::pack_rows(whole_.scale, rows_, whole_.candidate_width, block, true, scales_.get());
    }
    return {whole_.table, whole_.candidate_width, block,          whole_.metric,
            whole_.runs,  whole_.where,           queries_.get(), scales_.get()};
  }

  // Memory for the packed columns of all query rows.
  std::unique_ptr<T[]> columns() const {
    return std::make_unique_for_overwrite<T[]>(static_cast<size_t>(rows_ * cpu::kBlock));
  }

 private:
  const cpu::SampledTask<T>& whole_;
  int64_t rows_;
  std::unique_ptr<T[]> queries_, scales_;
};

// The terms of the blocks in the sums of their pairs, for a tile of candidates in sorted order.
template <typename T>
struct Tile {
  int64_t begin, end;
  const std::vector<cpu::Block>& blocks;
  const T* terms;  // [blocks, end - begin]

  // The sum of a pair's blocks for the i-th candidate.
  T pair_sum(int64_t pair, int64_t i) const {
    T sum = 0;
    const T* term = terms + (i - begin);
    for (const cpu::Block& block : blocks) {
      if (block.pair == pair) sum += *term;
      term += end - begin;
    }
    return sum;
  }
};

// Calls `use(tile)` for tiles of whole runs, which have at most some tens of megabytes.
template <typename T, typename Use>
void each_tile(const cpu::SampledTask<T>& task, const std::vector<cpu::Block>& blocks, Use use) {
  const auto n_blocks = static_cast<int64_t>(blocks.size());
  const int64_t wanted =
      std::max<int64_t>(1 << 16, (int64_t{1} << 22) / std::max<int64_t>(1, n_blocks));
  // Narrow rows have few blocks, which are also cut by candidates, so that all threads have work.
  const int64_t parts = n_blocks >= 8 || n_blocks == 0 ? 1 : (7 + n_blocks) / n_blocks;
  std::unique_ptr<T[]> terms;
  int64_t room = -1;
  for (int64_t first = 0, last = 0; first < task.n_runs; first = last) {
    const int64_t begin = task.runs[first].begin;
    last = std::upper_bound(task.runs + first + 1, task.runs + task.n_runs, begin + wanted,
                            [](int64_t limit, const cpu::Run& run) { return limit < run.end; }) -
           task.runs;
    const int64_t end = task.runs[last - 1].end;
    if (n_blocks * (end - begin) > room) {
      room = n_blocks * (end - begin);
      terms = std::make_unique_for_overwrite<T[]>(static_cast<size_t>(room));
    }
    const std::vector<int64_t> bounds = even_runs(task, first, last, parts);
    torch::stable::parallel_for(0, n_blocks * parts, 1, [&](int64_t from, int64_t to) {
      Packing<T> packing(task);
      for (int64_t i = from; i < to; ++i) {
        const auto block = static_cast<size_t>(i / parts), part = static_cast<size_t>(i % parts);
        cpu::block_terms(packing(blocks[block]), bounds[part], bounds[part + 1], begin,
                         terms.get() + static_cast<int64_t>(block) * (end - begin));
      }
    });
    use(Tile<T>{begin, end, blocks, terms.get()});
  }
}

template <typename T>
void run_forward(cpu::SampledTask<T> task, const Tensor& scores) {
  task.scores = scores.mutable_data_ptr<T>();
  const std::vector<cpu::Block> blocks =
      cpu::make_blocks(task.pairs, task.n_pairs, task.metric);
  each_tile(task, blocks, [&](const Tile<T>& tile) {
    torch::stable::parallel_for(tile.begin, tile.end, 4096, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        T score = 0;
        for (int64_t pair = 0; pair < task.n_pairs; ++pair) {
          T sum = tile.pair_sum(pair, i);
          if (task.metric == Metric::l2) sum = std::sqrt(sum);
          const T weight = static_cast<T>(task.pairs[pair].weight);
          score += task.metric == Metric::dot ? weight * sum : -weight * sum;
        }
        task.scores[task.order[i]] = score;
      }
    });
  });
}

template <typename T>
void run_backward_queries(const cpu::SampledTask<T>& task) {
  const std::vector<cpu::Block> blocks =
      cpu::make_blocks(task.pairs, task.n_pairs, task.metric);
  const int64_t n = task.batch * task.n, rows = task.sides * task.batch;
  const bool scaled = task.scale != nullptr;
  // d(loss)/d(score) times the weight, and under l2 over the norm, [pairs, n] in sorted order.
  const auto grads = std::make_unique_for_overwrite<T[]>(static_cast<size_t>(task.n_pairs * n));
  for (int64_t pair = 0; pair < task.n_pairs; ++pair) {
    const T weight = static_cast<T>(task.pairs[pair].weight);
    for (int64_t i = 0; i < n; ++i) grads[pair * n + i] = weight * task.grad[task.order[i]];
  }
  if (task.metric == Metric::l2) {
    each_tile(task, blocks, [&](const Tile<T>& tile) {
      for (int64_t pair = 0; pair < task.n_pairs; ++pair) {
        for (int64_t i = tile.begin; i < tile.end; ++i) {
          const T squares = tile.pair_sum(pair, i);
          T& g = grads[pair * n + i];
          g = g / std::sqrt(at_least_normal(squares));
        }
      }
    });
  }
  std::fill_n(task.d_queries, rows * task.query_width, T(0));
  if (scaled) std::fill_n(task.d_scale, rows * task.candidate_width, T(0));
  // Blocks of one pair have no common columns. Pairs may have, and are processed one after another.
  size_t first = 0;
  for (int64_t pair = 0; pair < task.n_pairs; ++pair) {
    size_t last = first;
    while (last < blocks.size() && blocks[last].pair == pair) ++last;
    torch::stable::parallel_for(0, static_cast<int64_t>(last - first), 1,
                                [&](int64_t begin, int64_t end) {
      Packing<T> packing(task);
      const std::unique_ptr<T[]> dq = packing.columns();
      const std::unique_ptr<T[]> dw = scaled ? packing.columns() : nullptr;
      for (int64_t i = begin; i < end; ++i) {
        const cpu::Block& block = blocks[first + static_cast<size_t>(i)];
        std::fill_n(dq.get(), rows * cpu::kBlock, T(0));
        if (scaled) std::fill_n(dw.get(), rows * cpu::kBlock, T(0));
        cpu::block_query_gradient(packing(block), task.n_runs,
                                  grads.get() + pair * n, dq.get(), dw.get());
        cpu::unpack_rows(dq.get(), rows, task.query_width, block, false, task.d_queries);
        if (!scaled) continue;
        cpu::unpack_rows(dw.get(), rows, task.candidate_width, block, true, task.d_scale);
      }
    });
    first = last;
  }
}

// Calls `work(part, first, last)` for ranges of entities with equal work, so that entities with many
// candidates do not delay a thread. The ranges do not depend on the number of threads.
inline constexpr int64_t kTableParts = 128;

template <typename T, typename Work>
void over_table(const cpu::SampledTask<T>& task, Work work) {
  const int64_t parts = std::min(kTableParts, std::max<int64_t>(1, task.entities));
  std::vector<int64_t> bounds(static_cast<size_t>(parts) + 1);
  cpu::even_ranges(task.runs, task.n_runs, task.entities, parts, bounds.data());
  torch::stable::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      work(part, bounds[static_cast<size_t>(part)], bounds[static_cast<size_t>(part) + 1]);
    }
  });
}

template <typename T>
void run_backward_table(const cpu::SampledTask<T>& task) {
  over_table(task, [&](int64_t, int64_t first, int64_t last) {
    cpu::sampled_backward_table(task, first, last);
  });
}

}  // namespace mmkgc
