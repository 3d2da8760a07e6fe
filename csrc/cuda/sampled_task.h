// Scores of sampled candidates and their gradients on a GPU, with pointer arguments. T is the dtype
// of the table, A = Accumulator<T> that of all other tensors.
#pragma once

#include <cstdint>

#include "../common/adam.h"
#include "../common/low_precision.h"
#include "../common/metric.h"

namespace mmkgc::cuda {

inline constexpr int kMaxPairs = 64;  // pairs are passed in the parameters of a kernel

template <typename A>
struct Terms {
  struct Term {
    int32_t query, candidate, width;
    A weight;
  };
  int32_t n;
  Term term[kMaxPairs];
};

// All arrays are dense and row-major.
template <typename T>
struct SampledTask {
  using A = Accumulator<T>;
  const char* op;
  const A* queries;    // [sides, batch, query_width]
  const T* table;      // [entities, candidate_width]
  const A* scale;      // [sides, batch, candidate_width] or nullptr
  const int64_t* ids;  // [batch, n]
  const int8_t* corrupted_side;  // [batch, n]
  int64_t sides;
  int64_t batch;
  int64_t n;
  int64_t entities;
  int64_t query_width;
  int64_t candidate_width;
  Metric metric;
  bool narrow;         // another tensor does not allow wide loads
  Terms<A> terms;
};

// Candidates in the order of their ids.
template <typename A>
struct SortedCandidates {
  const int64_t* order;   // [n] positions
  const int32_t* entity;  // [n] ascending
  const int32_t* where;   // [n] the query row (of sides * batch) of each candidate
  const int64_t* starts;  // [entities + 1] the start of each entity
  const A* grad;          // [n] d(loss) / d(score), in this order
  const A* factors;       // [pairs, n] under l2, in the order of the ids, or nullptr
  int64_t n;
};

// d(loss) / d(score), and under l2 this times the weight over the distance.
template <typename A>
struct ScoreGradient {
  const A* grad;     // [batch, n]
  const A* factors;  // [pairs, batch * n] under l2, or nullptr
};

// Additional gradient rows of entities: those of entity e are order[i] for
// starts[e] <= i < starts[e + 1].
template <typename A>
struct ExtraRows {
  const A* rows;  // [n, candidate_width] or nullptr
  const int64_t* order;
  const int64_t* starts;
};

// Adam on the rows of a table.
template <typename A>
struct AdamTask {
  AdamStep<A> step;
  const AdamStep<A>* device_step;  // replaces `step`, or nullptr
  A* table;                        // [entities, width], the same memory as the task's `table`
  A* mean;
  A* square;
  const A* dense;                  // [entities, width] gradient to add, or nullptr
  double* squares;                 // [count_squares] sums of squares of gradients
};

// The number of candidates of a run that one warp sums.
inline constexpr int64_t kPartLength = 128;

template <typename T>
void sampled_scores(const SampledTask<T>& task, Accumulator<T>* scores, void* stream);

// weight * grad / distance of each pair and candidate under l2, 0 at distance 0.
template <typename T>
void sampled_factors(const SampledTask<T>& task, const Accumulator<T>* grad,
                     Accumulator<T>* factors, void* stream);

template <typename T>
void query_gradient(const SampledTask<T>& task, const ScoreGradient<Accumulator<T>>& grad,
                    Accumulator<T>* d_queries, void* stream);

template <typename T>
void scale_gradient(const SampledTask<T>& task, const ScoreGradient<Accumulator<T>>& grad,
                    Accumulator<T>* d_scale, void* stream);

// `partial` is temporary memory of [divide_up(n, kPartLength), candidate_width].
template <typename T>
void table_gradient(const SampledTask<T>& task, const SortedCandidates<Accumulator<T>>& sorted,
                    const ExtraRows<Accumulator<T>>& extra, Accumulator<T>* partial, T* d_table,
                    void* stream);

// The same with an Adam step on each row after its gradient. If steps_in_two(task), no warp has all
// values for a column, and `gradient` is temporary memory of [entities, candidate_width].
template <typename A>
void table_adam(const SampledTask<A>& task, const SortedCandidates<A>& sorted,
                const ExtraRows<A>& extra, A* partial, A* gradient, const AdamTask<A>& adam,
                double* squares, void* stream);

// The Adam step that is `counter` steps later; `counter` is a number on the device.
template <typename A>
void adam_step_at(const char* op, const AdamSettings& settings, const int64_t* counter,
                  AdamStep<A>* step, void* stream);

template <typename A>
bool steps_in_two(const SampledTask<A>& task);

// The most sums of squares that the kernels of table_adam write.
template <typename A>
int64_t count_squares(const SampledTask<A>& task);

// Fills `entity`, `where` and `sorted` (the gradients) of sorted candidates from `order` and `grad`
// [batch, n].
template <typename T>
void describe_sorted(const SampledTask<T>& task, const int64_t* order, const Accumulator<T>* grad,
                     int32_t* entity, int32_t* where, Accumulator<T>* sorted, void* stream);

// starts[i] is the first position of `sorted` with a value of at least i, for i in 0..ids. `order`
// has the unsorted positions of the values; `name` is their name in messages.
template <typename Integer>
void run_starts(const char* op, const char* name, const Integer* sorted, const int64_t* order,
                int64_t n, int64_t ids, int64_t* starts, void* stream);

}  // namespace mmkgc::cuda
