// The losses for either device: their settings, checked, their arguments, and the ops.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "../common/losses.h"
#include "arguments.h"

namespace mmkgc {

// Settings are doubles since `settings` of the schemas is; a value between two constants of an enum
// is an error.
inline bool is_one_of_three(double value) { return value == 0 || value == 1 || value == 2; }

struct SelfAdversarialSettings {
  double temperature, form, margin;

  static constexpr size_t kCount = 3;

  static SelfAdversarialSettings unpack(const std::vector<double>& s) { return {s[0], s[1], s[2]}; }

  void check(const char* op) const {
    STD_TORCH_CHECK(is_one_of_three(form), op, "form is ", form,
                    ", expected 0 (log_sigmoid), 1 (margin_inside) or 2 (margin_outside)");
  }

  template <typename T>
  SelfAdversarialTask<T> task(const LossRows<T>& rows) const {
    return {rows, static_cast<T>(temperature), static_cast<T>(margin),
            static_cast<AdversarialForm>(form)};
  }
};

struct EntropyWeightedSettings {
  double easy_above, hard_upto, easy, ambiguous, hard, reduction, temperature, one_sided;

  static constexpr size_t kCount = 8;

  static EntropyWeightedSettings unpack(const std::vector<double>& s) {
    return {s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]};
  }

  void check(const char* op) const {
    STD_TORCH_CHECK(easy_above >= hard_upto, op, "easy_above is ", easy_above,
                    ", expected at least hard_upto, which is ", hard_upto);
    STD_TORCH_CHECK(is_one_of_three(reduction), op, "reduction is ", reduction,
                    ", expected 0 (mean), 1 (sum) or 2 (self_adversarial)");
  }

  template <typename T>
  EntropyWeightedTask<T> task(const LossRows<T>& rows) const {
    return {rows,
            static_cast<T>(easy_above),
            static_cast<T>(hard_upto),
            static_cast<T>(easy),
            static_cast<T>(ambiguous),
            static_cast<T>(hard),
            static_cast<T>(temperature),
            static_cast<NegativeReduction>(reduction),
            one_sided != 0};
  }
};

// Bool tensors [B, N], dense within a row.
inline Tensor dense_rows(const Tensor& x) {
  return x.stride(1) == 1 ? x : torch::stable::contiguous(x);
}

inline std::optional<Tensor> checked_mask(const char* op, const std::optional<Tensor>& mask,
                                          const char* other_name, const Tensor& y) {
  if (!mask) return std::nullopt;
  STD_TORCH_CHECK(mask->dim() == 2 && mask->size(0) == y.size(0) && mask->size(1) == y.size(1), op,
                  "mask must have the shape of ", other_name);
  STD_TORCH_CHECK(mask->scalar_type() == ScalarType::Bool, op, "mask must be bool");
  return dense_rows(*mask);
}

// Kernels read bytes, since loops over bool do not vectorise.
inline const uint8_t* mask_bytes(const std::optional<Tensor>& mask) {
  return mask ? reinterpret_cast<const uint8_t*>(mask->const_data_ptr<bool>()) : nullptr;
}

// Scores of one positive and N negatives per row, checked, and room for the loss and its gradients.
// Training passes slices of one matrix: only rows that are not dense are copied.
struct LossScores {
  Tensor positive;             // [B]
  Tensor negative;             // [B, N]
  std::optional<Tensor> mask;  // [B, N] bool
  Tensor loss, d_positive, d_negative;

  LossScores(const char* op, const Tensor& positive_in, const Tensor& negative_in,
             const std::optional<Tensor>& mask_in)
      : positive(positive_in), negative(negative_in) {
    check_devices(op, {{"negative", negative_in}, {"mask", mask_in}}, "positive", positive);
    check_dimensions(op, "positive", positive, 1);
    check_real(op, "positive", positive);
    check_matrix(op, "negative", negative);
    check_same_dtype(op, "negative", negative, "positive", positive);
    STD_TORCH_CHECK(negative.size(0) == positive.size(0), op, "negative has ", negative.size(0),
                    " rows, expected ", positive.size(0), " (one per positive)");
    mask = checked_mask(op, mask_in, "negative", negative);
    negative = dense_rows(negative);
    loss = torch::stable::new_empty(positive, {});
    d_positive = torch::stable::new_empty(positive, {positive.size(0)});
    d_negative = torch::stable::new_empty(negative, {negative.size(0), negative.size(1)});
  }

  // `losses` has room for the loss of each row.
  template <typename T>
  LossRows<T> rows(double* losses) const {
    LossRows<T> rows{};
    rows.positive = positive.const_data_ptr<T>();
    rows.positive_stride = positive.stride(0);
    rows.negative = negative.const_data_ptr<T>();
    rows.negative_stride = negative.stride(0);
    rows.mask = mask_bytes(mask);
    rows.mask_stride = mask ? mask->stride(0) : 0;
    rows.batch = negative.size(0);
    rows.n = negative.size(1);
    rows.d_positive = d_positive.mutable_data_ptr<T>();
    rows.d_negative = d_negative.mutable_data_ptr<T>();
    rows.losses = losses;
    return rows;
  }

  std::tuple<Tensor, Tensor, Tensor> results() const { return {loss, d_positive, d_negative}; }
};

// The two losses of scores. `Kernels` has the static function run(op, scores, settings).
template <typename Kernels>
struct Losses {
  using Results = std::tuple<Tensor, Tensor, Tensor>;

  template <typename Settings>
  static Results run(const char* op, const LossScores& scores, const Settings& settings) {
    settings.check(op);
    Kernels::run(op, scores, settings);
    return scores.results();
  }

  static Results self_adversarial(const Tensor& positive, const Tensor& negative,
                                  std::optional<Tensor> mask, double temperature, int64_t form,
                                  double margin) {
    constexpr const char* kOp = "self_adversarial_loss: ";
    const LossScores scores(kOp, positive, negative, mask);
    return run(kOp, scores,
               SelfAdversarialSettings{temperature, static_cast<double>(form), margin});
  }

  static Results entropy_weighted(const Tensor& positive, const Tensor& negative,
                                  std::optional<Tensor> mask, double easy_above, double hard_upto,
                                  const std::vector<double>& weights, int64_t reduction,
                                  double temperature, bool one_sided) {
    constexpr const char* kOp = "entropy_weighted_loss: ";
    const LossScores scores(kOp, positive, negative, mask);
    STD_TORCH_CHECK(weights.size() == 3, kOp, "weights holds ", weights.size(),
                    " numbers, expected 3 (easy, ambiguous, hard)");
    return run(kOp, scores,
               EntropyWeightedSettings{easy_above, hard_upto, weights[0], weights[1], weights[2],
                                       static_cast<double>(reduction), temperature,
                                       static_cast<double>(one_sided)});
  }

  static void add_to(auto& library) {
    library.impl("self_adversarial_loss", TORCH_BOX(&Losses::self_adversarial));
    library.impl("entropy_weighted_loss", TORCH_BOX(&Losses::entropy_weighted));
  }
};

}  // namespace mmkgc
