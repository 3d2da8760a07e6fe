// What one column adds to a score and to its gradients, written once for all passes on a GPU. With
// diff = q - w * c (w is 1 without a scale), the score of a pair is minus the sum over columns of
// |diff| (l1), diff^2 (l2, rooted at the end) or |diff| of a complex number (modulus), or the sum of
// q * w * c (dot).
#pragma once

#include "gradient.h"
#include "metric.h"

namespace mmkgc {

// What a gradient is of.
enum class Of { query, scale, candidate };

// The summand of a real column.
template <Metric M, typename A>
MMKGC_HD A real_term(A q, A w, A c) {
  if constexpr (M == Metric::dot) return q * (w * c);
  const A d = q - w * c;
  if constexpr (M == Metric::l1) return d < 0 ? -d : d;
  return d * d;
}

// The summand of a complex column, from the differences of its parts.
template <typename A>
MMKGC_HD A complex_term(A re, A im) {
  return root(re * re + im * im);
}

// d(score) / d(diff) up to its sign, where `g` is d(loss) / d(score) times the weight of the pair and,
// for l2, over the distance. Of modulus it is `g` over the modulus that multiplies the difference.
template <Metric M, typename A>
MMKGC_HD A pull(A g, A d) {
  return M == Metric::l1 ? g * sign_of(d) : g * d;
}

// The gradient of one of q, w and c from what pulls at their difference.
template <Of O, typename A>
MMKGC_HD A from_pull(A pulled, A w, A c) {
  if constexpr (O == Of::query) return -pulled;
  if constexpr (O == Of::scale) return c * pulled;
  return w * pulled;
}

// The gradient of one of q, w and c under dot.
template <Of O, typename A>
MMKGC_HD A dot_gradient(A g, A q, A w, A c) {
  if constexpr (O == Of::query) return g * (w * c);
  if constexpr (O == Of::scale) return g * (q * c);
  return g * (q * w);
}

}  // namespace mmkgc
