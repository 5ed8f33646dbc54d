// targets: sm_80
#include "ad_cuda.h"

// c [m,n] = a [m,k]·b [n,k]ᵀ by tensor cores, one warp a tile of 16 × 8: checks the fragment layouts of ad_mma, ad_ldmatrix and ad_cp_async
// on whatever runs it. m, n and k are multiples of 16, 8 and 16. No fast product: that is cuBLASLt's.
template <class T>
AD_DEVICE void mma_check(float *c, const T *a, const T *b, int32_t n, int32_t k) {
  AD_SHARED(T, tileA, 2 * 16 * 16);  // two stages, [row][column]
  AD_SHARED(T, tileB, 2 * 8 * 16);
  const int lane = threadIdx.x, row0 = blockIdx.x * 16, col0 = blockIdx.y * 8;
  auto fetch = [&](int stage, int at) {
    const int row = lane / 2, half = lane % 2 * 8;  // 16 rows of two 16-byte pieces
    ad_cp_async16(tileA + stage * 256 + row * 16 + half, a + (int64_t)(row0 + row) * k + at + half, true);
    if (row < 8) ad_cp_async16(tileB + stage * 128 + row * 16 + half, b + (int64_t)(col0 + row) * k + at + half, true);
    ad_cp_commit();
  };
  float acc[4] = {0, 0, 0, 0};
  fetch(0, 0);
  for (int at = 0, stage = 0; at < k; at += 16, stage ^= 1) {
    if (at + 16 < k) {
      fetch(stage ^ 1, at + 16);
      AD_BUG(mma_wait, ad_cp_wait<1>(), );
    } else {
      ad_cp_wait<0>();
    }
    __syncwarp();
    uint32_t fa[4], fb[2];
    ad_ldmatrix4<false>(fa, tileA + stage * 256 + lane % 16 * 16 + lane / 16 * 8);
    ad_ldmatrix2<false>(fb, tileB + stage * 128 + lane % 8 * 16 + lane / 8 % 2 * 8);
    ad_mma<T>(acc, fa, fb);
    __syncwarp();
  }
  float *out = c + (int64_t)(row0 + lane / 4) * n + col0 + lane % 4 * 2;
  out[0] = acc[0];
  out[1] = acc[1];
  out[8 * (int64_t)n] = acc[2];
  out[8 * (int64_t)n + 1] = acc[3];
}

#define KERNEL(S, T)                                                                                             \
  AD_KERNEL(mma_check_##S, (float *c, const T *a, const T *b, int32_t n, int32_t k), 32) { \
    mma_check(c, a, b, n, k);                                                                                 \
  }
KERNEL(bf16, bf16)
KERNEL(f16, f16)
