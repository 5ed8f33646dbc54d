// Causal soft-max attention on tensor cores, forward and backward, for the layout of compute.Attention: rows of qkv
// [n,(heads+2·kvHeads)·dim]; token t of a sequence sees the tokens docStart[t]..t of it. The scores exist a tile at a time, in registers
// (Dao 2023, FlashAttention-2, arXiv 2307.08691). attention64.cu, attention128.cu and attention256.cu make the kernels of one
// width of tiles each: the head dimension, a multiple of 8, is filled up to it with zeros.
//
// Query heads that share keys lie in one tile: row r of a tile of queries is token first + (r >> fold) in head first + r % 2^fold. So
// multi-query attention reads its keys once for many heads, and a tile spans few tokens, which wastes little on the diagonal and
// at the bounds of documents.
//
// A block is four warps. Each multiplies 16 rows (or keys) of its own with the whole tile of the other side, so that soft-max and
// the products' second operands stay in the warp's registers.
#pragma once
#include "ad_cuda.h"

namespace attention {

constexpr int kThreads = 128;
constexpr float kInfinity = __builtin_huge_valf();

// Tiles in shared memory: rows of W elements, of whose 16-byte pieces each eight are permuted by the row, so that eight rows' pieces of
// one column lie in different banks.
template <int W>
AD_DEVICE int tile_at(int row, int piece) { return row * W + ((piece ^ (row & 7)) << 3); }

// Begins to copy the rows of a tile; from(r) is the address of row r, or null for zeros. dim elements are copied, the others zeros.
template <int ROWS, int W, class T, class F>
AD_DEVICE void fetch(T *tile, int dim, const T *somewhere, F from) {
  constexpr int pieces = W / 8;
  AD_UNROLL
  for (int i = 0; i < ROWS * pieces / kThreads; i++) {
    const int at = i * kThreads + threadIdx.x, r = at / pieces, p = at % pieces;
    const T *row = from(r);
    const bool valid = row && p * 8 < dim;
    ad_cp_async16(tile + tile_at<W>(r, p), valid ? row + p * 8 : somewhere, valid);
  }
}

// The fragment a of ad_mma of rows row.. and columns 16·step.. of a tile.
template <int W, class T>
AD_DEVICE void load_a(uint32_t a[4], const T *tile, int row, int step, int lane) {
  ad_ldmatrix4<false>(a, tile + tile_at<W>(row + lane % 16, 2 * step + lane / 16));
}
// The fragments b of two products: of rows row.. and row+8.. of a tile as columns of b, columns 16·step.. of the tile as its rows.
template <int W, class T>
AD_DEVICE void load_b(uint32_t b[4], const T *tile, int row, int step, int lane) {
  ad_ldmatrix4<false>(b, tile + tile_at<W>(row + lane / 16 * 8 + lane % 8, 2 * step + lane / 8 % 2));
}
// The fragments b of two products: of columns column.. and column+8.. of a tile as columns of b, rows row.. of the tile as its rows.
template <int W, class T>
AD_DEVICE void load_b_transposed(uint32_t b[4], const T *tile, int row, int column, int lane) {
  ad_ldmatrix4<true>(b, tile + tile_at<W>(row + lane % 16, column / 8 + AD_BUG(attention_fragment, lane / 16, 1 - lane / 16)));
}

// c[m][j] += rows first + 16m.. of a times rows 8j.. of b, over all W columns.
template <int W, int M, int N, class T>
AD_DEVICE void multiply_rows(float (&c)[M][N][4], const T *a, int first, const T *b, int lane) {
  AD_UNROLL
  for (int k = 0; k < W / 16; k++) {
    uint32_t fa[M][4];
    AD_UNROLL
    for (int m = 0; m < M; m++) load_a<W>(fa[m], a, first + 16 * m, k, lane);
    AD_UNROLL
    for (int j = 0; j < N; j += 2) {
      uint32_t fb[4];
      load_b<W>(fb, b, 8 * j, k, lane);
      AD_UNROLL
      for (int m = 0; m < M; m++) {
        ad_mma<T>(c[m][j], fa[m], fb);
        ad_mma<T>(c[m][j + 1], fa[m], fb + 2);
      }
    }
  }
}

// c[m][j] += p[m], rounded to T, times columns column + 8j.. of the tile b.
template <int W, class T, int M, int K, int N>
AD_DEVICE void multiply_columns(float (&c)[M][N][4], const float (&p)[M][K][4], const T *b, int column, int lane) {
  AD_UNROLL
  for (int k = 0; k < K; k += 2) {
    uint32_t fa[M][4];
    AD_UNROLL
    for (int m = 0; m < M; m++) {
      fa[m][0] = ad_pack<T>(p[m][k][0], p[m][k][1]);
      fa[m][1] = ad_pack<T>(p[m][k][2], p[m][k][3]);
      fa[m][2] = ad_pack<T>(p[m][k + 1][0], p[m][k + 1][1]);
      fa[m][3] = ad_pack<T>(p[m][k + 1][2], p[m][k + 1][3]);
    }
    AD_UNROLL
    for (int j = 0; j < N; j += 2) {
      uint32_t fb[4];
      load_b_transposed<W>(fb, b, 8 * k, column + 8 * j, lane);
      AD_UNROLL
      for (int m = 0; m < M; m++) {
        ad_mma<T>(c[m][j], fa[m], fb);
        ad_mma<T>(c[m][j + 1], fa[m], fb + 2);
      }
    }
  }
}

template <int M, int N>
AD_DEVICE void clear(float (&c)[M][N][4]) {
  AD_UNROLL
  for (int m = 0; m < M; m++)
    AD_UNROLL
    for (int j = 0; j < N; j++)
      AD_UNROLL
      for (int i = 0; i < 4; i++) c[m][j][i] = 0;
}

// Sums and maxima over the four lanes that hold a row of an accumulator.
AD_DEVICE float quad_sum(float v) {
  v += __shfl_xor_sync(AD_ALL, v, 1);
  return v + __shfl_xor_sync(AD_ALL, v, 2);
}
AD_DEVICE float quad_max(float v) {
  v = ad_max(v, __shfl_xor_sync(AD_ALL, v, 1));
  return ad_max(v, __shfl_xor_sync(AD_ALL, v, 2));
}

// Sets rows first.. of dst, addressed by to(r) (null: not stored), to c times factor[m][row half], through the warp's own rows of a tile,
// so that whole pieces are written.
template <int W, int M, int N, class T, class F>
AD_DEVICE void store(const float (&c)[M][N][4], const float (&factor)[M][2], T *tile, int first, int dim, int lane, F to) {
  __syncwarp();
  AD_UNROLL
  for (int m = 0; m < M; m++)
    AD_UNROLL
    for (int j = 0; j < N; j++)
      AD_UNROLL
      for (int i = 0; i < 2; i++)
        *(uint32_t *)(tile + tile_at<W>(first + 16 * m + 8 * i + lane / 4, j) + lane % 4 * 2) = ad_pack<T>(c[m][j][2 * i] * factor[m][i], c[m][j][2 * i + 1] * factor[m][i]);
  __syncwarp();
  AD_UNROLL
  for (int i = 0; i < 16 * M * N / 32; i++) {
    const int r = first + (i * 32 + lane) / N, p = (i * 32 + lane) % N;
    T *row = to(r);
    if (row && p * 8 < dim) *(ad_u4 *)(row + p * 8) = *(const ad_u4 *)(tile + tile_at<W>(r, p));
  }
}

// Dropout of probabilities: element i is dropped when word i%4 of the block i/4 (compute.DropWords, Philox4x32-10) is below threshold.
struct Drop {
  uint32_t key0, key1, salt, threshold;

