// Checks and torch glue of mmkgc::filtered_negatives; the work is in cpu/filtered_negatives.cpp.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <tuple>

#include "common/arguments.h"
#include "cpu/filtered_negatives.h"
#include "cpu/sampled_score.h"

namespace mmkgc {
namespace {

constexpr const char* kOp = "filtered_negatives: ";

// The arrays of one side, kept alive while the task points into them.
struct Known {
  Tensor keys, ptr, answers;

  Known(const char* name, const Tensor& keys_in, const Tensor& ptr_in, const Tensor& answers_in) {
    check_index(kOp, name, keys_in);
    check_index(kOp, name, ptr_in);
    check_index(kOp, name, answers_in);
    const int64_t rows = keys_in.size(0);
    STD_TORCH_CHECK(ptr_in.size(0) == rows + 1, kOp, name, " has ", ptr_in.size(0),
                    " row pointers, expected ", rows + 1, " (keys + 1)");
    keys = torch::stable::contiguous(keys_in);
    ptr = torch::stable::contiguous(ptr_in);
    answers = torch::stable::contiguous(answers_in);
    const int64_t* p = ptr.const_data_ptr<int64_t>();
    STD_TORCH_CHECK(p[0] == 0 && p[rows] == answers.size(0), kOp, name, " rows run from ", p[0],
                    " to ", p[rows], ", expected 0 to ", answers.size(0));
  }

  cpu::KnownAnswers view() const {
    return {keys.const_data_ptr<int64_t>(), ptr.const_data_ptr<int64_t>(),
            answers.const_data_ptr<int64_t>(), keys.size(0), answers.size(0)};
  }
};

std::tuple<Tensor, Tensor, Tensor, Tensor> filtered_negatives(
    const Tensor& positives_in, const Tensor& head_share_in, const Tensor& tail_keys,
    const Tensor& tail_ptr, const Tensor& tail_answers, const Tensor& head_keys,
    const Tensor& head_ptr, const Tensor& head_answers, int64_t entities, int64_t n,
    int64_t choice, int64_t rounds, bool with_positive, int64_t seed, int64_t step) {
  STD_TORCH_CHECK(positives_in.dim() == 2 && positives_in.size(1) == 3, kOp,
                  "positives must be [B, 3]");
  STD_TORCH_CHECK(positives_in.scalar_type() == ScalarType::Long, kOp, "positives must be int64");
  STD_TORCH_CHECK(head_share_in.dim() == 1 && head_share_in.scalar_type() == ScalarType::Float,
                  kOp, "head_share must be [R] float32");
  STD_TORCH_CHECK(n >= 0, kOp, "n is ", n, ", expected 0 or more");
  STD_TORCH_CHECK(choice >= 0 && choice <= 2, kOp, "choice is ", choice,
                  ", expected 0 (per negative), 1 (per positive) or 2 (alternating)");
  STD_TORCH_CHECK(rounds >= 1 && rounds <= 255, kOp, "rounds is ", rounds, ", expected 1..255");
  const Tensor positives = torch::stable::contiguous(positives_in);
  const Tensor head_share = torch::stable::contiguous(head_share_in);
  const int64_t batch = positives.size(0);
  STD_TORCH_CHECK(entities > 0 || batch == 0, kOp, "there are no entities to draw");
  const int64_t* p = positives.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < 3 * batch; ++i) {
    const int64_t bound = i % 3 == 1 ? head_share.size(0) : entities;
    STD_TORCH_CHECK(p[i] >= 0 && p[i] < bound, kOp, "positives[", i, "] is ", p[i],
                    ", outside 0..", bound - 1);
  }
  const Known tails("tails", tail_keys, tail_ptr, tail_answers);
  const Known heads("heads", head_keys, head_ptr, head_answers);

  const int64_t columns = n + (with_positive ? 1 : 0);
  const Tensor ids = torch::stable::new_empty(positives, {batch, columns});
  const Tensor side = torch::stable::new_empty(positives, {batch, columns}, ScalarType::Char);
  const Tensor usable = torch::stable::new_empty(positives, {batch, columns}, ScalarType::Bool);
  const Tensor order = torch::stable::new_empty(positives, {batch * columns});
  const cpu::NegativesTask task{
      p,
      head_share.const_data_ptr<float>(),
      tails.view(),
      heads.view(),
      batch,
      n,
      entities,
      rounds,
      static_cast<cpu::SideChoice>(choice),
      with_positive,
      static_cast<uint64_t>(seed),
      static_cast<uint64_t>(step),
      ids.mutable_data_ptr<int64_t>(),
      side.mutable_data_ptr<int8_t>(),
      usable.mutable_data_ptr<bool>()};
  torch::stable::parallel_for(0, batch, 32, [&](int64_t begin, int64_t end) {
    cpu::draw_negatives(task, begin, end);
  });
  std::vector<int64_t> starts(static_cast<size_t>(entities) + 1);
  cpu::sort_by_id(task.ids, batch * columns, entities, order.mutable_data_ptr<int64_t>(),
                  starts.data());
  return {ids, side, usable, order};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, CPU, m) {
  m.impl("filtered_negatives", TORCH_BOX(&filtered_negatives));
}

}  // namespace mmkgc
