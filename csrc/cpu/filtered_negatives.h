// Negatives that are not known triples: plain pointers in, plain pointers out.
#pragma once

#include <cstdint>

namespace mmkgc::cpu {

// Known answers of one side: row i belongs to key keys[i] and holds answers[ptr[i]..ptr[i + 1]).
struct KnownAnswers {
  const int64_t* keys;     // [rows] ascending: relation * entities + known entity
  const int64_t* ptr;      // [rows + 1]
  const int64_t* answers;  // ascending within a row
  int64_t rows;
  int64_t n_answers;
};

// How the side of a negative is chosen; values are part of the op's schema.
enum class SideChoice : int64_t { per_negative = 0, per_positive = 1, alternating = 2 };

struct NegativesTask {
  const int64_t* positives;   // [batch, 3] head, relation, tail
  const float* head_share;    // [relations] how often the head is replaced
  KnownAnswers tails, heads;  // true tails of (relation, head), true heads of (relation, tail)
  int64_t batch;
  int64_t n;                  // negatives a positive
  int64_t entities;
  int64_t rounds;
  SideChoice choice;
  bool with_positive;         // column 0 is the positive's own tail
  uint64_t seed;
  uint64_t step;

  int64_t* ids;               // [batch, columns], columns = n + with_positive
  int8_t* side;
  bool* usable;
};

// Fills the rows [begin, end) of the batch.
void draw_negatives(const NegativesTask& task, int64_t begin, int64_t end);

}  // namespace mmkgc::cpu
