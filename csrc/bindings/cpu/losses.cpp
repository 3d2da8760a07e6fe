// Bindings of mmkgc::self_adversarial_loss and mmkgc::entropy_weighted_loss on the CPU.

#include <algorithm>
#include <vector>

#include "../../cpu/loss_rows.h"
#include "../losses.h"

namespace mmkgc {
namespace {

struct Kernels {
  // Runs blocks of rows on all threads, then takes the mean of the losses in the order of the rows.
  template <typename Settings>
  static void run(const char*, const LossScores& scores, const Settings& settings) {
    with_real(scores.positive, [&]<typename T>() {
      const int64_t batch = scores.positive.size(0), n = scores.negative.size(1);
      std::vector<double> losses(static_cast<size_t>(batch));
      const auto task = settings.template task<T>(scores.rows<T>(losses.data()));
      constexpr int64_t kScoresPerThread = 16384;  // fewer take less time than waking a thread
      const int64_t blocks = (batch + cpu::kLossBlock - 1) / cpu::kLossBlock;
      const int64_t grain = std::max<int64_t>(
          1, kScoresPerThread / (cpu::kLossBlock * std::max<int64_t>(1, n)));
      torch::stable::parallel_for(0, blocks, grain, [&](int64_t begin, int64_t end) {
        for (int64_t block = begin; block < end; ++block) cpu::loss_rows(task, block);
      });
      *scores.loss.mutable_data_ptr<T>() = static_cast<T>(cpu::mean_of_rows(losses));
    });
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, CPU, m) { Losses<Kernels>::add_to(m); }

}  // namespace mmkgc
