// targets: sm_70
#include "ad_cuda.h"

// The keys' and values' columns of dqkv [n,(heads+2·kvHeads)·dim] = the sum of parts [splits,n,2·kvHeads·dim] in order.
template <class T>
AD_DEVICE void attention_sum(T *dqkv, const float *parts, int64_t n, int32_t heads, int32_t kvHeads, int32_t dim, int32_t splits) {
  const int columns = 2 * kvHeads * dim, before = heads * dim;
  const int64_t all = n * columns;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < all; i += (int64_t)gridDim.x * blockDim.x) {
    float sum = 0;
    for (int s = 0; s < splits; s++) sum += parts[s * all + i];
    dqkv[i / columns * (before + columns) + before + i % columns] = ad_cast<T>(sum);
  }
}

#define KERNEL(S, T)                                                                                                                                         \
  AD_KERNEL(attention_sum_##S, (T * dqkv, const float *parts, int64_t n, int32_t heads, int32_t kvHeads, int32_t dim, int32_t splits), 256) { \
    attention_sum(dqkv, parts, n, heads, kvHeads, dim, splits);                                                                                              \
  }
AD_STORES(KERNEL)
