// What a GPU can do at best, measured on the spot by benchmarks/gpu.py: rows gathered, roots taken.
#include <cstdint>

#include <cuda_runtime.h>

namespace {

constexpr int kRows = 4;   // of a warp, so that loads are under way
constexpr int kChains = 8;  // of roots that do not wait for each other

__global__ void __launch_bounds__(256)
    gather(const float4* table, const int64_t* ids, int64_t n, int64_t width, float* out) {
  const int64_t warp = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
  const int lane = threadIdx.x % 32;
  float sums[kRows] = {};
  const float4* rows[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int64_t i = warp * kRows + r;
    rows[r] = table + ids[i < n ? i : n - 1] * width;
  }
  for (int64_t k = lane; k < width; k += 32) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float4 x = rows[r][k];
      sums[r] += x.x + x.y + x.z + x.w;
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (warp * kRows + r < n && sums[r] == 12345.678f) out[warp * kRows + r] = sums[r];
  }
}

__global__ void __launch_bounds__(256) roots(int rounds, float* out) {
  float x[kChains];
#pragma unroll
  for (int c = 0; c < kChains; ++c) x[c] = static_cast<float>(threadIdx.x + c);
  for (int i = 0; i < rounds; ++i) {
#pragma unroll
    for (int c = 0; c < kChains; ++c) {
      asm volatile("sqrt.approx.ftz.f32 %0, %0;" : "+f"(x[c]));
    }
  }
  float sum = 0;
#pragma unroll
  for (int c = 0; c < kChains; ++c) sum += x[c];
  if (sum == 12345.678f) *out = sum;
}

}  // namespace

// Reads `n` rows of `width` floats, a multiple of 4, and writes nothing.
extern "C" int gather_rows(const void* table, const void* ids, int64_t n, int64_t width, void* out,
                           void* stream) {
  const auto blocks = static_cast<unsigned>((n + 8 * kRows - 1) / (8 * kRows));
  gather<<<blocks, 256, 0, static_cast<cudaStream_t>(stream)>>>(
      static_cast<const float4*>(table), static_cast<const int64_t*>(ids), n, width / 4,
      static_cast<float*>(out));
  return static_cast<int>(cudaGetLastError());
}

// Takes blocks * 256 * 8 * rounds roots.
extern "C" int take_roots(int blocks, int rounds, void* out, void* stream) {
  roots<<<blocks, 256, 0, static_cast<cudaStream_t>(stream)>>>(rounds, static_cast<float*>(out));
  return static_cast<int>(cudaGetLastError());
}
