// Tiles of scores are computed in registers as in a matrix product, compared with the scores of the
// targets and discarded.
//
// Counts are sums of integers, so that the order of the atomic additions does not matter.
#include "rank_candidates.h"

#include <limits>

#include "../common/tiles.h"
#include "check.h"
#include "warp.h"

namespace mmkgc::cuda {
namespace {

constexpr int kThreads = 128;  // of the kernel with one thread per target

// Compares false with every number and is not counted.
template <typename T>
constexpr T kMasked = std::numeric_limits<T>::quiet_NaN();

__device__ __forceinline__ void add_count(int64_t* at, int n) {
  static_assert(sizeof(int64_t) == sizeof(unsigned long long));
  if (n) {
    atomicAdd(reinterpret_cast<unsigned long long*>(at), static_cast<unsigned long long>(n));
  }
}

// The remaining part of a query's filter row.
struct Filter {
  const int64_t* ids;
  int64_t n;

  template <typename T>
  __device__ __forceinline__ void mask(int64_t candidate, T* scores) {
    for (; n > 0 && *ids < candidate + kTile; ++ids, --n) {
      // Rows are not checked to be ascending.
      if (*ids >= candidate) scores[*ids - candidate] = kMasked<T>;
    }
  }
};

template <typename Table>
__device__ __forceinline__ Filter filter_from(const RankTask<Table>& task, int64_t query,
                                              int64_t candidate) {
  const int64_t* const ids = task.filter_ids + task.filter_ptr[query];
  const int64_t n = task.filter_ptr[query + 1] - task.filter_ptr[query];
  const int64_t passed = lower_bound(ids, n, candidate);
  return {ids + passed, n - passed};
}

// Computes the scores of the targets, by the sequence of operations of a tile, and initialises the
// counts. One thread per target and per query.
template <Metric M, bool Scaled, typename Table>
__global__ void __launch_bounds__(kThreads)
    score_targets(const RankTask<Table> task, const Terms<Accumulator<Table>> terms,
                  const TargetRoom<Accumulator<Table>> room) {
  using T = Accumulator<Table>;
  const int64_t at = thread_index();
  if (at < task.n_queries) {
    task.nonfinite[at] = 0;
    for (int64_t i = at; i < at + 2; ++i) {
      MMKGC_CHECK_ID("rank_candidates: ", "target_ptr", i, task.target_ptr[i], task.n_targets + 1);
      MMKGC_CHECK_ID("rank_candidates: ", "filter_ptr", i, task.filter_ptr[i], task.n_filtered + 1);
    }
    for (int64_t i = task.filter_ptr[at]; i < task.filter_ptr[at + 1]; ++i) {
      MMKGC_CHECK_ID("rank_candidates: ", "filter_ids", i, task.filter_ids[i], task.n_candidates);
    }
  }
  if (at >= task.n_targets) return;
  const int64_t target = task.target_ids[at];
  const int64_t query = upper_bound(task.target_ptr, task.n_queries + 1, at) - 1;
  MMKGC_CHECK_ID("rank_candidates: ", "target_ids", at, target, task.n_candidates);
  MMKGC_CHECK_ID("rank_candidates: ", "queries of target_ids", at, query, task.n_queries);
  const T* const q_row = task.queries + query * task.query_width;
  const T* const w_row = Scaled ? task.scale + query * task.candidate_width : nullptr;
  const Table* const c_row = task.table + target * task.candidate_width;
  T score = 0;
  for (int i = 0; i < terms.n; ++i) {
    const Term<T>& term = terms.at[i];
    T sum = 0;
    for (int column = 0; column < term.columns; ++column) {
      T q[kParts<M>], w[kParts<M>], c[kParts<M>];
#pragma unroll
      for (int part = 0; part < kParts<M>; ++part) {
        const int offset = part * term.columns + column;
        q[part] = q_row[term.query + offset];
        w[part] = Scaled ? w_row[term.candidate + offset] : T(1);
        c[part] = to_float(c_row[term.candidate + offset]);
      }
      sum = add_column<M, Scaled>(sum, q, w, c);
    }
    score = add_term<M>(score, term.weight, sum);
  }
  room.scores[at] = score;
  room.rows[at] = static_cast<int8_t>(query % kTile);
  task.better[at] = 0;
  // The comparison includes the target itself unless it is filtered.
  const Filter ahead = filter_from(task, query, target);
  task.equal[at] = ahead.n > 0 && *ahead.ids == target ? 0 : -1;
}

// Four numbers in one read of shared memory.
template <typename T>
struct alignas(16) Four {
  T x[kOwn];
};

// Columns of a tile: of queries, of candidates, and of the scales of queries.
template <Metric M, bool Scaled, typename T>
struct Stage {
  T q[kParts<M>][kChunk<T>][kTileStride<T>];
  T c[kParts<M>][kChunk<T>][kTileStride<T>];
  T w[Scaled ? kParts<M> : 1][Scaled ? kChunk<T> : 1][kTileStride<T>];
};

// The shared memory of a block.
template <Metric M, bool Scaled, typename T>
union Memory {
  alignas(16) Stage<M, Scaled, T> stage;
  T scores[kTile][kTileStride<T>];
};

// The rows of a tile in global memory. Offsets within them have 32 bits.
template <typename Table>
struct TileRows {
  using T = Accumulator<Table>;
  const T* q;
  const Table* c;
  const T* w;
  int last_q;
  int last_c;
};

// The part of a chunk of columns that a thread copies from global to shared memory.
template <Metric M, bool Scaled, typename Table>
struct Fetched {
  using T = Accumulator<Table>;
  static constexpr int kCount = ChunkPlace<T>::kCount;
  T q[kParts<M>][kCount];
  Table c[kParts<M>][kCount];
  T w[kParts<M>][kCount];

