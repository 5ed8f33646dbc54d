// Causal soft-max attention on tensor cores, forward and backward. The scores exist a tile at a time, in registers (Dao 2023,
// FlashAttention-2, arXiv 2307.08691). attention64.cu, attention128.cu and attention256.cu make the kernels of one width of tiles each: the
// head dimension, a multiple of 8, is filled up to it with zeros.
//
// A block is four warps. Each multiplies 16 rows (or keys) of its own with the whole tile of the other side, so that soft-max and
// the products' second operands stay in the warp's registers.
#pragma once
#include "attention.h"

namespace attention {

constexpr int kThreads = 128;
// Of the base of forward's powers of two: where it begins, and how far the largest score may be above it before it follows.
constexpr float kLowest = -0x1p126f, kBehind = 8;

// Tiles in shared memory: rows of W elements, of whose 16-byte pieces each eight are permuted by the row, so that eight rows' pieces of
// one column lie in different banks.
template <int W>
AD_DEVICE int tile_at(int row, int piece) { return row * W + ((piece ^ (row & 7)) << 3); }

// What one of THREADS threads copies of tiles W wide: piece `piece` of the rows row, row + step, …
template <int W, int THREADS = kThreads>
struct Copier {
  static constexpr int step = THREADS / (W / 8);
  int row, piece;

  // Begins to copy ROWS rows from positions position, position + apart, …; those from `end` on, and columns from dim on, are zeros. from is
  // the thread's piece at position 0, stride the elements between positions.
  template <int ROWS, class T>
  AD_DEVICE void copy(ad_shared tile, const T *from, int stride, int position, int apart, int end, bool inside) const {
    const int to = ad_opaque(row * 2 * W + ((piece ^ (row & 7)) << 4));
    position = ad_opaque(position);
    stride = ad_opaque(stride);
    apart = ad_opaque(apart);
    from += (int64_t)position * stride;
    AD_UNROLL
    for (int i = 0; i < ROWS / step; i++) {
      ad_cp_async16(tile + i * step * 2 * W + (to ^ (i * step & 7) << 4), from, inside && position < end);
      position += apart;
      from += (int64_t)apart * stride;
    }
  }
};
template <int W>
AD_DEVICE Copier<W> copier_of() { return Copier<W>{(int)threadIdx.x / (W / 8), (int)threadIdx.x % (W / 8)}; }

// The bytes from a tile's beginning to what a lane addresses in ldmatrix, for columns 16·step.., with rows 0.. as first rows of a
// fragment; wide has the tile's rows as rows of a, or transposed as those of b, and narrow as columns of b.
template <int W>
struct Lane {
  int wide, narrow;

