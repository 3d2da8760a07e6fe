// Drawing one negative as a function of the seed, the step, its position and the known triples.
#pragma once

#include <cstdint>

#include "mapping.h"
#include "philox.h"

namespace mmkgc {

// Known answers of one side: row i has the key keys[i] and the answers [ptr[i], ptr[i + 1]).
struct KnownAnswers {
  const int64_t* keys;     // [rows] ascending: relation * entities + known entity
  const int64_t* ptr;      // [rows + 1]
  const int64_t* answers;  // ascending within a row
  int64_t rows;
  int64_t n_answers;
};

// How the corrupted side is chosen; the values are part of the schema.
enum class SideChoice : int64_t { per_negative = 0, per_positive = 1, alternating = 2 };

// The answers of one key.
struct AnswerRow {
  const int64_t* begin;
  int64_t n;

  MMKGC_HD bool contains(int64_t id) const {
    const int64_t at = lower_bound(begin, n, id);
    return at < n && begin[at] == id;
  }
};

MMKGC_HD AnswerRow find_answers(const KnownAnswers& known, int64_t key) {
  const int64_t row = lower_bound(known.keys, known.rows, key);
  if (row == known.rows || known.keys[row] != key) return {known.answers, 0};
  // Pointers are clamped to their range, since checking all of them would take longer than drawing.
  const auto clamped = [&](int64_t x, int64_t least) {
    return x < least ? least : x > known.n_answers ? known.n_answers : x;
  };
  const int64_t begin = clamped(known.ptr[row], 0), end = clamped(known.ptr[row + 1], begin);
  return {known.answers + begin, end - begin};
}

// The upper half of the counter: the step and the round.
MMKGC_HD uint64_t counter_of(uint64_t step, int64_t round) {
  return (step << 8) | static_cast<uint64_t>(round);
}

// The entity of a random number in [0, 1) that was scaled by the number of entities.
MMKGC_HD int64_t entity_at(double scaled, int64_t entities) {
  const auto id = static_cast<int64_t>(scaled);
  return id < entities ? id : entities - 1;
}

// An entity, and whether it is not a known answer.
struct DrawnEntity {
  int64_t id;
  bool mask;
};

// Replaces the first draw `id` at `position` until it is not a known answer, or for `rounds`
// attempts.
MMKGC_HD DrawnEntity draw_until_unknown(const AnswerRow& known, int64_t id, uint64_t seed,
                                        uint64_t step, uint64_t position, int64_t rounds,
                                        int64_t entities) {
  bool is_known = known.contains(id);
  for (int64_t round = 1; is_known && round < rounds; ++round) {
    const Random4 bits = philox(seed, position, counter_of(step, round));
    const double share = unit_interval(bits.x[0], bits.x[1]);
    id = entity_at(share * static_cast<double>(entities), entities);
    is_known = known.contains(id);
  }
  return {id, !is_known};
}

// The inputs and outputs of filtered_negatives. All arrays are dense and row-major.
struct NegativesTask {
  const int64_t* positives;   // [batch, 3] head, relation, tail
  const float* head_share;    // [relations] probability that the head is replaced
  KnownAnswers tails, heads;  // true tails of (relation, head), true heads of (relation, tail)
  int64_t batch;
  int64_t n;                  // negatives per positive
  int64_t entities;
  int64_t relations;
  int64_t rounds;
  SideChoice choice;
  bool with_positive;         // column 0 is the positive's own tail
  uint64_t seed;
  uint64_t step;

  int64_t* ids;               // [batch, columns], columns = n + with_positive
  int8_t* corrupted_side;
  bool* mask;
};

}  // namespace mmkgc
