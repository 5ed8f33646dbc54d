// targets: sm_80
#include "attention_tensor.h"
#include "cache.h"

namespace attention {

// A chunk's share on tensor cores. Tile i is tiles[2·i+1] rows of qkv from row tiles[2·i] on, all of one sequence and in its order, at most 16 queries with
// a key head's group, or one row. A block is four warps for 16 queries, query r being head r % group of the group and row r / group of the tile.
// Each warp has a quarter of the chunk's keys for itself, which it copies itself; their shares are added in order at the end.
// Grid: chunks; key heads times blocks of 16 queries; tiles.
template <class T, int W>
AD_DEVICE void chunk(float *parts, const T *qkv, const int32_t *tiles, const cache::Cache<T> &c, float scale) {
  constexpr int keys = cache::kChunk / 4;
  AD_DYNAMIC_SHARED(T, memory);
  AD_SHARED(float, tops, 64);  // of each warp and row
  AD_SHARED(float, sums, 64);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const ad_shared tileQ = ad_shared_address(memory), tileK = tileQ + (16 + warp * 2 * keys) * 2 * W, tileV = tileK + keys * 2 * W;
  float *const shares = (float *)(memory + 16 * W);  // [4][2·16·W], the half of each warp's own keys
  const int group = c.heads / c.kvHeads, g = blockIdx.y % c.kvHeads, row0 = blockIdx.y / c.kvHeads * 16;
  const int first = tiles[2 * blockIdx.z], queries = tiles[2 * blockIdx.z + 1] * group - row0, u0 = blockIdx.x * cache::kChunk;
  const int rows = queries < 16 ? queries : 16;
  if (rows <= 0) return;
  const int b = c.sequence[first], length = c.position[first + (row0 + rows - 1) / group] + 1;
  if (u0 >= length) return;

  const Copier<W, 32> mine = {lane / (W / 8), lane % (W / 8)};
  const int from = u0 + warp * keys, page = from / cache::kPage * cache::kPage;
  const bool inside = mine.piece * 8 < c.dim;
  for (int value = 0; value < 2; value++) {
    const T *at = from < length ? c.at(b, page, g, value) + mine.piece * 8 : qkv;
    mine.template copy<keys>(value ? tileV : tileK, at, c.dim, from - page + mine.row, mine.step, length - page, inside);
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
  ad_cp_wait<0>();
  AD_BUG(attention_cached_barrier, __syncthreads(), __syncwarp());

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
}

}  // namespace attention

#define KERNEL(W, S, T)                                                                                                                                     \
  AD_KERNEL(attention_cached##W##_##S, (float *parts, const T *qkv, const T *pages, const int32_t *tiles, CACHE_WHERE, CACHE_SIZES, float scale), 128) { \
    attention::chunk<T, W>(parts, qkv, tiles, CACHE_GIVEN(T), scale);                                                                                     \
  }
KERNEL(64, bf16, bf16)
KERNEL(128, bf16, bf16)
KERNEL(256, bf16, bf16)
KERNEL(64, f16, f16)
KERNEL(128, f16, f16)
KERNEL(256, f16, f16)
