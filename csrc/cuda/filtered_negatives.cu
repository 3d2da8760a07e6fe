// Negatives that are not known triples: one thread per draw.
#include "filtered_negatives.h"

#include "check.h"
#include "warp.h"

namespace mmkgc::cuda {
namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads)
    draw(const NegativesTask task, const int64_t* counter, int32_t* keys) {
  const int64_t first = task.with_positive ? 1 : 0, columns = task.n + first;
  const int64_t at = thread_index();
  if (at >= task.batch * columns) return;
  const int64_t b = at / columns, column = at - b * columns;
  const int64_t* p = task.positives + 3 * b;
  const int64_t head = p[0], relation = p[1], tail = p[2];
  MMKGC_CHECK_ID("filtered_negatives: ", "positives", 3 * b, head, task.entities);
  MMKGC_CHECK_ID("filtered_negatives: ", "positives", 3 * b + 1, relation, task.relations);
  MMKGC_CHECK_ID("filtered_negatives: ", "positives", 3 * b + 2, tail, task.entities);
  if (column < first) {
    task.ids[at] = tail;
    if (keys) keys[at] = static_cast<int32_t>(tail);
    task.corrupted_side[at] = 0;
    task.mask[at] = true;
    return;
  }
  const uint64_t step = task.step + (counter ? static_cast<uint64_t>(*counter) : 0);
  const int64_t i = column - first;
  const auto position = static_cast<uint64_t>(b * task.n + i);
  const Random4 bits = philox(task.seed, position, counter_of(step, 0));
  int8_t side = static_cast<int8_t>(i & 1);
  if (task.choice != SideChoice::alternating) {
    double chance = unit_interval(bits.x[2], bits.x[3]);
    if (task.choice == SideChoice::per_positive) {
      // The random number of the first negative of the row decides for all of them.
      const auto of_row = static_cast<uint64_t>(b * task.n);
      const Random4 firsts = philox(task.seed, of_row, counter_of(step, 0));
      chance = unit_interval(firsts.x[2], firsts.x[3]);
    }
    side = chance < task.head_share[relation] ? 1 : 0;
  }
  const AnswerRow known = side ? find_answers(task.heads, relation * task.entities + tail)
                               : find_answers(task.tails, relation * task.entities + head);
  const double scaled =
      unit_interval(bits.x[0], bits.x[1]) * static_cast<double>(task.entities);
  const DrawnEntity entity =
      draw_until_unknown(known, entity_at(scaled, task.entities), task.seed, step, position,
                         task.rounds, task.entities);
  task.ids[at] = entity.id;
  if (keys) keys[at] = static_cast<int32_t>(entity.id);
  task.corrupted_side[at] = side;
  task.mask[at] = entity.mask;
}

}  // namespace

void draw_negatives(const char* op, const NegativesTask& task, const int64_t* counter,
                    int32_t* keys, void* stream) {
  const int64_t columns = task.n + (task.with_positive ? 1 : 0);
  launch(op, draw, {blocks_for(task.batch * columns, kThreads), kThreads}, stream, task, counter,
         keys);
}

}  // namespace mmkgc::cuda