  __device__ __forceinline__ void fetch(const RankTask<Table>& task, const TileRows<Table>& rows,
                                        const Term<T>& term, int column) {
    const ChunkPlace<T> mine(static_cast<int>(threadIdx.x));
    if (column + mine.column >= term.columns) return;
    const auto q_width = static_cast<unsigned>(task.query_width);
    const auto c_width = static_cast<unsigned>(task.candidate_width);
#pragma unroll
    for (int part = 0; part < kParts<M>; ++part) {
      const int at = part * term.columns + column + mine.column;
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        // Rows beyond the last row repeat it; their scores are not counted.
        const int row = mine.row + i * ChunkPlace<T>::kStep;
        const unsigned q_row = row < rows.last_q ? row : rows.last_q;
        const unsigned c_row = row < rows.last_c ? row : rows.last_c;
        q[part][i] = rows.q[q_row * q_width + (term.query + at)];
        c[part][i] = rows.c[c_row * c_width + (term.candidate + at)];
        if constexpr (Scaled) w[part][i] = rows.w[q_row * c_width + (term.candidate + at)];
      }
    }
  }

  __device__ __forceinline__ void store(Stage<M, Scaled, T>* stage) const {
    const ChunkPlace<T> mine(static_cast<int>(threadIdx.x));
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int row = mine.row + i * ChunkPlace<T>::kStep;
#pragma unroll
      for (int part = 0; part < kParts<M>; ++part) {
        stage->q[part][mine.column][row] = q[part][i];
        stage->c[part][mine.column][row] = to_float(c[part][i]);
        if constexpr (Scaled) stage->w[part][mine.column][row] = w[part][i];
      }
    }
  }
};

// Adds the first `n` staged columns to the sums of a thread.
template <Metric M, bool Scaled, typename T>
__device__ __forceinline__ void add_columns(const Stage<M, Scaled, T>& stage, const TilePlace& mine,
                                            int n, T (&sum)[kOwn][kOwn]) {
  const auto four = [](const T* x) { return *reinterpret_cast<const Four<T>*>(x); };
#pragma unroll 2
  for (int k = 0; k < n; ++k) {
    Four<T> q[kParts<M>], w[kParts<M>], c[kParts<M>];
#pragma unroll
    for (int part = 0; part < kParts<M>; ++part) {
      q[part] = four(&stage.q[part][k][mine.query]);
      c[part] = four(&stage.c[part][k][mine.candidate]);
      if constexpr (Scaled) w[part] = four(&stage.w[part][k][mine.query]);
    }
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
#pragma unroll
      for (int j = 0; j < kOwn; ++j) {
        T qs[kParts<M>], ws[kParts<M>], cs[kParts<M>];
#pragma unroll
        for (int part = 0; part < kParts<M>; ++part) {
          qs[part] = q[part].x[i];
          ws[part] = Scaled ? w[part].x[i] : T(1);
          cs[part] = c[part].x[j];
        }
        sum[i][j] = add_column<M, Scaled>(sum[i][j], qs, ws, cs);
      }
    }
  }
}

