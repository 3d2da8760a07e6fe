// The schemas of all ops. Kernels register themselves in their own files.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(mmkgc, m) {
  m.def(
      "rank_candidates(Tensor queries, Tensor table, Tensor target_ptr, Tensor target_ids, "
      "Tensor filter_ptr, Tensor filter_ids, int metric, int[] pairs, float[] weights, "
      "Tensor? scale=None) -> (Tensor better, Tensor equal, Tensor nonfinite)");
}
