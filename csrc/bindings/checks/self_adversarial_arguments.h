// The arguments of self_adversarial_loss, checked, and where its results go: for either device.
#pragma once

#include <optional>

#include "../../common/losses.h"
#include "loss_checks.h"
#include "loss_scores.h"

namespace mmkgc {

struct SelfAdversarialArguments {
  LossScores scores;
  double temperature;
  int64_t form;
  double margin;

  SelfAdversarialArguments(const char* op, const Tensor& positive, const Tensor& negative,
                           const std::optional<Tensor>& usable, double temperature_in,
                           int64_t form_in, double margin_in)
      : scores(op, positive, negative, usable),
        temperature(temperature_in),
        form(form_in),
        margin(margin_in) {
    check_form(op, static_cast<double>(form));
  }

  template <typename T>
  SelfAdversarialTask<T> task() const {
    return {scores.rows<T>(), static_cast<T>(temperature), static_cast<T>(margin),
            static_cast<AdversarialForm>(form)};
  }
};

}  // namespace mmkgc
