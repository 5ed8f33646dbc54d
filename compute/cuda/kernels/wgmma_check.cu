// targets: sm_90a
#include "ad_cuda.h"

// c [m,n] = a [m,k]·op(b) by products of warpgroups, a tile of 64 × N a block: checks descriptors, the layouts of operands and sums and what orders products
// and copies on whatever runs it. b is [n,k] (its transpose is multiplied) or with TRANSPOSED [k,n]; with REGISTERS the fragments of a are loaded ahead. m, n
// and k are multiples of 64, N and 128.
template <int N, bool TRANSPOSED, bool REGISTERS, class T>
AD_DEVICE void wgmma_check(float *c, const T *a, const T *b, int32_t n, int32_t k) {
  constexpr int panelA = 64 * 128, panelB = (TRANSPOSED ? 128 : N) * 128, stageBytes = 2 * panelA + N * 256;
  AD_DYNAMIC_SHARED(T, memory);
  const ad_shared tiles = (ad_shared_address(memory) + 1023) & ~(ad_shared)1023;  // two stages: 64 × 128 of a; N × 128 or 128 × N of b
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, row0 = blockIdx.x * 64, col0 = blockIdx.y * N;
  auto fetch = [&](int stage, int at) {
    const ad_shared tileA = tiles + stage * stageBytes, tileB = tileA + 2 * panelA;
    for (int i = threadIdx.x; i < 64 * 16; i += 128) {
      const int row = i / 16, piece = i % 16;
      ad_cp_async16(tileA + piece / 8 * panelA + row * 128 + ((piece ^ row) & 7) * 16, a + (int64_t)(row0 + row) * k + at + piece * 8, true);
    }
    for (int i = threadIdx.x; i < N * 16; i += 128) {
      const int pieces = TRANSPOSED ? N / 8 : 16, row = i / pieces, piece = i % pieces;
      const T *from = TRANSPOSED ? b + (int64_t)(at + row) * n + col0 : b + (int64_t)(col0 + row) * k + at;
      ad_cp_async16(tileB + piece / 8 * panelB + row * 128 + ((piece ^ row) & 7) * 16, from + piece * 8, true);
    }
    ad_cp_commit();
  };
  float sums[N / 8][4];
  fetch(0, 0);
  for (int at = 0, stage = 0; at < k; at += 128, stage ^= 1) {
    const ad_shared tileA = tiles + stage * stageBytes, tileB = tileA + 2 * panelA;
    AD_BUG(wgmma_copies, ad_cp_wait<0>(), );
    AD_BUG(wgmma_proxy, ad_fence_async(), );
    AD_BUG(wgmma_barrier, __syncthreads(), );
    uint32_t fragments[8][4];
    if constexpr (REGISTERS)
      for (int s = 0; s < 8; s++) {
        const int row = 16 * warp + lane % 16, piece = 2 * s + lane / 16;
        ad_ldmatrix4<false>(fragments[s], tileA + piece / 8 * panelA + row * 128 + ((piece ^ row) & 7) * 16);
      }
    const uint64_t descriptorA = ad_wgmma_descriptor(tileA, panelA), descriptorB = ad_wgmma_descriptor(tileB, panelB);
    ad_wgmma_fence();
    AD_UNROLL
    for (int s = 0; s < 8; s++) {
      const int along = s / 4 * panelB + s % 4 * AD_BUG(wgmma_step, 32, 64);
      const uint64_t there = ad_wgmma_advance(descriptorB, TRANSPOSED ? s * 2048 : along);
      if constexpr (REGISTERS)
        ad_wgmma<T, N, TRANSPOSED>(sums, fragments[s], there, at > 0 || s > 0);
      else
        ad_wgmma<T, N, TRANSPOSED>(sums, ad_wgmma_advance(descriptorA, s / 4 * panelA + s % 4 * 32), there, at > 0 || s > 0);
    }
    ad_wgmma_commit();
    if (at + 128 < k) {
      AD_BUG(wgmma_overwrite, ad_wgmma_wait<1>(), );
      __syncthreads();  // all are done with the other stage
      fetch(stage ^ 1, at + 128);
    }
  }
  AD_BUG(wgmma_wait, ad_wgmma_wait<0>(sums), );
  float *out = c + (int64_t)(row0 + 16 * warp + lane / 4) * n + col0 + lane % 4 * 2;
  AD_UNROLL
  for (int j = 0; j < N / 8; j++) {
    out[8 * j] = sums[j][0];
    out[8 * j + 1] = sums[j][1];
    out[8 * (int64_t)n + 8 * j] = sums[j][2];
    out[8 * (int64_t)n + 8 * j + 1] = sums[j][3];
  }
}

// Names: where a is; b as it is multiplied (k: K-major, n: MN-major); N; the store.
#define KERNEL(A, REGISTERS, B, TRANSPOSED, N, S)                                                                    \
  AD_KERNEL(wgmma_check_##A##_##B##N##_##S, (float *c, const S *a, const S *b, int32_t n, int32_t k), 128) { \
    wgmma_check<N, TRANSPOSED, REGISTERS>(c, a, b, n, k);                                                            \
  }
#define KERNELS(N, S)                                                                                         \
  KERNEL(shared, false, k, false, N, S) KERNEL(shared, false, n, true, N, S) KERNEL(registers, true, k, false, N, S) \
  KERNEL(registers, true, n, true, N, S)
KERNELS(64, bf16) KERNELS(64, f16) KERNELS(128, bf16) KERNELS(128, f16) KERNELS(256, bf16) KERNELS(256, f16)
