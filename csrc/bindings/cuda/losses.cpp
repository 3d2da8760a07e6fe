// Bindings of mmkgc::self_adversarial_loss and mmkgc::entropy_weighted_loss on CUDA.
#include "../losses.h"

#include "../../cuda/losses.h"
#include "device.h"

namespace mmkgc {
namespace {

struct Kernels {
  template <typename Settings>
  static void run(const char* op, const LossScores& scores, const Settings& settings) {
    const OnDevice device(scores.positive);
    with_real(scores.positive, [&]<typename T>() {
      const Tensor losses = torch::stable::new_empty(
          scores.positive, {scores.positive.size(0)}, ScalarType::Double);
      const auto task = settings.template task<T>(scores.rows<T>(write_as<double>(losses)));
      cuda::loss_of_rows(op, task, write_as<T>(scores.loss), device.stream());
    });
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, MMKGC_CUDA_KEY, m) { Losses<Kernels>::add_to(m); }

}  // namespace mmkgc
