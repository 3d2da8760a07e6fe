#include "filtered_negatives.h"

#include <algorithm>

#include "../common/philox.h"

namespace mmkgc::cpu {
namespace {

struct Row {
  const int64_t* begin;
  const int64_t* end;

  bool holds(int64_t id) const { return std::binary_search(begin, end, id); }
};

Row find_row(const KnownAnswers& known, int64_t key) {
  const int64_t* end = known.keys + known.rows;
  const int64_t* at = std::lower_bound(known.keys, end, key);
  if (at == end || *at != key) return {known.answers, known.answers};
  // Pointers are not checked as a whole, which would cost more than the draws: only held inside.
  const int64_t row = at - known.keys;
  const int64_t begin = std::clamp<int64_t>(known.ptr[row], 0, known.n_answers);
  const int64_t stop = std::clamp<int64_t>(known.ptr[row + 1], begin, known.n_answers);
  return {known.answers + begin, known.answers + stop};
}

}  // namespace

void draw_negatives(const NegativesTask& task, int64_t begin, int64_t end) {
  const int64_t first = task.with_positive ? 1 : 0, columns = task.n + first;
  for (int64_t b = begin; b < end; ++b) {
    const int64_t* p = task.positives + 3 * b;
    const int64_t head = p[0], relation = p[1], tail = p[2];
    const Row rows[2] = {find_row(task.tails, relation * task.entities + head),
                         find_row(task.heads, relation * task.entities + tail)};
    int64_t* ids = task.ids + b * columns;
    int8_t* sides = task.side + b * columns;
    bool* usable = task.usable + b * columns;
    if (task.with_positive) {
      ids[0] = tail;
      sides[0] = 0;
      usable[0] = true;
    }
    int8_t side = 0;
    for (int64_t i = 0; i < task.n; ++i) {
      const uint64_t position = static_cast<uint64_t>(b * task.n + i);
      for (int64_t round = 0; round < task.rounds; ++round) {
        // The counter: which draw of which step.
        const Random4 bits =
            philox(task.seed, position, (task.step << 8) | static_cast<uint64_t>(round));
        if (round == 0) {
          const bool anew = task.choice == SideChoice::per_negative || i == 0;
          if (task.choice == SideChoice::alternating) {
            side = static_cast<int8_t>(i & 1);
          } else if (anew) {
            side = unit_interval(bits.x[2], bits.x[3]) < task.head_share[relation] ? 1 : 0;
          }
        }
        const double u = unit_interval(bits.x[0], bits.x[1]);
        const int64_t id =
            std::min(static_cast<int64_t>(u * static_cast<double>(task.entities)), task.entities - 1);
        ids[first + i] = id;
        usable[first + i] = !rows[side].holds(id);
        if (usable[first + i]) break;
      }
      sides[first + i] = side;
    }
  }
}

}  // namespace mmkgc::cpu