  AD_DEVICE ad_u4 words(uint64_t block) const {
    uint32_t c0 = (uint32_t)block, c1 = (uint32_t)(block >> 32), c2 = salt, c3 = 0, k0 = key0, k1 = key1;
    AD_UNROLL
    for (int i = 0; i < 10; i++) {
      const uint32_t h0 = ad_mulhi(0xD2511F53u, c0), l0 = 0xD2511F53u * c0, h1 = ad_mulhi(0xCD9E8D57u, c2), l1 = 0xCD9E8D57u * c2;
      c0 = h1 ^ c1 ^ k0;
      c1 = l1;
      c2 = h0 ^ c3 ^ k1;
      c3 = l0;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    return ad_u4{c0, c1, c2, c3};
  }
  AD_DEVICE bool dropped(uint64_t i) const {
    const ad_u4 w = words(i >> 2);
    const uint32_t lo = i & 1 ? w[1] : w[0], hi = i & 1 ? w[3] : w[2];
    return (i & 2 ? hi : lo) < threshold;
  }
};

// What the kernels are told of the problem. key is null without dropout.
struct Problem {
  int heads, kvHeads, dim, seq, fold;
  const int32_t *docStart, *key;
  uint32_t salt, threshold;

  AD_DEVICE int width() const { return (heads + 2 * kvHeads) * dim; }
  AD_DEVICE Drop drop() const { return Drop{(uint32_t)key[0], (uint32_t)key[1], salt, threshold}; }
  // The first token that token t of sequence b sees; never outside the sequence, whatever memory holds.
  AD_DEVICE int start(int b, int t) const {
    const int s = docStart[(int64_t)b * seq + t];
    return s < 0 ? 0 : s > t ? t : s;
  }
  // The index of a probability for dropout.
  AD_DEVICE uint64_t element(int b, int head, int t, int u) const { return (((uint64_t)b * heads + head) * seq + t) * seq + u; }
};

// A tile of queries: rows r of tokens token.. in heads head.. up to headEnd of sequence b.
struct Queries {
  int b, token, head, headEnd, fold, seq;

