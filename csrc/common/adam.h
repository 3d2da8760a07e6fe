// One coordinate of an Adam step (Kingma and Ba 2015, algorithm 1; Loshchilov and Hutter 2019 for
// decoupled decay), with the order of operations of torch.optim.Adam. Host and device.
#pragma once

#include <cmath>
#include <cstdint>

#include "gradient.h"

namespace mmkgc {

template <typename T>
struct AdamStep {
  T beta1, rest1;     // and 1 - beta1
  T beta2, rest2;
  T rate;             // learning rate over the first bias correction
  T root_correction;  // 1 / root of the second bias correction
  T epsilon;
  T penalty;          // times the value, added to the gradient
  T shrink;           // the value is first multiplied by this

  AdamStep() = default;

  MMKGC_HD AdamStep(double lr, double beta1_in, double beta2_in, double eps, double weight_decay,
           bool decoupled, int64_t step)
      : beta1(static_cast<T>(beta1_in)),
        rest1(static_cast<T>(1 - beta1_in)),
        beta2(static_cast<T>(beta2_in)),
        rest2(static_cast<T>(1 - beta2_in)),
        rate(static_cast<T>(lr / (1 - std::pow(beta1_in, static_cast<double>(step))))),
        root_correction(
            static_cast<T>(1 / std::sqrt(1 - std::pow(beta2_in, static_cast<double>(step))))),
        epsilon(static_cast<T>(eps)),
        penalty(static_cast<T>(decoupled ? 0 : weight_decay)),
        shrink(static_cast<T>(decoupled ? 1 - lr * weight_decay : 1)) {}
};

// The settings of a step, as arguments of ops.
struct AdamSettings {
  double lr, beta1, beta2, eps, weight_decay;
  bool decoupled;
  int64_t step;  // 1 for the first step

  // The step that is `steps` later.
  template <typename T>
  MMKGC_HD AdamStep<T> after(int64_t steps) const {
    return {lr, beta1, beta2, eps, weight_decay, decoupled, step + steps};
  }
};

// Without a penalty the value is not read for it, since 0 times infinity is NaN.
template <bool Penalised, typename T>
MMKGC_HD void adam_update(T gradient, const AdamStep<T>& s, T* value, T* mean, T* square) {
  const T old = *value * s.shrink;
  const T g = Penalised ? gradient + s.penalty * *value : gradient;
  const T m = s.beta1 * *mean + s.rest1 * g;
  const T v = s.beta2 * *square + s.rest2 * (g * g);  // in the order of the reference: g * g may overflow
  *mean = m;
  *square = v;
  *value = old - s.rate * m / (std::sqrt(v) * s.root_correction + s.epsilon);
}

}  // namespace mmkgc
