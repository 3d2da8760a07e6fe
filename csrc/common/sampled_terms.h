// The term of one column in a score and its gradients, for all CUDA kernels. With diff = q - w * c
// (w is 1 without a scale), the score of a pair is the negated sum over columns of |diff| (l1),
// diff^2 (l2, before the root) or |diff| of a complex number (modulus), or the sum of q * w * c
// (dot).
#pragma once

#include "gradient.h"
#include "metric.h"

namespace mmkgc {

// The variable of a gradient.
enum class Variable { query, scale, candidate };

// The term of a real column.
template <Metric M, typename A>
MMKGC_HD A real_term(A q, A w, A c) {
  if constexpr (M == Metric::dot) return (q * w) * c;
  const A d = q - w * c;
  if constexpr (M == Metric::l1) return d < 0 ? -d : d;
  return d * d;
}

// The term of a complex column, from the differences of its parts.
template <typename A>
MMKGC_HD A complex_term(A re, A im) {
  return root(re * re + im * im);
}

// d(score) / d(diff) up to the sign; `g` is d(loss) / d(score) times the weight of the pair, under
// l2 divided by the distance. Under modulus, the factor of the difference is `g` divided by the
// modulus.
template <Metric M, typename A>
MMKGC_HD A pull(A g, A d) {
  return M == Metric::l1 ? g * sign_of(d) : g * d;
}

// The gradient of q, w or c from the result of `pull`.
template <Variable O, typename A>
MMKGC_HD A from_pull(A pulled, A w, A c) {
  if constexpr (O == Variable::query) return -pulled;
  if constexpr (O == Variable::scale) return c * pulled;
  return w * pulled;
}

// The gradient of q, w or c under dot.
template <Variable O, typename A>
MMKGC_HD A dot_gradient(A g, A q, A w, A c) {
  if constexpr (O == Variable::query) return (g * c) * w;
  if constexpr (O == Variable::scale) return (g * c) * q;
  return g * (q * w);
}

}  // namespace mmkgc
