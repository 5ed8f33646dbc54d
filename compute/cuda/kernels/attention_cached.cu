#include "cache.h"

namespace cache {

// Puts the rows' keys and values into the cache. Grid: rows.
template <class T>
AD_DEVICE void append(const Cache<T> &c, const T *qkv) {
  const int b = c.sequence[blockIdx.x];
  if (b < 0) return;
  const T *row = qkv + (int64_t)blockIdx.x * c.width() + c.heads * c.dim;
  const int u = c.position[blockIdx.x], all = c.kvHeads * c.dim;
  for (int i = threadIdx.x; i < 2 * all; i += blockDim.x) c.at(b, u, i % all / c.dim, i / all)[i % c.dim] = row[i];
}

// A chunk's share without tensor cores, in float32. 128 threads, a key each. Grid: chunks; heads; rows.
template <class T>
AD_DEVICE void chunk(float *parts, const T *qkv, const Cache<T> &c, float scale) {
  AD_SHARED(float, query, 256);
  AD_SHARED(float, weights, kChunk);
  AD_SHARED(float, partial, 32);
  AD_SHARED(float, tops, 4);
  const int row = blockIdx.z, head = blockIdx.y, b = c.sequence[row], u0 = blockIdx.x * kChunk, u = u0 + threadIdx.x;
  if (b < 0) return;
  const int t = c.position[row], g = head / (c.heads / c.kvHeads);
  if (u0 > t) return;
  for (int i = threadIdx.x; i < c.dim; i += kChunk) query[i] = ad_float(qkv[(int64_t)row * c.width() + head * c.dim + i]);
  __syncthreads();
  float score = -kInfinity;
  if (u <= t) {
    const T *key = c.at(b, u, g, 0);
    score = 0;
    for (int i = 0; i < c.dim; i++) score = ad_fma(query[i], ad_float(key[i]), score);
  }
  const float warp = ad_warp_max(score);
  if (threadIdx.x % 32 == 0) tops[threadIdx.x / 32] = warp;
  __syncthreads();
  const float top = ad_max(ad_max(tops[0], tops[1]), ad_max(tops[2], tops[3])) * scale;  // a number: key u0 is seen
  const float weight = ad_exp2(ad_fma(score, scale, -top));
  weights[threadIdx.x] = weight;
  const float sum = ad_block_sum(weight, partial);
  float *to = c.part(parts, row, head, gridDim.x, blockIdx.x);
  const int keys = t - u0 + 1 < kChunk ? t - u0 + 1 : kChunk;
  for (int i = threadIdx.x; i < c.dim; i += kChunk) {
    float v = 0;
    for (int k = 0; k < keys; k++) v = ad_fma(weights[k], ad_float(c.at(b, u0 + k, g, 1)[i]), v);
    to[i] = v;
  }
  if (threadIdx.x == 0) to[c.dim] = top, to[c.dim + 1] = sum;
}

// y [rows,heads·dim] of the chunks' shares; rows that are none become 0. Grid: heads; rows.
template <class T>
AD_DEVICE void merge(T *y, float *parts, const Cache<T> &c, int chunks) {
  const int row = blockIdx.y, head = blockIdx.x, n = c.sequence[row] < 0 ? 0 : c.position[row] / kChunk + 1;
  float top = -kInfinity;
  for (int k = 0; k < n; k++) top = ad_max(top, c.part(parts, row, head, chunks, k)[c.dim]);
  for (int i = threadIdx.x; i < c.dim; i += blockDim.x) {
    float sum = 0, v = 0;
    for (int k = 0; k < n; k++) {
      const float *part = c.part(parts, row, head, chunks, k), weight = ad_exp2(part[c.dim] - top);
      sum = ad_fma(weight, part[c.dim + 1], sum);
      v = ad_fma(weight, part[i], v);
    }
    y[((int64_t)row * c.heads + head) * c.dim + i] = ad_cast<T>(n > 0 ? v / sum : 0.0f);
  }
}

}  // namespace cache

#define KERNEL(S, T)                                                                                                                                    \
  AD_KERNEL(cache_append_##S, (T * pages, const T *qkv, CACHE_WHERE, CACHE_SIZES), 128) { cache::append(CACHE_GIVEN(T), qkv); }                 \
  AD_KERNEL(attention_cached_scalar_##S, (float *parts, const T *qkv, const T *pages, CACHE_WHERE, CACHE_SIZES, float scale), 128) {            \
    cache::chunk(parts, qkv, CACHE_GIVEN(T), scale);                                                                                                    \
  }                                                                                                                                                     \
  AD_KERNEL(attention_cached_merge_##S, (T * y, float *parts, const T *pages, CACHE_WHERE, CACHE_SIZES, int32_t chunks), 128) {                  \
    cache::merge(y, parts, CACHE_GIVEN(T), chunks);                                                                                                     \
  }
AD_STORES(KERNEL)
