#include "ad_cuda.h"

// The four words of Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011) at counter {block, block>>32, salt, 0}: compute.DropWords.
struct DropWords {
  uint32_t w[4];
  AD_DEVICE DropWords(uint32_t key0, uint32_t key1, uint32_t salt, uint64_t block) {
    w[0] = (uint32_t)block, w[1] = (uint32_t)(block >> 32), w[2] = salt, w[3] = 0;
    AD_UNROLL
    for (int round = 0; round < 10; round++) {
      const uint64_t p = (uint64_t)0xD2511F53u * w[0], q = (uint64_t)0xCD9E8D57u * w[2];
      w[0] = (uint32_t)(q >> 32) ^ w[1] ^ key0;
      w[2] = (uint32_t)(p >> 32) ^ w[3] ^ key1;
      w[1] = (uint32_t)q;
      w[3] = (uint32_t)p;
      key0 += 0x9E3779B9u;
      key1 += 0xBB67AE85u;
    }
  }
};

// y[i] = 0 where word i%4 of block i/4 is below threshold, else scale·x[i]. y may be x. Bytes moved: x and y once.
template <class T>
AD_DEVICE void dropout(T *y, const T *x, const int32_t *key, int64_t n, uint32_t salt, uint32_t threshold, float scale) {
  constexpr int N = ad_vector<T>::n;
  const uint32_t key0 = key[0], key1 = key[1];
  const int64_t first = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, stride = (int64_t)gridDim.x * blockDim.x;
  for (int64_t v = first; v < n / N; v += stride) {
    const ad_vector<T> a = ad_load(x + v * N);
    ad_vector<T> r;
    AD_UNROLL
    for (int i = 0; i < N; i += 4) {
      const DropWords d(key0, key1, salt, AD_BUG(dropout_block, (v * N + i) / 4, v));
      AD_UNROLL
      for (int j = 0; j < 4; j++) r.e[i + j] = ad_cast<T>(d.w[j] < threshold ? 0.0f : a[i + j] * scale);
    }
    ad_store(y + v * N, r);
  }
  const int64_t rest = n / N * N + first;
  if (rest >= n) return;
  const DropWords d(key0, key1, salt, rest / 4);
  const int j = rest % 4;
  const uint32_t word = j == 0 ? d.w[0] : j == 1 ? d.w[1] : j == 2 ? d.w[2] : d.w[3];
  y[rest] = ad_cast<T>(word < threshold ? 0.0f : ad_float(x[rest]) * scale);
}

#define KERNEL(S, T)                                                                                                               \
  AD_KERNEL(dropout_##S, (T * y, const T *x, const int32_t *key, int64_t n, int32_t salt, int32_t threshold, float scale), 256) { \
    dropout(y, x, key, n, (uint32_t)salt, (uint32_t)threshold, scale);                                                             \
  }
AD_STORES(KERNEL)
