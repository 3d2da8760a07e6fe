#include "filtered_negatives.h"

#include <algorithm>

#include "../common/clones.h"

namespace mmkgc::cpu {
namespace {

constexpr int64_t kBlock = 128;  // first draws per block

// The first draws of n positions from `position`: random numbers for sides and scaled ones for
// entities, in a loop that vectorises. Later rounds, for the few draws of known answers, are
// scalar.
MMKGC_CLONES void first_draws(uint64_t key, uint64_t position, uint64_t high, int64_t n,
                              double entities, double* chances, double* drawn) {
  for (int64_t i = 0; i < n; ++i) {
    const Random4 bits = philox(key, position + static_cast<uint64_t>(i), high);
    chances[i] = unit_interval(bits.x[2], bits.x[3]);
    drawn[i] = unit_interval(bits.x[0], bits.x[1]) * entities;
  }
}

}  // namespace

void draw_negatives(const NegativesTask& task, int64_t begin, int64_t end) {
  const int64_t first = task.with_positive ? 1 : 0, columns = task.n + first;
  const double entities = static_cast<double>(task.entities);
  for (int64_t b = begin; b < end; ++b) {
    const int64_t* p = task.positives + 3 * b;
    const int64_t head = p[0], relation = p[1], tail = p[2];
    const AnswerRow rows[2] = {find_answers(task.tails, relation * task.entities + head),
                               find_answers(task.heads, relation * task.entities + tail)};
    int64_t* ids = task.ids + b * columns;
    int8_t* sides = task.corrupted_side + b * columns;
    bool* mask = task.mask + b * columns;
    if (task.with_positive) {
      ids[0] = tail;
      sides[0] = 0;
      mask[0] = true;
    }
    int8_t side = 0;
    double chances[kBlock], drawn[kBlock];
    for (int64_t start = 0; start < task.n; start += kBlock) {
      const int64_t count = std::min(kBlock, task.n - start);
      const uint64_t position = static_cast<uint64_t>(b * task.n + start);
      first_draws(task.seed, position, counter_of(task.step, 0), count, entities, chances, drawn);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t column = first + start + i;
        if (task.choice == SideChoice::alternating) {
          side = static_cast<int8_t>((start + i) & 1);
        } else if (task.choice == SideChoice::per_negative || start + i == 0) {
          side = chances[i] < task.head_share[relation] ? 1 : 0;
        }
        const DrawnEntity entity = draw_until_unknown(
            rows[side], entity_at(drawn[i], task.entities), task.seed, task.step,
            position + static_cast<uint64_t>(i), task.rounds, task.entities);
        ids[column] = entity.id;
        sides[column] = side;
        mask[column] = entity.mask;
      }
    }
  }
}

}  // namespace mmkgc::cpu