// The sum over the threads of the same query, or of the same target.
__device__ __forceinline__ int sum_together(int x) {
#pragma unroll
  for (int offset = 1; offset < kTogether; offset *= 2) {
    x += __shfl_xor_sync(kAllLanes, x, offset);
  }
  return x;
}

// Scores of candidates beyond the last are masked.
template <typename T>
__device__ __forceinline__ void put_scores(const T (&score)[kOwn][kOwn], const TilePlace& mine,
                                           int candidates, T (*scores)[kTileStride<T>]) {
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    Four<T> four;
#pragma unroll
    for (int j = 0; j < kOwn; ++j) {
      four.x[j] = mine.candidate + j < candidates ? score[i][j] : kMasked<T>;
    }
    *reinterpret_cast<Four<T>*>(&scores[mine.query + i][mine.candidate]) = four;
  }
}

// The number of non-finite scores of a query, in all threads of the query.
template <typename T>
__device__ __forceinline__ int count_nonfinite(const T (*scores)[kTileStride<T>], int candidates) {
  const int of_query = static_cast<int>(threadIdx.x) / kTogether;
  const int part = static_cast<int>(threadIdx.x) % kTogether;
  int bad = 0;
#pragma unroll
  for (int i = 0; i < kTile; i += kTogether) {
    bad += part + i < candidates && !std::isfinite(scores[of_query][part + i]);
  }
  return sum_together(bad);
}

// Compares the scores of a tile with those of the targets [t0, t1) of its queries.
template <typename Table, typename T>
__device__ __forceinline__ void count_tile(const RankTask<Table>& task, const TargetRoom<T>& room,
                                           int64_t t0, int64_t t1,
                                           const T (*scores)[kTileStride<T>]) {
  const int of_target = static_cast<int>(threadIdx.x) / kTogether;
  const int part = static_cast<int>(threadIdx.x) % kTogether;
  // All threads have the same number of iterations, since they sum together.
  for (; t0 < t1; t0 += kTile) {
    const int64_t t = t0 + of_target;
    const bool inside = t < t1;
    const T own = inside ? room.scores[t] : kMasked<T>;
    const int row = inside ? room.rows[t] : 0;
    int above = 0, same = 0;
#pragma unroll
    for (int i = 0; i < kTile; i += kTogether) {
      const T score = scores[row][part + i];
      above += score > own;
      same += score == own;
    }
    above = sum_together(above);
    same = sum_together(same);
    if (inside && part == 0) {
      add_count(task.better + t, above);
      add_count(task.equal + t, same);
    }
  }
}

