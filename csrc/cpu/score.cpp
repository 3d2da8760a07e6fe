#include "score.h"

#include "../common/clones.h"

namespace mmkgc::cpu {
namespace {

#define MMKGC_SCORE(name, metric, scaled, T)                                                   \
  MMKGC_CLONES void name(const Terms& terms, const T* q, const T* scale, const T* const* rows, \
                         int64_t n, T* scores) {                                               \
    score_rows<metric, scaled, T>(terms, q, scale, rows, n, scores);                           \
  }
MMKGC_FOR_EACH_METRIC(MMKGC_SCORE, score)

MMKGC_PICK(score, Score<float>, Score<double>)

}  // namespace

template <typename T>
Score<T> score_function(Metric metric, bool scaled) {
  return pick_score(metric, scaled, T());
}

template Score<float> score_function<float>(Metric, bool);
template Score<double> score_function<double>(Metric, bool);

}  // namespace mmkgc::cpu
