// targets: sm_80 sm_90
#include "attention_tensor.h"
#include "cache.h"

namespace attention {

// Attention over cached keys and values on tensor cores. Tile i is tiles[2·i+1] rows of qkv from row tiles[2·i] on, all of one sequence and in its order, at most
// 16 queries with a key head's group, or one row. A block is four warps for 16 queries and a chunk, query r being head r % group of the group and row
// r / group of the tile. Each warp has a quarter of the chunk's keys for itself, which it copies itself; their shares are added in order at the end.
// The last of a tile's blocks to end adds up the chunks' parts, in order, whichever it is: counts are 0 before and after.
//
// starts, unless it is null, says which row is the first of its sequence in qkv: the keys and values of rows from there on are not in the
// cache yet. They are read from qkv, and the block that has a row's own chunk puts them there. So what is cached is read before the wait.
// y [n,heads·dim] is 0 in rows that are no token. Grid: chunks; key heads times blocks of 16 queries; tiles.
template <class T, int W>
AD_DEVICE void cached(T *y, int32_t *counts, float *parts, const T *qkv, const int32_t *tiles, const int32_t *starts, const cache::Cache<T> &c, int n, float scale) {
  constexpr int keys = cache::kChunk / 4;
  AD_DYNAMIC_SHARED(T, memory);
  AD_SHARED(float, tops, 64);  // of each warp and row
  AD_SHARED(float, sums, 64);
  AD_SHARED(int32_t, last, 1);
  ad_allow_next();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const ad_shared tileQ = ad_shared_address(memory), tileK = tileQ + (16 + warp * 2 * keys) * 2 * W, tileV = tileK + keys * 2 * W;
  float *const shares = (float *)(memory + 16 * W);  // [4][2·16·W], the half of each warp's own keys
  const int group = c.heads / c.kvHeads, g = blockIdx.y % c.kvHeads, row0 = blockIdx.y / c.kvHeads * 16;
  const int first = tiles[2 * blockIdx.z], tokens = tiles[2 * blockIdx.z + 1], queries = tokens * group - row0, u0 = blockIdx.x * cache::kChunk;
  const int rows = queries < 16 ? queries : 16;
  const int b = rows > 0 ? c.sequence[first] : 0, length = rows > 0 ? c.position[first + (row0 + rows - 1) / group] + 1 : 0;
  auto blank = [&]() AD_INLINE {
    if (blockIdx.x + blockIdx.y > 0) return;
    for (int row = blockIdx.z; row < n; row += gridDim.z)
      for (int i = threadIdx.x; c.sequence[row] < 0 && i < c.heads * c.dim; i += kThreads) y[(int64_t)row * c.heads * c.dim + i] = T{0};
  };
  if (u0 >= length) {
    ad_wait();
    blank();
    return;
  }
  const int start = starts ? starts[first] : 0, fresh = starts ? c.position[start] : length;  // tokens from `fresh` on are rows from `start` on

  const Copier<W, 32> mine = {lane / (W / 8), lane % (W / 8)};
  const int from = u0 + warp * keys, page = from / cache::kPage * cache::kPage;
  const bool inside = mine.piece * 8 < c.dim;
  for (int value = 0; value < 2; value++) {
    const T *at = from < length ? c.at(b, page, g, value) + mine.piece * 8 : qkv;
    AD_UNROLL
    for (int i = 0; i < keys / mine.step; i++) {
      const int r = mine.row + i * mine.step, u = from + r;
      if (u < fresh || u >= length) ad_cp_async16((value ? tileV : tileK) + 2 * tile_at<W>(r, mine.piece), at + (u - page) * c.dim, inside && u < length);
    }
  }
  AD_BUG(attention_cached_wait, ad_wait(), );
  if (from + keys > fresh)
    for (int value = 0; value < 2; value++) {
      const T *at = qkv + (int64_t)start * c.width() + (c.heads + value * c.kvHeads + g) * c.dim + mine.piece * 8;
      AD_ROLL
      for (int i = 0; i < keys / mine.step; i++) {
        const int r = mine.row + i * mine.step, u = from + r;
        if (u >= fresh && u < length) ad_cp_async16((value ? tileV : tileK) + 2 * tile_at<W>(r, mine.piece), at + (int64_t)(u - fresh) * c.width(), inside);
      }
    }
  const Copier<W> copier = copier_of<W>();
  AD_UNROLL
  for (int i = 0; i < (16 + copier.step - 1) / copier.step; i++) {
    const int r = copier.row + i * copier.step, R = row0 + r;
    if (r >= 16) continue;
    const T *at = qkv + (int64_t)(first + R / group) * c.width() + (g * group + R % group) * c.dim + copier.piece * 8;
    ad_cp_async16(tileQ + 2 * tile_at<W>(r, copier.piece), at, r < rows && copier.piece * 8 < c.dim);
  }
  ad_cp_commit();
  blank();
  if (starts && row0 == 0)
    for (int i = threadIdx.x; i < tokens * 2 * (c.dim / 8); i += kThreads) {
      const int piece = i % (c.dim / 8), value = i / (c.dim / 8) % 2, row = first + i / (c.dim / 8) / 2, u = fresh + row - start;
      if (u / cache::kChunk != (int)blockIdx.x) continue;
      ad_store(c.at(b, u, g, value) + piece * 8, ad_load(qkv + (int64_t)row * c.width() + (c.heads + value * c.kvHeads + g) * c.dim + piece * 8));
    }
  ad_cp_wait<0>();
  AD_BUG(attention_cached_barrier, __syncthreads(), __syncwarp());
  AD_BUG(attention_cached_wait, , ad_wait());

  const Lane<W> at = lane_of<W>(lane);
  float s[1][keys / 8][4], out[1][W / 8][4];
  clear(s);
  clear(out);
  multiply_rows<T>(s, tileQ, 0, tileK, at);
  uint32_t probabilities[1][keys / 8][2];
  AD_UNROLL
  for (int i = 0; i < 2; i++) {
    const int r = lane / 4 + 8 * i, t = c.position[first + (row0 + (r < rows ? r : rows - 1)) / group];
    float top = -kInfinity, total = 0;
    AD_UNROLL
    for (int j = 0; j < keys / 8; j++)
      AD_UNROLL
      for (int e = 2 * i; e < 2 * i + 2; e++) {
        if (from + 8 * j + lane % 4 * 2 + e - 2 * i > t) s[0][j][e] = -kInfinity;
        top = ad_max(top, s[0][j][e]);
      }
    top = quad_max(top) * scale;
    const float base = top == -kInfinity ? 0.0f : top;
    AD_UNROLL
    for (int j = 0; j < keys / 8; j++) {
      const float x0 = ad_exp2(ad_fma(s[0][j][2 * i], scale, -base)), x1 = ad_exp2(ad_fma(s[0][j][2 * i + 1], scale, -base));
      total += x0;
      total += x1;
      probabilities[0][j][i] = ad_pack<T>(x0, x1);
    }
    total = quad_sum(total);
    if (lane % 4 == 0) tops[warp * 16 + r] = top, sums[warp * 16 + r] = total;
  }
  multiply_columns<T>(out, probabilities, tileV, at);
  __syncwarp();
  AD_UNROLL
  for (int j = 0; j < W / 8; j++)
    AD_UNROLL
    for (int e = 0; e < 4; e++) shares[warp * 2 * 16 * W + (lane / 4 + e / 2 * 8) * W + 8 * j + lane % 4 * 2 + e % 2] = out[0][j][e];
  __syncthreads();
  for (int r = warp; r < rows; r += 4) {
    const int R = row0 + r;
    float top = -kInfinity, sum = 0, weights[4];
    AD_UNROLL
    for (int w = 0; w < 4; w++) top = ad_max(top, tops[w * 16 + r]);
    const float base = top == -kInfinity ? 0.0f : top;
    AD_UNROLL
    for (int w = 0; w < 4; w++) {
      weights[w] = ad_exp2(tops[w * 16 + r] - base);
      sum = ad_fma(weights[w], sums[w * 16 + r], sum);
    }
    float *to = c.part(parts, first + R / group, g * group + R % group, gridDim.x, blockIdx.x);
    for (int i = lane; i < c.dim; i += 32) {
      float v = 0;
      AD_UNROLL
      for (int w = 0; w < 4; w++) v = ad_fma(weights[w], shares[w * 2 * 16 * W + r * W + i], v);
      to[i] = v;
    }
    if (lane == 0) to[c.dim] = top, to[c.dim + 1] = sum;
  }

  // Whoever is last sees what the others wrote: each fences its own before it is counted.
  const int present = (length + cache::kChunk - 1) / cache::kChunk;
  int32_t *const count = counts + blockIdx.z * gridDim.y + blockIdx.y;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last[0] = AD_BUG(attention_cached_last, atomicAdd(count, 1) == present - 1, blockIdx.x == 0);
  __syncthreads();
  if (!last[0]) return;
  __threadfence();
  if (threadIdx.x == 0) *count = 0;

  // Parts come through shared memory, as many chunks of all rows at a time as there is room for.
  const int size = c.dim + cache::kMore;
  constexpr int room = (int)sizeof(T) * W * (16 + 2 * cache::kChunk) / (16 * 4 * (W + cache::kMore));
  const ad_shared parted = tileQ;
  const float *const held = (const float *)memory;
  auto part = [&](int r, int chunk) AD_INLINE {
    const int R = row0 + r;
    return c.part(parts, first + R / group, g * group + R % group, gridDim.x, chunk);
  };
  auto copy = [&](int chunk0, int n) AD_INLINE {
    const int pieces = n * (size / 4);  // of a row, whose chunks lie one behind the other
    for (int r = warp; r < rows; r += 4) {
      const float *from = part(r, chunk0);
      for (int i = lane; i < pieces; i += 32) ad_cp_async16(parted + 16 * (r * room * (size / 4) + i), from + 4 * i, true);
    }
    ad_cp_commit();
  };
  copy(0, present < room ? present : room);
  // Eight threads a row find its largest score.
  {
    const int r = threadIdx.x / 8;
    float top = -kInfinity;
    for (int k = threadIdx.x % 8; r < rows && k < present; k += 8) top = ad_max(top, part(r, k)[c.dim]);
    AD_UNROLL
    for (int m = 4; m; m >>= 1) top = ad_max(top, __shfl_xor_sync(AD_ALL, top, m));
    if (threadIdx.x % 8 == 0) tops[r] = top;
  }
  constexpr int kPieces = (W / 4 + 31) / 32;
  float v[4][kPieces][4], sum[4];
  AD_UNROLL
  for (int i = 0; i < 4; i++) {
    sum[i] = 0;
    AD_UNROLL
    for (int j = 0; j < kPieces; j++)
      AD_UNROLL
      for (int e = 0; e < 4; e++) v[i][j][e] = 0;
  }
  for (int chunk0 = 0; chunk0 < present; chunk0 += room) {
    const int n = present - chunk0 < room ? present - chunk0 : room;
    if (chunk0 > 0) {
      __syncthreads();
      copy(chunk0, n);
    }
    ad_cp_wait<0>();
    AD_BUG(attention_cached_merge_barrier, __syncthreads(), );
    AD_UNROLL
    for (int i = 0; i < 4; i++) {
      const int r = warp + 4 * i;
      if (r >= rows) continue;
      for (int k = 0; k < n; k++) {
        const float *from = held + (r * room + k) * size, weight = ad_exp2(from[c.dim] - tops[r]);
        sum[i] = ad_fma(weight, from[c.dim + 1], sum[i]);
        AD_UNROLL
        for (int j = 0; j < kPieces; j++) {
          const int column = 4 * (lane + 32 * j);
          if (column >= c.dim) continue;
          const ad_vector<float> four = ad_load(from + column);
          AD_UNROLL
          for (int e = 0; e < 4; e++) v[i][j][e] = ad_fma(weight, four[e], v[i][j][e]);
        }
      }
    }
  }
  AD_UNROLL
  for (int i = 0; i < 4; i++) {
    const int r = warp + 4 * i, R = row0 + r;
    if (r >= rows) continue;
    T *to = y + ((int64_t)(first + R / group) * c.heads + g * group + R % group) * c.dim;
    AD_UNROLL
    for (int j = 0; j < kPieces; j++) {
      const int column = 4 * (lane + 32 * j);
      if (column < c.dim)
        *(uint64_t *)(to + column) = (uint64_t)ad_pack<T>(v[i][j][0] / sum[i], v[i][j][1] / sum[i]) | (uint64_t)ad_pack<T>(v[i][j][2] / sum[i], v[i][j][3] / sum[i]) << 32;
    }
  }
}

}  // namespace attention

#define KERNEL(W, S, T)                                                                                                                                     \
  AD_KERNEL(attention_cached##W##_##S, (T * y, T * pages, int32_t *counts, float *parts, const T *qkv, const int32_t *tiles, const int32_t *starts,         \
      CACHE_WHERE, CACHE_SIZES, int32_t n, float scale), 128) {                                                                                                        \
    attention::cached<T, W>(y, counts, parts, qkv, tiles, starts, CACHE_GIVEN(T), n, scale);                                                                \
  }
KERNEL(64, bf16, bf16)
KERNEL(128, bf16, bf16)
KERNEL(256, bf16, bf16)
KERNEL(64, f16, f16)
KERNEL(128, f16, f16)
KERNEL(256, f16, f16)