  AD_DEVICE int t(int r) const { return token + (r >> fold); }
  AD_DEVICE int h(int r) const { return head + (r & ((1 << fold) - 1)); }
  AD_DEVICE bool valid(int r) const { return t(r) < seq && h(r) < headEnd; }
  // The token of row r, or the last one for rows beyond it, which are not stored.
  AD_DEVICE int clamped(int r) const { return t(r) < seq ? t(r) : seq - 1; }
  // Where row r is in an array [n,stride] with heads of dim elements from the first column on.
  AD_DEVICE int64_t at(int r, int64_t stride, int dim) const { return ((int64_t)b * seq + t(r)) * stride + h(r) * dim; }
};

AD_DEVICE int warp_min(int v) {
  AD_UNROLL
  for (int m = 16; m; m >>= 1) {
    const int o = __shfl_xor_sync(AD_ALL, v, m);
    v = o < v ? o : v;
  }
  return v;
}

// The first and the last document start of the tokens of rows 0..ROWS of a tile, the same in every lane.
template <int ROWS>
AD_DEVICE void bounds(const Problem &p, const Queries &q, int lane, int &least, int &most) {
  const int last = q.clamped(ROWS - 1);
  least = p.seq;
  int below = 0;
  for (int t = q.token + lane; t <= last; t += 32) {
    const int s = p.start(q.b, t);
    least = s < least ? s : least;
    below = -s < below ? -s : below;
  }
  least = warp_min(least);
  most = -warp_min(below);
}

// y = attention, lse [n,heads] = the logarithm to base 2 of the sum of 2^(scale·score), delta [n,heads] = Σ dy·y of each row. y and lse may
// be null, and delta and dy together. scale is the soft-max's times log2 e and positive. Grid: tiles of tokens; tiles of heads
// (each group's apart); sequences. A warp has 16·M rows; tiles have 64·M rows and N keys.
template <class T, int W, int M, int N, bool DROP>
AD_DEVICE void forward(T *y, float *lse, float *delta, const T *qkv, const T *dy, const Problem &p, float scale, float keep) {
  constexpr int rows = 64 * M;
  AD_DYNAMIC_SHARED(T, tileQ);
  T *const tileK = tileQ + rows * W, *const tileV = tileK + N * W;
  const int lane = threadIdx.x % 32, first = threadIdx.x / 32 * 16 * M;
  const int group = p.heads / p.kvHeads, folded = ((group - 1) >> p.fold) + 1, g = blockIdx.y / folded;
  // Late tokens see the most keys: they go first.
  const Queries q = {(int)blockIdx.z, (gridDim.x - 1 - blockIdx.x) * (rows >> p.fold), g * group + (blockIdx.y % folded << p.fold), (g + 1) * group, p.fold, p.seq};
  const int64_t width = p.width();
  const T *const keys = qkv + (int64_t)q.b * p.seq * width + (p.heads + g) * p.dim, *const values = keys + p.kvHeads * p.dim;
  int least, most;
  bounds<rows>(p, q, lane, least, most);
  const int end = q.clamped(rows - 1) + 1, begin = least / N * N;
  auto key = [&](const T *from, int u) { return u < p.seq ? from + u * width : nullptr; };

  fetch<rows, W>(tileQ, p.dim, qkv, [&](int r) { return q.valid(r) ? qkv + q.at(r, width, p.dim) : nullptr; });
  fetch<N, W>(tileK, p.dim, qkv, [&](int r) { return key(keys, begin + r); });
  ad_cp_commit();

  float out[M][W / 8][4], largest[M][2], sum[M][2];
  clear(out);
  AD_UNROLL
  for (int m = 0; m < M; m++)
    AD_UNROLL
    for (int i = 0; i < 2; i++) largest[m][i] = -kInfinity, sum[m][i] = 0;
  for (int u0 = begin; u0 < end; u0 += N) {
    ad_cp_wait<0>();
    __syncthreads();  // the keys are there, and all are done with the values before
    fetch<N, W>(tileV, p.dim, qkv, [&](int r) { return key(values, u0 + r); });
    ad_cp_commit();
    float s[M][N / 8][4];
    clear(s);
    multiply_rows<W>(s, tileQ, first, tileK, lane);
    ad_cp_wait<0>();
    AD_BUG(attention_barrier, __syncthreads(), );  // the values are there, and all are done with the keys
    if (u0 + N < end) {
      fetch<N, W>(tileK, p.dim, qkv, [&](int r) { return key(keys, u0 + N + r); });
      ad_cp_commit();
    }
    const bool masked = u0 < most || u0 + N - 1 > q.token;
    AD_UNROLL
    for (int m = 0; m < M; m++)
      AD_UNROLL
      for (int i = 0; i < 2; i++) {
        const int r = first + 16 * m + 8 * i + lane / 4, t = q.clamped(r);
        if (masked) {
          const int from = p.start(q.b, t);
          AD_UNROLL
          for (int j = 0; j < N / 8; j++)
            AD_UNROLL
            for (int e = 0; e < 2; e++) {
              const int u = u0 + 8 * j + lane % 4 * 2 + e;
              if (u < from || u > t) s[m][j][2 * i + e] = -kInfinity;
            }
        }
        float top = largest[m][i];
        AD_UNROLL
        for (int j = 0; j < N / 8; j++) top = ad_max(top, ad_max(s[m][j][2 * i], s[m][j][2 * i + 1]));
        top = quad_max(top);
        const float base = top == -kInfinity ? 0.0f : top * scale;
        const float before = ad_exp2(ad_fma(largest[m][i], scale, -base));
        largest[m][i] = top;
        float total = 0;
        AD_UNROLL
        for (int j = 0; j < N / 8; j++)
          AD_UNROLL
          for (int e = 2 * i; e < 2 * i + 2; e++) {
            s[m][j][e] = ad_exp2(ad_fma(s[m][j][e], scale, -base));
            total += s[m][j][e];
          }
        sum[m][i] = ad_fma(sum[m][i], before, total);
        AD_UNROLL
        for (int j = 0; j < W / 8; j++) {
          out[m][j][2 * i] *= before;
          out[m][j][2 * i + 1] *= before;
        }
        if constexpr (DROP) {
          const Drop drop = p.drop();
          const uint64_t element = p.element(q.b, q.h(r), t, u0 + lane % 4 * 2);
          AD_UNROLL
          for (int j = 0; j < N / 8; j++)
            AD_UNROLL
            for (int e = 0; e < 2; e++)
              if (drop.dropped(element + 8 * j + e)) s[m][j][2 * i + e] = 0;
        }
      }
    multiply_columns<W>(out, s, tileV, 0, lane);
  }

  float factor[M][2];
  AD_UNROLL
  for (int m = 0; m < M; m++)
    AD_UNROLL
    for (int i = 0; i < 2; i++) {
      const int r = first + 16 * m + 8 * i + lane / 4;
      const float total = quad_sum(sum[m][i]);
      factor[m][i] = keep / total;
      const int64_t at = q.at(r, p.heads, 1);
      if (lse && lane % 4 == 0 && q.valid(r)) lse[at] = ad_fma(largest[m][i], scale, ad_log2(total));
      if (delta) {
        float d = 0;
        if (q.valid(r)) {
          const T *row = dy + at * p.dim + lane % 4 * 2;
          AD_UNROLL
          for (int j = 0; j < W / 8; j++)
            if (8 * j < p.dim) d += ad_float(row[8 * j]) * out[m][j][2 * i] + ad_float(row[8 * j + 1]) * out[m][j][2 * i + 1];
        }
        d = quad_sum(d) * factor[m][i];
        if (lane % 4 == 0 && q.valid(r)) delta[at] = d;
      }
    }
  if (y) store<W>(out, factor, tileQ, first, p.dim, lane, [&](int r) { return q.valid(r) ? y + q.at(r, (int64_t)p.heads * p.dim, p.dim) : nullptr; });
}

// The queries' columns of dqkv. Grid and rows as forward. delta and lse are forward's.
template <class T, int W, int M, int N, bool DROP>
AD_DEVICE void grad_queries(T *dqkv, const T *dy, const T *qkv, const float *lse, const float *delta, const Problem &p, float scale, float gain, float keep) {
  constexpr int rows = 64 * M;
  AD_DYNAMIC_SHARED(T, tileQ);
  T *const tileG = tileQ + rows * W, *const tiles = tileG + rows * W;  // then keys and values, twice
  const int lane = threadIdx.x % 32, first = threadIdx.x / 32 * 16 * M;
  const int group = p.heads / p.kvHeads, folded = ((group - 1) >> p.fold) + 1, g = blockIdx.y / folded;
  const Queries q = {(int)blockIdx.z, (gridDim.x - 1 - blockIdx.x) * (rows >> p.fold), g * group + (blockIdx.y % folded << p.fold), (g + 1) * group, p.fold, p.seq};
  const int64_t width = p.width();
  const T *const keys = qkv + (int64_t)q.b * p.seq * width + (p.heads + g) * p.dim, *const values = keys + p.kvHeads * p.dim;
  int least, most;
  bounds<rows>(p, q, lane, least, most);
  const int end = q.clamped(rows - 1) + 1, begin = least / N * N;
  auto fetchKeys = [&](int stage, int u0) {
    auto key = [&](const T *from, int u) { return u < p.seq ? from + u * width : nullptr; };
    fetch<N, W>(tiles + stage * 2 * N * W, p.dim, qkv, [&](int r) { return key(keys, u0 + r); });
    fetch<N, W>(tiles + (stage * 2 + 1) * N * W, p.dim, qkv, [&](int r) { return key(values, u0 + r); });
    ad_cp_commit();
  };
  fetch<rows, W>(tileQ, p.dim, qkv, [&](int r) { return q.valid(r) ? qkv + q.at(r, width, p.dim) : nullptr; });
  fetch<rows, W>(tileG, p.dim, qkv, [&](int r) { return q.valid(r) ? dy + q.at(r, (int64_t)p.heads * p.dim, p.dim) : nullptr; });
  fetchKeys(0, begin);

  float dq[M][W / 8][4], sum[M][2], mean[M][2];
  clear(dq);
  AD_UNROLL
  for (int m = 0; m < M; m++)
    AD_UNROLL
    for (int i = 0; i < 2; i++) {
      const int r = first + 16 * m + 8 * i + lane / 4;
      const int64_t at = q.at(r, p.heads, 1);
      sum[m][i] = q.valid(r) ? lse[at] : kInfinity;  // probabilities of rows that do not exist are 0
      mean[m][i] = q.valid(r) ? delta[at] : 0;
    }
  for (int u0 = begin, stage = 0; u0 < end; u0 += N, stage ^= 1) {
    const T *const tileK = tiles + stage * 2 * N * W, *const tileV = tileK + N * W;
    ad_cp_wait<0>();
    AD_BUG(attention_grad_barrier, __syncthreads(), );  // this stage is there, and all are done with the other
    if (u0 + N < end) fetchKeys(stage ^ 1, u0 + N);
    float s[M][N / 8][4], d[M][N / 8][4];
    clear(s);
    clear(d);
    multiply_rows<W>(s, tileQ, first, tileK, lane);
    multiply_rows<W>(d, tileG, first, tileV, lane);
    const bool masked = u0 < most || u0 + N - 1 > q.token;
    AD_UNROLL
    for (int m = 0; m < M; m++)
      AD_UNROLL
      for (int i = 0; i < 2; i++) {
        const int r = first + 16 * m + 8 * i + lane / 4, t = q.clamped(r), from = masked ? p.start(q.b, t) : 0;
        AD_UNROLL
        for (int j = 0; j < N / 8; j++)
          AD_UNROLL
          for (int e = 0; e < 2; e++) {
            const int u = u0 + 8 * j + lane % 4 * 2 + e;
            float x = ad_exp2(ad_fma(s[m][j][2 * i + e], scale, -sum[m][i]));
            if (masked && (u < from || u > t)) x = 0;
            float dx = d[m][j][2 * i + e];
            if constexpr (DROP) dx = p.drop().dropped(p.element(q.b, q.h(r), t, u)) ? 0 : dx * keep;
            s[m][j][2 * i + e] = x * (dx - mean[m][i]);
          }
      }
    multiply_columns<W>(dq, s, tileK, 0, lane);
  }
  float factor[M][2];
  AD_UNROLL
  for (int m = 0; m < M; m++) factor[m][0] = factor[m][1] = gain;
  store<W>(dq, factor, tileQ, first, p.dim, lane, [&](int r) { return q.valid(r) ? dqkv + q.at(r, width, p.dim) : nullptr; });
}

// The keys' and values' columns of dqkv: a block has 64 keys and goes over the queries that see them, of `share` heads of the group in
// turn. With parts [splits,n,2·kvHeads·dim], where splits is the shares of a group, each share's sums are written there (reduce adds
// them), else to dqkv. Tiles have N rows of queries; WO columns of the result are computed at a time.
// Grid: tiles of keys; W/WO times shares times key heads; sequences.
template <class T, int W, int WO, int N, bool DROP>
AD_DEVICE void grad_keys(T *dqkv, float *parts, const T *dy, const T *qkv, const float *lse, const float *delta, const Problem &p, int share, float scale, float gain, float keep) {
  AD_DYNAMIC_SHARED(T, tileK);
  T *const tileV = tileK + 64 * W, *const tiles = tileV + 64 * W;  // then queries and gradients, twice
  AD_SHARED(float, sums, 2 * N);
  AD_SHARED(float, means, 2 * N);
  AD_SHARED(int, starts, 2 * N);
  const int lane = threadIdx.x % 32, first = threadIdx.x / 32 * 16;
  const int group = p.heads / p.kvHeads, shares = (group + share - 1) / share;
  const int column = blockIdx.y % (W / WO) * WO, split = blockIdx.y / (W / WO) % shares, g = blockIdx.y / (W / WO) / shares;
  const int b = blockIdx.z, u0 = blockIdx.x * 64, u1 = u0 + 64 < p.seq ? u0 + 64 : p.seq;
  const int64_t width = p.width(), outWidth = (int64_t)p.heads * p.dim;
  const int head0 = g * group + split * share, headEnd = head0 + share < (g + 1) * group ? head0 + share : (g + 1) * group;
  const T *const keys = qkv + (int64_t)b * p.seq * width + (p.heads + g) * p.dim, *const values = keys + p.kvHeads * p.dim;

  // The last token that sees one of the keys, then the tiles of queries, token by token in one set of heads after the other.
  int beyond = 0;
  for (int t = u0 + lane; t < p.seq; t += 32)
    if (p.start(b, t) < u1) beyond = -t - 1 < beyond ? -t - 1 : beyond;
  const int tokens = N >> p.fold, tokenTiles = (-warp_min(beyond) - u0 + tokens - 1) / tokens;
  const int tilesN = tokenTiles * ((headEnd - head0 + (1 << p.fold) - 1) >> p.fold);
  auto queries = [&](int i) { return Queries{b, u0 + i % tokenTiles * tokens, head0 + (i / tokenTiles << p.fold), headEnd, p.fold, p.seq}; };
  auto fetchQueries = [&](int stage, int i) {
    const Queries q = queries(i);
    fetch<N, W>(tiles + stage * 2 * N * W, p.dim, qkv, [&](int r) { return q.valid(r) ? qkv + q.at(r, width, p.dim) : nullptr; });
    fetch<N, W>(tiles + (stage * 2 + 1) * N * W, p.dim, qkv, [&](int r) { return q.valid(r) ? dy + q.at(r, outWidth, p.dim) : nullptr; });
    ad_cp_commit();
    for (int r = threadIdx.x; r < N; r += kThreads) {
      const int64_t at = q.at(r, p.heads, 1);
      const bool valid = q.valid(r);
      sums[stage * N + r] = valid ? lse[at] : kInfinity;  // probabilities of rows that do not exist are 0
      means[stage * N + r] = valid ? delta[at] : 0;
      starts[stage * N + r] = valid ? p.start(b, q.t(r)) : 0;
    }
  };
  fetch<64, W>(tileK, p.dim, qkv, [&](int r) { return u0 + r < p.seq ? keys + (u0 + r) * width : nullptr; });
  fetch<64, W>(tileV, p.dim, qkv, [&](int r) { return u0 + r < p.seq ? values + (u0 + r) * width : nullptr; });
  fetchQueries(0, 0);

  float dk[1][WO / 8][4], dv[1][WO / 8][4];
  clear(dk);
  clear(dv);
  for (int i = 0, stage = 0; i < tilesN; i++, stage ^= 1) {
    const T *const tileQ = tiles + stage * 2 * N * W, *const tileG = tileQ + N * W;
    ad_cp_wait<0>();
    AD_BUG(attention_grad_keys_barrier, __syncthreads(), );  // this stage is there, and all are done with the other
    if (i + 1 < tilesN) fetchQueries(stage ^ 1, i + 1);
    const Queries q = queries(i);
    float s[1][N / 8][4], d[1][N / 8][4];  // of keys by queries
    clear(s);
    clear(d);
    multiply_rows<W>(s, tileK, first, tileQ, lane);
    multiply_rows<W>(d, tileV, first, tileG, lane);
    AD_UNROLL
    for (int j = 0; j < N / 8; j++)
      AD_UNROLL
      for (int e = 0; e < 2; e++) {
        const int r = 8 * j + lane % 4 * 2 + e, t = q.t(r), start = starts[stage * N + r];
        const float sum = sums[stage * N + r], mean = means[stage * N + r];
        AD_UNROLL
        for (int i = 0; i < 2; i++) {
          const int u = u0 + first + 8 * i + lane / 4;
          float x = ad_exp2(ad_fma(s[0][j][2 * i + e], scale, -sum)), dx = d[0][j][2 * i + e];
          if (u < start || u > t) x = 0;
          float kept = x;
          if constexpr (DROP) {
            const float k = p.drop().dropped(p.element(b, q.h(r), t, u)) ? 0 : keep;
            kept *= k;
            dx *= k;
          }
          s[0][j][2 * i + e] = kept;
          d[0][j][2 * i + e] = x * (dx - mean);
        }
      }
    multiply_columns<W>(dv, s, tileG, column, lane);
    multiply_columns<W>(dk, d, tileQ, column, lane);
  }
  if (parts) {
    AD_UNROLL
    for (int i = 0; i < 2; i++) {
      const int u = u0 + first + 8 * i + lane / 4;
      if (u >= p.seq) continue;
      const int64_t rows = (int64_t)gridDim.z * p.seq;
      float *row = parts + ((split * rows + (int64_t)b * p.seq + u) * 2 * p.kvHeads + g) * p.dim + column + lane % 4 * 2;
      AD_UNROLL
      for (int j = 0; j < WO / 8; j++)
        if (column + 8 * j < p.dim)
          AD_UNROLL
          for (int e = 0; e < 2; e++) {
            row[8 * j + e] = dk[0][j][2 * i + e] * gain;
            row[p.kvHeads * p.dim + 8 * j + e] = dv[0][j][2 * i + e];
          }
    }
    return;
  }
  T *const out = dqkv + (int64_t)b * p.seq * width + (p.heads + g) * p.dim + column;
  const float gains[1][2] = {{gain, gain}}, ones[1][2] = {{1, 1}};
  store<W>(dk, gains, tileK, first, p.dim - column, lane, [&](int r) { return u0 + r < p.seq ? out + (u0 + r) * width : nullptr; });
  store<W>(dv, ones, tileV, first, p.dim - column, lane, [&](int r) { return u0 + r < p.seq ? out + p.kvHeads * p.dim + (u0 + r) * width : nullptr; });
}

}  // namespace attention

#define ATTENTION_PROBLEM int32_t heads, int32_t kvHeads, int32_t dim, int32_t seq, int32_t fold, int32_t salt, int32_t threshold
#define ATTENTION_GIVEN attention::Problem{heads, kvHeads, dim, seq, fold, docStart, key, (uint32_t)salt, (uint32_t)threshold}

// The kernels of tiles W wide, without and with dropout. M and N: forward's; MQ, NQ: grad_queries'; WO, NK: grad_keys'.
#define ATTENTION_KERNELS(W, M, N, MQ, NQ, WO, NK) \
  ATTENTION_KERNELS_OF(W, M, N, MQ, NQ, WO, NK, bf16, bf16, , false) ATTENTION_KERNELS_OF(W, M, N, MQ, NQ, WO, NK, bf16, bf16, drop_, true) \
  ATTENTION_KERNELS_OF(W, M, N, MQ, NQ, WO, NK, f16, f16, , false) ATTENTION_KERNELS_OF(W, M, N, MQ, NQ, WO, NK, f16, f16, drop_, true)

#define ATTENTION_KERNELS_OF(W, M, N, MQ, NQ, WO, NK, S, T, D, DROP)                                                                              \
  AD_KERNEL(attention##W##_##D##S, (T * y, float *lse, float *delta, const T *qkv, const T *dy, const int32_t *docStart, const int32_t *key, ATTENTION_PROBLEM, float scale, float keep), 128) { \
    attention::forward<T, W, M, N, DROP>(y, lse, delta, qkv, dy, ATTENTION_GIVEN, scale, keep);                                                   \
  }                                                                                                                                               \
  AD_KERNEL(attention##W##_grad_queries_##D##S, (T * dqkv, const T *dy, const T *qkv, const int32_t *docStart, const int32_t *key, const float *lse, const float *delta, ATTENTION_PROBLEM, float scale, float gain, float keep), 128) { \
    attention::grad_queries<T, W, MQ, NQ, DROP>(dqkv, dy, qkv, lse, delta, ATTENTION_GIVEN, scale, gain, keep);                                   \
  }                                                                                                                                               \
  AD_KERNEL(attention##W##_grad_keys_##D##S, (T * dqkv, float *parts, const T *dy, const T *qkv, const int32_t *docStart, const int32_t *key, const float *lse, const float *delta, ATTENTION_PROBLEM, int32_t share, float scale, float gain, float keep), 128) { \
    attention::grad_keys<T, W, WO, NK, DROP>(dqkv, parts, dy, qkv, lse, delta, ATTENTION_GIVEN, share, scale, gain, keep);                        \
  }
