#include "loss_rows.h"

namespace mmkgc::cuda {
namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kThreads)
    mean(const double* losses, const int64_t batch, T* loss) {
  __shared__ double room[kThreads / kWarp];
  double sum = 0;
  for (int64_t b = thread_index(); b < batch; b += kThreads) sum += losses[b];
  sum = block_sum<kThreads>(sum, room);
  // The mean of no rows is 0, so that an empty batch has no effect.
  const auto divisor = static_cast<double>(batch > 0 ? batch : 1);
  if (thread_index() == 0) *loss = static_cast<T>(sum / divisor);
}

}  // namespace

template <typename T>
void mean_of_rows(const char* op, const LossRows<T>& rows, T* loss, Stream stream) {
  launch(op, mean<T>, {1, kThreads}, stream, rows.losses, rows.batch, loss);
}

template void mean_of_rows<float>(const char*, const LossRows<float>&, float*, Stream);
template void mean_of_rows<double>(const char*, const LossRows<double>&, double*, Stream);

}  // namespace mmkgc::cuda
