// mmkgc::filtered_negatives for either device; `Kernels` draws.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>

#include "../common/negatives.h"
#include "arguments.h"

namespace mmkgc {

// The known answers of one side; the task points into these tensors.
struct Known {
  Tensor keys, ptr, answers;

  Known(const char* op, const char* name, const Tensor& keys_in, const Tensor& ptr_in,
        const Tensor& answers_in) {
    check_index(op, name, keys_in);
    check_index(op, name, ptr_in);
    check_index(op, name, answers_in);
    const int64_t rows = keys_in.size(0);
    STD_TORCH_CHECK(ptr_in.size(0) == rows + 1, op, name, " has ", ptr_in.size(0),
                    " row pointers, expected ", rows + 1, " (keys + 1)");
    keys = torch::stable::contiguous(keys_in);
    ptr = torch::stable::contiguous(ptr_in);
    answers = torch::stable::contiguous(answers_in);
    if (!is_readable(ptr)) return;
    const int64_t* p = ptr.const_data_ptr<int64_t>();
    STD_TORCH_CHECK(p[0] == 0 && p[rows] == answers.size(0), op, name, " rows run from ", p[0],
                    " to ", p[rows], ", expected 0 to ", answers.size(0));
  }

  KnownAnswers view() const {
    return {keys.const_data_ptr<int64_t>(), ptr.const_data_ptr<int64_t>(),
            answers.const_data_ptr<int64_t>(), keys.size(0), answers.size(0)};
  }
};

// The arguments that are not tensors.
struct NegativesSettings {
  int64_t entities, n, choice, rounds;
  bool with_positive;
  int64_t seed, step;
};

// The arguments, checked and contiguous, and room for the results.
struct NegativesArguments {
  Tensor positives, head_share;
  Known tails, heads;
  Tensor ids, corrupted_side, mask;
  NegativesTask task;

  NegativesArguments(const char* op, const Tensor& positives_in, const Tensor& head_share_in,
                     const Known& tails_in, const Known& heads_in, const NegativesSettings& s)
      : tails(tails_in), heads(heads_in) {
    STD_TORCH_CHECK(positives_in.dim() == 2 && positives_in.size(1) == 3, op,
                    "positives must be [B, 3]");
    STD_TORCH_CHECK(positives_in.scalar_type() == ScalarType::Long, op, "positives must be int64");
    STD_TORCH_CHECK(head_share_in.dim() == 1 && head_share_in.scalar_type() == ScalarType::Float,
                    op, "head_share must be [R] float32");
    STD_TORCH_CHECK(s.n >= 0, op, "n is ", s.n, ", expected 0 or more");
    STD_TORCH_CHECK(s.choice >= 0 && s.choice <= 2, op, "choice is ", s.choice,
                    ", expected 0 (per negative), 1 (per positive) or 2 (alternating)");
    STD_TORCH_CHECK(s.rounds >= 1 && s.rounds <= 255, op, "rounds is ", s.rounds,
                    ", expected 1..255");
    positives = torch::stable::contiguous(positives_in);
    head_share = torch::stable::contiguous(head_share_in);
    const int64_t batch = positives.size(0);
    STD_TORCH_CHECK(s.entities > 0 || batch == 0, op, "entities is ", s.entities,
                    ", expected 1 or more");
    const int64_t* p = positives.const_data_ptr<int64_t>();
    for (int64_t i = 0; is_readable(positives) && i < 3 * batch; ++i) {
      const int64_t bound = i % 3 == 1 ? head_share.size(0) : s.entities;
      STD_TORCH_CHECK(p[i] >= 0 && p[i] < bound, op, "positives[", i, "] is ", p[i],
                      ", outside 0..", bound - 1);
    }
    const int64_t columns = s.n + (s.with_positive ? 1 : 0);
    ids = torch::stable::new_empty(positives, {batch, columns});
    corrupted_side = torch::stable::new_empty(positives, {batch, columns}, ScalarType::Char);
    mask = torch::stable::new_empty(positives, {batch, columns}, ScalarType::Bool);
    task = {p,
            head_share.const_data_ptr<float>(),
            tails.view(),
            heads.view(),
            batch,
            s.n,
            s.entities,
            head_share.size(0),
            s.rounds,
            static_cast<SideChoice>(s.choice),
            s.with_positive,
            static_cast<uint64_t>(s.seed),
            static_cast<uint64_t>(s.step),
            ids.mutable_data_ptr<int64_t>(),
            corrupted_side.mutable_data_ptr<int8_t>(),
            mask.mutable_data_ptr<bool>()};
  }
};

// `Kernels` has the static function draw(op, arguments, counter), which returns the order.
template <typename Kernels>
struct FilteredNegatives {
  static std::tuple<Tensor, Tensor, Tensor, Tensor> draw(
      const Tensor& positives, const Tensor& head_share, const Tensor& tail_keys,
      const Tensor& tail_ptr, const Tensor& tail_answers, const Tensor& head_keys,
      const Tensor& head_ptr, const Tensor& head_answers, int64_t entities, int64_t n,
      int64_t choice, int64_t rounds, bool with_positive, int64_t seed, int64_t step,
      std::optional<Tensor> counter) {
    constexpr const char* kOp = "filtered_negatives: ";
    check_devices(kOp,
                  {{"head_share", head_share},
                   {"tails", tail_keys},
                   {"tails", tail_ptr},
                   {"tails", tail_answers},
                   {"heads", head_keys},
                   {"heads", head_ptr},
                   {"heads", head_answers},
                   {"counter", counter}},
                  "positives", positives);
    check_counter(kOp, counter);
    const NegativesArguments arguments(kOp, positives, head_share,
                                       {kOp, "tails", tail_keys, tail_ptr, tail_answers},
                                       {kOp, "heads", head_keys, head_ptr, head_answers},
                                       {entities, n, choice, rounds, with_positive, seed, step});
    const Tensor order = Kernels::draw(kOp, arguments, counter);
    return {arguments.ids, arguments.corrupted_side, arguments.mask, order};
  }

  static void add_to(auto& library) {
    library.impl("filtered_negatives", TORCH_BOX(&FilteredNegatives::draw));
  }
};

}  // namespace mmkgc