  static AD_DEVICE int at(int lane, int step) { return (lane ^ (2 * step & 7) << 4) + ((2 * step & ~7) << 4); }
};
template <int W>
AD_DEVICE Lane<W> here(Lane<W> l) { return Lane<W>{ad_opaque(l.wide), ad_opaque(l.narrow)}; }
template <int W>
AD_DEVICE Lane<W> lane_of(int lane) {
  return Lane<W>{lane % 16 * 2 * W + ((lane / 16 ^ (lane & 7)) << 4), (lane / 16 * 8 + lane % 8) * 2 * W + ((lane / 8 % 2 ^ (lane & 7)) << 4)};
}

// The fragment a of ad_mma of rows row.. and columns 16·step.. of a tile.
template <int W>
AD_DEVICE void load_a(uint32_t a[4], ad_shared tile, int row, int step, Lane<W> l) {
  ad_ldmatrix4<false>(a, tile + row * 2 * W + Lane<W>::at(l.wide, step));
}
// The fragments b of two products: rows row.. and row+8.. of a tile are columns of b, columns 16·step.. of the tile its rows.
template <int W>
AD_DEVICE void load_b(uint32_t b[4], ad_shared tile, int row, int step, Lane<W> l) {
  ad_ldmatrix4<false>(b, tile + row * 2 * W + Lane<W>::at(l.narrow, step));
}
// The fragments b of two products: columns 16·step.. and 8 more of a tile are columns of b, rows row.. of the tile its rows.
template <int W>
AD_DEVICE void load_b_transposed(uint32_t b[4], ad_shared tile, int row, int step, Lane<W> l) {
  ad_ldmatrix4<true>(b, tile + row * 2 * W + Lane<W>::at(l.wide, AD_BUG(attention_fragment, step, step ^ 1)));
}

// c[m][j] += rows first + 16m.. of a times rows 8j.. of b, over all W columns.
template <class T, int W, int M, int N>
AD_DEVICE void multiply_rows(float (&c)[M][N][4], ad_shared a, int first, ad_shared b, Lane<W> lane) {
  AD_UNROLL
  for (int k = 0; k < W / 16; k++) {
    uint32_t fa[M][4];
    AD_UNROLL
    for (int m = 0; m < M; m++) load_a(fa[m], a, first + 16 * m, k, lane);
    AD_UNROLL
    for (int j = 0; j < N; j += 2) {
      uint32_t fb[4];
      load_b(fb, b, 8 * j, k, lane);
      AD_UNROLL
      for (int m = 0; m < M; m++) {
        ad_mma<T>(c[m][j], fa[m], fb);
        ad_mma<T>(c[m][j + 1], fa[m], fb + 2);
      }
    }
  }
}

// c[m][j] += p[m] times columns 8j.. of the tile b, which begins at the first of them. p is an accumulator in pairs of T: rows g and g+8 of
// columns 8k..
template <class T, int W, int M, int K, int N>
AD_DEVICE void multiply_columns(float (&c)[M][N][4], const uint32_t (&p)[M][K][2], ad_shared b, Lane<W> lane) {
  AD_UNROLL
  for (int k = 0; k < K; k += 2) {
    uint32_t fa[M][4];
    AD_UNROLL
    for (int m = 0; m < M; m++) fa[m][0] = p[m][k][0], fa[m][1] = p[m][k][1], fa[m][2] = p[m][k + 1][0], fa[m][3] = p[m][k + 1][1];
    AD_UNROLL
    for (int j = 0; j < N; j += 2) {
      uint32_t fb[4];
      load_b_transposed(fb, b, 8 * k, j / 2, lane);
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

// What is dropped of a lane's probabilities in an accumulator of rows of queries by 8·N keys: bit 4j + e of rows[i] is column 8j + e of the
// row half i. first is the element of the lane's first column, of either half. Where sequences are a multiple of four tokens, four
// columns are one block of random words: a lane makes those of one half for itself and its neighbour.
template <int N>
AD_DEVICE void dropped_columns(uint32_t (&rows)[2], const Drop &drop, const uint64_t (&first)[2], int seq, int lane) {
  if (seq % 4 == 0) {
    const bool odd = lane & 1;
    uint64_t block = (odd ? first[1] - 2 : first[0]) >> 2;
    uint32_t mine = 0;
    AD_ROLL
    for (int j = 0; j < N; j++, block += 2) {
      const ad_u4 w = drop.words(block);
      AD_UNROLL
      for (int k = 0; k < 4; k++) mine |= (uint32_t)(w[k] < drop.threshold) << (4 * j + k);
    }
    const uint32_t other = ad_shuffle_xor(AD_ALL, mine, 1);
    rows[0] = odd ? other >> 2 : mine;
    rows[1] = odd ? mine >> 2 : other;
    return;
  }
  AD_UNROLL
  for (int i = 0; i < 2; i++) {
    rows[i] = 0;
    AD_ROLL
    for (int j = 0; j < N; j++)
      for (int e = 0; e < 2; e++) rows[i] |= (uint32_t)drop.dropped(first[i] + 8 * j + e) << (4 * j + e);
  }
}

// The same for an accumulator of keys by 8·N rows of queries: bit 4j + lane/4%4 of sets[e + 2i] is key u + 8i and row 8j + e; element(j, e) is that of
// key u, the lane's own, in row 8j + e of the lane's. Four keys are one block of random words, which four lanes need: each makes one of the sets.
template <int N, class F>
AD_DEVICE void dropped_rows(uint32_t (&sets)[4], const Drop &drop, F element, int seq, int lane) {
  const int k = lane / 4 % 4;
  if (seq % 4 == 0) {
    uint32_t mine = 0;
    AD_ROLL
    for (int j = 0; j < N; j++) {
      const ad_u4 w = drop.words((element(j, k & 1) + 8 * (k >> 1)) >> 2);
      AD_UNROLL
      for (int i = 0; i < 4; i++) mine |= (uint32_t)(w[i] < drop.threshold) << (4 * j + i);
    }
    AD_UNROLL
    for (int i = 0; i < 4; i++) sets[i] = ad_shuffle(AD_ALL, mine, (lane & ~12) | i << 2);
    return;
  }
  AD_UNROLL
  for (int i = 0; i < 4; i++) {
    sets[i] = 0;
    AD_ROLL
    for (int j = 0; j < N; j++) sets[i] |= (uint32_t)drop.dropped(element(j, i & 1) + 8 * (i >> 1)) << (4 * j + k);
  }
}

// Begins to copy a tile of queries from columns of heads of dim elements.
template <int ROWS, class T, int W>
AD_DEVICE void fetch_queries(ad_shared tile, const T *x, int stride, const Queries &q, int dim, Copier<W> c) {
  const T *from = x + (int64_t)q.b * q.seq * stride + q.h(c.row) * dim + c.piece * 8;
  c.template copy<ROWS>(tile, from, stride, q.t(c.row), c.step >> q.fold, q.seq, c.piece * 8 < dim && q.h(c.row) < q.headEnd);
}

// The block's tile of queries. Late tokens see the most keys: they go first, of all heads and sequences.
template <int ROWS>
AD_DEVICE Queries queries_of_block(const Problem &p) {
  const int group = p.heads / p.kvHeads, folded = ((group - 1) >> p.fold) + 1, y = ad_opaque(blockIdx.x), g = y / folded;
  return Queries{(int)ad_opaque(blockIdx.y), (int)(gridDim.z - 1 - ad_opaque(blockIdx.z)) * (ROWS >> p.fold), g * group + (y % folded << p.fold), (g + 1) * group, p.fold, p.seq};
}

// y = attention, lse [n,heads] = the logarithm of the sum of e^score, unless it is null. scale is the soft-max's times log2 e and positive.
// Grid: tiles of heads (each group's apart); sequences; tiles of tokens. A warp has 16·M rows; tiles have 64·M rows and N keys.
template <class T, int W, int M, int N, bool DROP>
AD_DEVICE void forward(T *y, float *lse, const T *qkv, const Problem &p, float scale, float keep) {
  constexpr int rows = 64 * M;
  AD_DYNAMIC_SHARED(T, memory);
  const ad_shared tileQ = ad_shared_address(memory), tileK = tileQ + rows * 2 * W, tileV = tileK + N * 2 * W;
  const int lane = threadIdx.x % 32, first = threadIdx.x / 32 * 16 * M;
  const Lane<W> lanes = lane_of<W>(lane);
  const Queries q = queries_of_block<rows>(p);
  const int g = q.head / (p.heads / p.kvHeads);
  const int width = p.width();
  const Copier<W> copier = copier_of<W>();
  const bool inside = copier.piece * 8 < p.dim;
  const T *const keys = qkv + (int64_t)q.b * p.seq * width + (p.heads + g) * p.dim + copier.piece * 8;
  int least, most;
  bounds<rows>(p, q, lane, least, most);
  const int end = q.clamped(rows - 1) + 1, begin = least / N * N;
  auto fetch = [&](ad_shared tile, int from, int u0) {
    copier.template copy<N>(tile, keys + ad_opaque(from), width, u0 + copier.row, copier.step, p.seq, inside);
    ad_cp_commit();
  };
  fetch_queries<rows>(tileQ, qkv, width, q, p.dim, copier);
  fetch(tileK, 0, begin);

  float out[M][W / 8][4], base[M][2], sum[M][2];
  clear(out);
  AD_UNROLL
  for (int m = 0; m < M; m++)
    AD_UNROLL
    for (int i = 0; i < 2; i++) base[m][i] = kLowest, sum[m][i] = 0;
  for (int u0 = begin; u0 < end; u0 += N) {
    const Lane<W> at = here(lanes);
    const int row = ad_opaque(first + lane / 4);
    ad_cp_wait<0>();
    AD_BUG(attention_barrier, __syncthreads(), );  // the keys are there, and all are done with the values before
    fetch(tileV, p.kvHeads * p.dim, u0);
    float s[M][N / 8][4];
    clear(s);
    multiply_rows<T>(s, tileQ, first, tileK, at);
    ad_cp_wait<0>();
    AD_BUG(attention_values_barrier, __syncthreads(), );  // the values are there, and all are done with the keys
    const bool masked = u0 < most || u0 + N - 1 > q.token;
    uint32_t probabilities[M][N / 8][2];
    AD_UNROLL
    for (int m = 0; m < M; m++) {
      uint32_t dropped[2] = {};
      if constexpr (DROP) {
        uint64_t element[2];
        AD_UNROLL
        for (int i = 0; i < 2; i++) {
          const int r = row + 16 * m + 8 * i;
          element[i] = p.element(q.b, q.h(r), q.clamped(r), u0 + lane % 4 * 2);
        }
        dropped_columns<N / 8>(dropped, p.drop(), element, p.seq, lane);
      }
      AD_UNROLL
      for (int i = 0; i < 2; i++) {
        if (masked) {
          const int r = row + 16 * m + 8 * i, t = q.clamped(r), from = p.start(q.b, t);
          AD_UNROLL
          for (int j = 0; j < N / 8; j++)
            AD_UNROLL
            for (int e = 0; e < 2; e++) {
              const int u = u0 + 8 * j + lane % 4 * 2 + e;
              if (u < from || u > t) s[m][j][2 * i + e] = -kInfinity;
            }
        }
        float top = s[m][0][2 * i];
        AD_UNROLL
        for (int j = 0; j < N / 8; j++) top = ad_max(top, ad_max(s[m][j][2 * i], s[m][j][2 * i + 1]));
        top = quad_max(top);
        // The base of the powers follows the largest score only when it is far behind: sums and products then need no correction.
        const bool behind = ad_fma(top, scale, -base[m][i]) > kBehind;
        if (__ballot_sync(AD_ALL, behind)) {
          const float next = behind ? top * scale : base[m][i], factor = behind ? ad_exp2(base[m][i] - next) : 1.0f;
          base[m][i] = next;
          sum[m][i] *= factor;
          AD_UNROLL
          for (int j = 0; j < W / 8; j++) {
            out[m][j][2 * i] *= factor;
            out[m][j][2 * i + 1] *= factor;
          }
        }
        AD_UNROLL
        for (int j = 0; j < N / 8; j++) {
          float x[2];
          AD_UNROLL
          for (int e = 0; e < 2; e++) {
            x[e] = ad_exp2(ad_fma(s[m][j][2 * i + e], scale, -base[m][i]));
            sum[m][i] += x[e];
            if constexpr (DROP)
              if (dropped[i] >> (4 * j + e) & 1) x[e] = 0;
          }
          probabilities[m][j][i] = ad_pack<T>(x[0], x[1]);
        }
      }
    }
    __syncwarp();  // what follows is not begun before, which would take registers
    if (u0 + N < end) fetch(tileK, 0, u0 + N);
    multiply_columns<T>(out, probabilities, tileV, at);
  }

  const Queries done = queries_of_block<rows>(p);
  float factor[M][2];
  AD_UNROLL
  for (int m = 0; m < M; m++)
    AD_UNROLL
    for (int i = 0; i < 2; i++) {
      const int r = first + 16 * m + 8 * i + lane / 4;
      const float total = quad_sum(sum[m][i]);
      factor[m][i] = keep / total;
      if (lse && lane % 4 == 0 && done.valid(r)) lse[done.at(r, p.heads, 1)] = (base[m][i] + ad_log2(total)) * kLn2;
    }
  store<W>(out, factor, memory, first, p.dim, lane, [&](int r) { return done.valid(r) ? y + done.at(r, (int64_t)p.heads * p.dim, p.dim) : nullptr; });
}

// The queries' columns of dqkv, and delta [n,heads] = Σ dy·y of each row. y and lse are forward's; grid and rows as there.
template <class T, int W, int M, int N, bool DROP>
AD_DEVICE void grad_queries(T *dqkv, float *delta, const T *dy, const T *y, const T *qkv, const float *lse, const Problem &p, float scale, float gain, float keep) {
  constexpr int rows = 64 * M;
  AD_DYNAMIC_SHARED(T, memory);
  const ad_shared tileQ = ad_shared_address(memory), tileG = tileQ + rows * 2 * W, tiles = tileG + rows * 2 * W;  // then keys and values, twice
  const int lane = threadIdx.x % 32, first = threadIdx.x / 32 * 16 * M;
  const Lane<W> lanes = lane_of<W>(lane);
  const Queries q = queries_of_block<rows>(p);
  const int g = q.head / (p.heads / p.kvHeads);
  const int width = p.width();
  const Copier<W> copier = copier_of<W>();
  const bool inside = copier.piece * 8 < p.dim;
  const T *const keys = qkv + (int64_t)q.b * p.seq * width + (p.heads + g) * p.dim + copier.piece * 8;
  int least, most;
  bounds<rows>(p, q, lane, least, most);
  const int end = q.clamped(rows - 1) + 1, begin = least / N * N;
  auto fetch = [&](int stage, int u0) {
    copier.template copy<N>(tiles + stage * 4 * N * W, keys, width, u0 + copier.row, copier.step, p.seq, inside);
    copier.template copy<N>(tiles + stage * 4 * N * W + 2 * N * W, keys + ad_opaque(p.kvHeads * p.dim), width, u0 + copier.row, copier.step, p.seq, inside);
    ad_cp_commit();
  };
  fetch_queries<rows>(tileQ, qkv, width, q, p.dim, copier);
  fetch_queries<rows>(tileG, dy, p.heads * p.dim, q, p.dim, copier);
  fetch(0, begin);

  float dq[M][W / 8][4], sum[M][2], mean[M][2];
  clear(dq);
  AD_UNROLL
  for (int m = 0; m < M; m++)
    AD_UNROLL
    for (int i = 0; i < 2; i++) {
      const int r = first + 16 * m + 8 * i + lane / 4;
      const int64_t element = q.at(r, p.heads, 1);
      const bool valid = q.valid(r);
      sum[m][i] = valid ? lse[element] * kLog2e : kInfinity;  // probabilities of rows that do not exist are 0
      float d = 0;
      for (int column = lane % 4 * 8; valid && column < p.dim; column += 32) {
        const ad_vector<T> a = ad_load(dy + element * p.dim + column), b = ad_load(y + element * p.dim + column);
        AD_UNROLL
        for (int e = 0; e < 8; e++) d = ad_fma(a[e], b[e], d);
      }
      mean[m][i] = quad_sum(d);
      if (valid && lane % 4 == 0) delta[element] = mean[m][i];
    }
  for (int u0 = begin, stage = 0; u0 < end; u0 += N, stage ^= 1) {
    const Lane<W> at = here(lanes);
    const int row = ad_opaque(first + lane / 4);
    const ad_shared tileK = tiles + stage * 4 * N * W, tileV = tileK + 2 * N * W;
    ad_cp_wait<0>();
    AD_BUG(attention_grad_barrier, __syncthreads(), );  // this stage is there, and all are done with the other
    if (u0 + N < end) fetch(stage ^ 1, u0 + N);
    float s[M][N / 8][4], d[M][N / 8][4];
    clear(s);
    clear(d);
    multiply_rows<T>(s, tileQ, first, tileK, at);
    multiply_rows<T>(d, tileG, first, tileV, at);
    const bool masked = u0 < most || u0 + N - 1 > q.token;
    uint32_t scores[M][N / 8][2];  // their gradients
    AD_UNROLL
    for (int m = 0; m < M; m++) {
      uint32_t dropped[2] = {};
      if constexpr (DROP) {
        uint64_t element[2];
        AD_UNROLL
        for (int i = 0; i < 2; i++) {
          const int r = row + 16 * m + 8 * i;
          element[i] = p.element(q.b, q.h(r), q.clamped(r), u0 + lane % 4 * 2);
        }
        dropped_columns<N / 8>(dropped, p.drop(), element, p.seq, lane);
      }
      AD_UNROLL
      for (int i = 0; i < 2; i++) {
        const int r = row + 16 * m + 8 * i, t = q.clamped(r), from = masked ? p.start(q.b, t) : 0;
        AD_UNROLL
        for (int j = 0; j < N / 8; j++) {
          float ds[2];
          AD_UNROLL
          for (int e = 0; e < 2; e++) {
            const int u = u0 + 8 * j + lane % 4 * 2 + e;
            float x = ad_exp2(ad_fma(s[m][j][2 * i + e], scale, -sum[m][i]));
            if (masked && (u < from || u > t)) x = 0;
            float dx = d[m][j][2 * i + e];
            if constexpr (DROP) dx = dropped[i] >> (4 * j + e) & 1 ? 0 : dx * keep;
            ds[e] = x * (dx - mean[m][i]);
          }
          scores[m][j][i] = ad_pack<T>(ds[0], ds[1]);
        }
      }
    }
    __syncwarp();  // as in forward
    multiply_columns<T>(dq, scores, tileK, at);
  }
  const Queries done = queries_of_block<rows>(p);
  float factor[M][2];
  AD_UNROLL
  for (int m = 0; m < M; m++) factor[m][0] = factor[m][1] = gain;
  store<W>(dq, factor, memory, first, p.dim, lane, [&](int r) { return done.valid(r) ? dqkv + done.at(r, width, p.dim) : nullptr; });
}

// The keys' and values' columns of dqkv: a block has 64 keys and goes over the queries that see them, of `share` heads of the group in
// turn. With parts [splits,n,2·kvHeads·dim], where splits is the shares of a group, each share's sums are written there (reduce adds
// them), else to dqkv. Tiles have N rows of queries; WO columns of the result are computed at a time.
// Grid: W/WO times shares times key heads; sequences; tiles of keys, of which the first are seen by the most queries.
template <class T, int W, int WO, int N, bool DROP>
AD_DEVICE void grad_keys(T *dqkv, float *parts, const T *dy, const T *qkv, const float *lse, const float *delta, const Problem &p, int share, float scale, float gain, float keep) {
  AD_DYNAMIC_SHARED(T, memory);
  const ad_shared tileK = ad_shared_address(memory), tileV = tileK + 64 * 2 * W, tiles = tileV + 64 * 2 * W;  // then queries and gradients, twice
  AD_SHARED(float, sums, 2 * N);
  AD_SHARED(float, means, 2 * N);
  AD_SHARED(int, starts, 2 * N);
  const int lane = threadIdx.x % 32, first = threadIdx.x / 32 * 16;
  const Lane<W> lanes = lane_of<W>(lane);
  const int group = p.heads / p.kvHeads, shares = (group + share - 1) / share;
  const int column = blockIdx.x % (W / WO) * WO, split = blockIdx.x / (W / WO) % shares, g = blockIdx.x / (W / WO) / shares;
  const int b = blockIdx.y, u0 = blockIdx.z * 64, u1 = u0 + 64 < p.seq ? u0 + 64 : p.seq;
  const int width = p.width();
  const Copier<W> copier = copier_of<W>();
  const bool inside = copier.piece * 8 < p.dim;
  const int head0 = g * group + split * share, headEnd = head0 + share < (g + 1) * group ? head0 + share : (g + 1) * group;
  const T *const keys = qkv + (int64_t)b * p.seq * width + (p.heads + g) * p.dim + copier.piece * 8;

  // The last token that sees one of the keys, then the tiles of queries, token by token in one set of heads after the other.
  int beyond = 0;
  for (int t = u0 + lane; t < p.seq; t += 32)
    if (p.start(b, t) < u1) beyond = -t - 1 < beyond ? -t - 1 : beyond;
  const int tokens = N >> p.fold, tokenTiles = (-warp_min(beyond) - u0 + tokens - 1) / tokens;
  const int limit = u0 + tokenTiles * tokens;
  auto fetchQueries = [&](int stage, const Queries &q) {
    fetch_queries<N>(tiles + stage * 4 * N * W, qkv, width, q, p.dim, copier);
    fetch_queries<N>(tiles + stage * 4 * N * W + 2 * N * W, dy, p.heads * p.dim, q, p.dim, copier);
    ad_cp_commit();
    for (int r = threadIdx.x; r < N; r += kThreads) {
      const int64_t element = q.at(r, p.heads, 1);
      const bool valid = q.valid(r);
      sums[stage * N + r] = valid ? lse[element] * kLog2e : kInfinity;  // probabilities of rows that do not exist are 0
      means[stage * N + r] = valid ? delta[element] : 0;
      starts[stage * N + r] = valid ? p.start(b, q.t(r)) : 0;
    }
  };
  copier.template copy<64>(tileK, keys, width, u0 + copier.row, copier.step, p.seq, inside);
  copier.template copy<64>(tileV, keys + p.kvHeads * p.dim, width, u0 + copier.row, copier.step, p.seq, inside);
  Queries next = {b, u0, head0, headEnd, p.fold, p.seq};
  fetchQueries(0, next);

  float dk[1][WO / 8][4], dv[1][WO / 8][4];
  clear(dk);
  clear(dv);
  for (int stage = 0; next.head < headEnd; stage ^= 1) {
    const Lane<W> at = here(lanes);
    const ad_shared tileQ = tiles + stage * 4 * N * W, tileG = tileQ + 2 * N * W;
    ad_cp_wait<0>();
    AD_BUG(attention_grad_keys_barrier, __syncthreads(), );  // this stage is there, and all are done with the other
    const Queries q = next;
    next.token += tokens;
    if (next.token >= limit) next.token = u0, next.head += 1 << p.fold;
    if (next.head < headEnd) fetchQueries(stage ^ 1, next);
    float s[1][N / 8][4], d[1][N / 8][4];  // of keys by queries
    clear(s);
    clear(d);
    multiply_rows<T>(s, tileK, first, tileQ, at);
    multiply_rows<T>(d, tileV, first, tileG, at);
    uint32_t dropped[4] = {};
    if constexpr (DROP) {
      auto element = [&](int j, int e) {
        const int r = 8 * j + lane % 4 * 2 + e;
        return p.element(b, q.h(r), q.t(r), u0 + first + lane / 4);
      };
      dropped_rows<N / 8>(dropped, p.drop(), element, p.seq, lane);
    }
    uint32_t probabilities[1][N / 8][2], scores[1][N / 8][2];  // as kept by dropout; their gradients
    AD_UNROLL
    for (int j = 0; j < N / 8; j++) {
      float kept[2][2], ds[2][2];
      AD_UNROLL
      for (int e = 0; e < 2; e++) {
        const int r = 8 * j + lane % 4 * 2 + e, t = q.t(r), start = starts[stage * N + r];
        const float sum = sums[stage * N + r], mean = means[stage * N + r];
        AD_UNROLL
        for (int i = 0; i < 2; i++) {
          const int u = u0 + first + 8 * i + lane / 4;
          float x = ad_exp2(ad_fma(s[0][j][2 * i + e], scale, -sum)), dx = d[0][j][2 * i + e];
          if (u < start || u > t) x = 0;
          kept[i][e] = x;
          if constexpr (DROP) {
            const float k = dropped[e + 2 * i] >> (4 * j + lane / 4 % 4) & 1 ? 0 : keep;
            kept[i][e] *= k;
            dx *= k;
          }
          ds[i][e] = x * (dx - mean);
        }
      }
      AD_UNROLL
      for (int i = 0; i < 2; i++) probabilities[0][j][i] = ad_pack<T>(kept[i][0], kept[i][1]), scores[0][j][i] = ad_pack<T>(ds[i][0], ds[i][1]);
    }
    multiply_columns<T>(dv, probabilities, tileG + 2 * column, at);
    multiply_columns<T>(dk, scores, tileQ + 2 * column, at);
  }
  if (parts) {
    AD_UNROLL
    for (int i = 0; i < 2; i++) {
      const int u = u0 + first + 8 * i + lane / 4;
      if (u >= p.seq) continue;
      const int64_t rows = (int64_t)gridDim.y * p.seq;
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
  store<W>(dk, gains, memory, first, p.dim - column, lane, [&](int r) { return u0 + r < p.seq ? out + (u0 + r) * width : nullptr; });
  store<W>(dv, ones, memory + 64 * W, first, p.dim - column, lane, [&](int r) { return u0 + r < p.seq ? out + p.kvHeads * p.dim + (u0 + r) * width : nullptr; });
}

}  // namespace attention

// The kernels of tiles W wide, without and with dropout. M and N: forward's; MQ, NQ: grad_queries'; WO, NK: grad_keys'.
#define ATTENTION_KERNELS(W, M, N, MQ, NQ, WO, NK) \
  ATTENTION_KERNELS_OF(W, M, N, MQ, NQ, WO, NK, bf16, bf16, , false) ATTENTION_KERNELS_OF(W, M, N, MQ, NQ, WO, NK, bf16, bf16, drop_, true) \
  ATTENTION_KERNELS_OF(W, M, N, MQ, NQ, WO, NK, f16, f16, , false) ATTENTION_KERNELS_OF(W, M, N, MQ, NQ, WO, NK, f16, f16, drop_, true)

#define ATTENTION_KERNELS_OF(W, M, N, MQ, NQ, WO, NK, S, T, D, DROP)                                                                              \
  AD_KERNEL(attention##W##_##D##S, (T * y, float *lse, const T *qkv, const int32_t *docStart, const int32_t *key, ATTENTION_PROBLEM, float scale, float keep), 128) { \
    attention::forward<T, W, M, N, DROP>(y, lse, qkv, ATTENTION_GIVEN, scale, keep);                                                              \
  }                                                                                                                                               \
  AD_KERNEL(attention##W##_grad_queries_##D##S, (T * dqkv, float *delta, const T *dy, const T *y, const T *qkv, const int32_t *docStart, const int32_t *key, const float *lse, ATTENTION_PROBLEM, float scale, float gain, float keep), 128) { \
    attention::grad_queries<T, W, MQ, NQ, DROP>(dqkv, delta, dy, y, qkv, lse, ATTENTION_GIVEN, scale, gain, keep);                                \
  }                                                                                                                                               \
  AD_KERNEL(attention##W##_grad_keys_##D##S, (T * dqkv, float *parts, const T *dy, const T *qkv, const int32_t *docStart, const int32_t *key, const float *lse, const float *delta, ATTENTION_PROBLEM, int32_t share, float scale, float gain, float keep), 128) { \
    attention::grad_keys<T, W, WO, NK, DROP>(dqkv, parts, dy, qkv, lse, delta, ATTENTION_GIVEN, share, scale, gain, keep);                        \
  }