// Scores a range of candidates against a tile of queries.
template <Metric M, bool Scaled, typename Table>
__global__ void __launch_bounds__(kTileThreads, sizeof(Accumulator<Table>) == 4 ? 2 : 1)
    sweep(const RankTask<Table> task, const Terms<Accumulator<Table>> terms,
          const TargetRoom<Accumulator<Table>> room) {
  using T = Accumulator<Table>;
  __shared__ Memory<M, Scaled, T> memory;
  const TileGrid::Place place = TileGrid{task.n_queries, task.n_candidates}.place(blockIdx.x);
  const TilePlace mine = place_in_tile(static_cast<int>(threadIdx.x));
  const int of_query = static_cast<int>(threadIdx.x) / kTogether;
  const bool first_of_query = threadIdx.x % kTogether == 0;
  const int64_t query = place.query + of_query;
  const int queries = rows_of_tile(place.query, task.n_queries);
  const int64_t first_target = task.target_ptr[place.query];
  const int64_t targets_end = task.target_ptr[place.query + queries];
  Filter filter{nullptr, 0};
  if (first_of_query && query < task.n_queries) filter = filter_from(task, query, place.candidate);
  TileRows<Table> rows{task.queries + place.query * task.query_width,
                       task.table + place.candidate * task.candidate_width,
                       Scaled ? task.scale + place.query * task.candidate_width : nullptr,
                       queries - 1, rows_of_tile(place.candidate, place.candidates_end) - 1};
  Fetched<M, Scaled, Table> fetched{};
  if (terms.n > 0) fetched.fetch(task, rows, terms.at[0], 0);
  for (int64_t candidate = place.candidate; candidate < place.candidates_end; candidate += kTile) {
    const int candidates = rows_of_tile(candidate, place.candidates_end);
    const int64_t next = candidate + kTile;
    T score[kOwn][kOwn] = {};
    for (int i = 0; i < terms.n; ++i) {
      const int columns = terms.at[i].columns;
      T sum[kOwn][kOwn] = {};
      for (int column = 0; column < columns; column += kChunk<T>) {
        __syncthreads();
        fetched.store(&memory.stage);
        __syncthreads();
        // The next chunk is loaded during the work on this one.
        int term = i, from = column + kChunk<T>;
        if (from >= columns) {
          from = 0;
          term = i + 1 < terms.n ? i + 1 : 0;
          if (term == 0) {
            rows.c += kTile * task.candidate_width;
            rows.last_c = rows_of_tile(next, place.candidates_end) - 1;
          }
        }
        if (rows.last_c >= 0) fetched.fetch(task, rows, terms.at[term], from);
        const int left = columns - column;
        add_columns(memory.stage, mine, left < kChunk<T> ? left : kChunk<T>, sum);
      }
#pragma unroll
      for (int a = 0; a < kOwn; ++a) {
#pragma unroll
        for (int b = 0; b < kOwn; ++b) {
          score[a][b] = add_term<M>(score[a][b], terms.at[i].weight, sum[a][b]);
        }
      }
    }
    __syncthreads();
    put_scores(score, mine, candidates, memory.scores);
    __syncthreads();
    const int bad = count_nonfinite(memory.scores, candidates);
    if (first_of_query && query < task.n_queries) add_count(task.nonfinite + query, bad);
    __syncwarp();
    filter.mask(candidate, memory.scores[of_query]);
    __syncthreads();
    count_tile(task, room, first_target, targets_end, memory.scores);
  }
}

template <Metric M, bool Scaled, typename Table>
void run(const char* op, const RankTask<Table>& task, const TargetRoom<Accumulator<Table>>& room,
         void* stream) {
  const auto terms = terms_of<Accumulator<Table>>(task.metric, task.pairs, task.n_pairs);
  const int64_t threads = task.n_queries > task.n_targets ? task.n_queries : task.n_targets;
  launch(op, score_targets<M, Scaled, Table>, {blocks_for(threads, kThreads), kThreads}, stream,
         task, terms, room);
  const TileGrid grid{task.n_queries, task.n_candidates};
  launch(op, sweep<M, Scaled, Table>, {grid.blocks(), kTileThreads}, stream, task, terms, room);
}

template <Metric M, typename Table>
void run(const char* op, const RankTask<Table>& task, const TargetRoom<Accumulator<Table>>& room,
         void* stream) {
  const auto run_all = task.scale ? run<M, true, Table> : run<M, false, Table>;
  run_all(op, task, room, stream);
}

}  // namespace

template <typename Table>
void rank_candidates(const char* op, const RankTask<Table>& task,
                     const TargetRoom<Accumulator<Table>>& room, void* stream) {
  switch (task.metric) {
    case Metric::dot: return run<Metric::dot>(op, task, room, stream);
    case Metric::l1: return run<Metric::l1>(op, task, room, stream);
    case Metric::l2: return run<Metric::l2>(op, task, room, stream);
    case Metric::modulus: return run<Metric::modulus>(op, task, room, stream);
  }
}

#define MMKGC_RANK(Table)                                                   \
  template void rank_candidates<Table>(const char*, const RankTask<Table>&, \
                                       const TargetRoom<Accumulator<Table>>&, void*);
MMKGC_RANK(float)
MMKGC_RANK(double)
MMKGC_RANK(Half)
MMKGC_RANK(BFloat16)

}  // namespace mmkgc::cuda
