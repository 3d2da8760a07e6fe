// Which loss an op ends in, as its schema has it: a number and the numbers that this loss needs.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <vector>

#include "arguments.h"
#include "../../cpu/row_loss.h"
#include "loss_checks.h"

namespace mmkgc {

// Values are part of the schema.
enum class LossKind : int64_t { self_adversarial = 0, entropy_weighted = 1 };

// `settings` of self_adversarial: temperature, form, margin. Of entropy_weighted: easy_above,
// hard_upto, the weights of easy, ambiguous and hard, reduction, temperature, one_sided.
struct LossSettings {
  LossKind kind;
  std::vector<double> settings;

  LossSettings(const char* op, int64_t kind_in, const std::vector<double>& settings_in)
      : kind(static_cast<LossKind>(kind_in)), settings(settings_in) {
    STD_TORCH_CHECK(kind_in == 0 || kind_in == 1, op, "loss is ", kind_in,
                    ", expected 0 (self_adversarial) or 1 (entropy_weighted)");
    const size_t expected = kind == LossKind::self_adversarial ? 3 : 8;
    STD_TORCH_CHECK(settings.size() == expected, op, "settings holds ", settings.size(),
                    " numbers, expected ", expected);
    if (kind == LossKind::self_adversarial) {
      check_form(op, settings[1]);
    } else {
      check_cuts(op, settings[0], settings[1]);
      check_reduction(op, settings[5]);
    }
  }

  template <typename T>
  cpu::RowLoss<T> of_row() const {
    cpu::RowLoss<T> loss{};
    const auto number = [&](size_t i) { return static_cast<T>(settings[i]); };
    loss.by_entropy = kind == LossKind::entropy_weighted;
    if (loss.by_entropy) {
      loss.entropy = {{}, number(0), number(1), number(2), number(3), number(4), number(6),
                      static_cast<NegativeReduction>(settings[5]), settings[7] != 0};
    } else {
      loss.adversarial = {{}, number(0), number(2), static_cast<AdversarialForm>(settings[1])};
    }
    return loss;
  }
};

// Which candidates count, [B, N] with the positive first, checked; dense within a row.
inline std::optional<Tensor> checked_usable(const char* op, const std::optional<Tensor>& usable,
                                            const Tensor& ids) {
  STD_TORCH_CHECK(ids.size(1) >= 1, op, "ids has no columns, expected the positive in the first");
  if (!usable) return std::nullopt;
  STD_TORCH_CHECK(usable->dim() == 2 && usable->size(0) == ids.size(0) &&
                      usable->size(1) == ids.size(1),
                  op, "usable must have the shape of ids");
  STD_TORCH_CHECK(usable->scalar_type() == ScalarType::Bool, op, "usable must be bool");
  return usable->stride(1) == 1 ? *usable : torch::stable::contiguous(*usable);
}

}  // namespace mmkgc
