// The gradients of causal soft-max attention by products of warpgroups: grad_queries and grad_keys of attention_tensor.h without dropout, for compute
// capability 9.0. attention64_hopper_grad.cu and attention128_hopper_grad.cu make the kernels of one width of tiles each.
//
// A block owns 128 rows of queries, or 128 keys. The first of its three warpgroups copies tiles of the other side into a ring of stages; the others multiply 64
// of the block's rows each with them. They wait for a stage apart from one another, so that what one does between its products, the other's products hide.
#pragma once
#include "attention_hopper.h"

namespace attention {
namespace hopper {

constexpr int kTile = 64, kStages = 4;  // rows of a stage's tiles

// Named barriers: a stage's tiles are there, for one warpgroup; both are done with them; both are done with all.
AD_DEVICE int full(int stage, int group) { return 1 + 3 * stage + group; }
AD_DEVICE int empty(int stage) { return 3 + 3 * stage; }
constexpr int kDone = 1 + 3 * kStages;

AD_DEVICE int after(int stage) { return stage + 1 < kStages ? stage + 1 : 0; }

// The first multiple of 1024 in dynamic shared memory, where tiles begin.
template <class T>
AD_DEVICE T *aligned(T *memory) { return memory + (-ad_shared_address(memory) & 1023) / sizeof(T); }

// Begins to copy a tile of queries from columns of heads of dim elements.
template <int ROWS, class T, int W>
AD_DEVICE void copy_queries(ad_shared tile, const T *x, int stride, const Queries &q, int dim, PanelCopier<W> c) {
  const T *from = x + (int64_t)q.b * q.seq * stride + q.h(c.row) * dim + c.piece * 8;
  c.template copy<ROWS>(tile, from, stride, q.t(c.row), c.step >> q.fold, q.seq, c.piece * 8 < dim && q.h(c.row) < q.headEnd);
}

// Hands a stage to those that multiply when all but the last PENDING groups of copies are there.
template <int PENDING>
AD_DEVICE void hand_over(int stage) {
  AD_BUG(hopper_grad_copies, ad_cp_wait<PENDING>(), );
  AD_BUG(hopper_grad_proxy, ad_fence_async(), );
  ad_barrier_arrive(full(stage, 0), kOne);
  ad_barrier_arrive(full(stage, 1), kOne);
}

// c = 64 rows of a, of a tile of kRows, times the rows of a tile b, over all W columns.
template <class T, int W>
AD_DEVICE void multiply_rows(float (&c)[kTile / 8][4], ad_shared a, ad_shared b) {
  const uint64_t da = ad_wgmma_descriptor(a, kRows * 128), db = ad_wgmma_descriptor(b, kTile * 128);
  ad_wgmma_fence();
  AD_UNROLL
  for (int k = 0; k < W / 16; k++)
    ad_wgmma<T, kTile, false>(c, ad_wgmma_advance(da, k / 4 * kRows * 128 + k % 4 * 32), ad_wgmma_advance(db, k / 4 * kTile * 128 + k % 4 * 32), k > 0);
  ad_wgmma_commit();
}

// c += a, an accumulator of kTile columns in pairs of T, times a tile b.
template <class T, int W>
AD_DEVICE void multiply_columns(float (&c)[W / 8][4], const uint32_t (&a)[kTile / 16][4], ad_shared b) {
  const uint64_t db = ad_wgmma_descriptor(b, kTile * 128);
  ad_wgmma_fence();
  AD_UNROLL
  for (int k = 0; k < kTile / 16; k++) ad_wgmma<T, W, true>(c, a[k], ad_wgmma_advance(db, k * AD_BUG(hopper_grad_step, 2048, 1024)));
  ad_wgmma_commit();
}

// The queries' columns of dqkv, and delta: see attention_tensor.h.
template <class T, int W>
AD_DEVICE void grad_queries(T *dqkv, float *delta, const T *dy, const T *y, const T *qkv, const float *lse, const Problem &p, float scale, float gain) {
  constexpr int own = kRows * 2 * W, tile = kTile * 2 * W;
  AD_DYNAMIC_SHARED(T, unaligned);
  T *const memory = aligned(unaligned);
  const ad_shared tileQ = ad_shared_address(memory), tileG = tileQ + own, tiles = tileG + own;  // then keys and values of each stage
  const int lane = threadIdx.x % 32, group = threadIdx.x / 128 - 1;
  const Queries q = queries_of_block<kRows>(p);
  const int width = p.width();
  int least, most;
  if (group < 0) {
    const PanelCopier<W> copier = {(int)threadIdx.x / (W / 8), (int)threadIdx.x % (W / 8)};
    const T *const keys = qkv + (int64_t)q.b * p.seq * width + (p.heads + q.head / (p.heads / p.kvHeads)) * p.dim + copier.piece * 8;
    const bool inside = copier.piece * 8 < p.dim;
    copy_queries<kRows>(tileQ, qkv, width, q, p.dim, copier);
    copy_queries<kRows>(tileG, dy, p.heads * p.dim, q, p.dim, copier);
    bounds<kRows>(p, q, lane, least, most);
    const int end = q.clamped(kRows - 1) + 1, begin = least / kTile * kTile;
    int stage = 0, last = 0;
    for (int u0 = begin; u0 < end; u0 += kTile, last = stage, stage = after(stage)) {
      if (u0 >= begin + kStages * kTile) AD_BUG(hopper_grad_empty, ad_barrier(empty(stage), kAll), );
      copier.template copy<kTile>(tiles + stage * 2 * tile, keys, width, u0 + copier.row, copier.step, p.seq, inside);
      copier.template copy<kTile>(tiles + stage * 2 * tile + tile, keys + p.kvHeads * p.dim, width, u0 + copier.row, copier.step, p.seq, inside);
      ad_cp_commit();
      if (u0 > begin) hand_over<1>(last);
    }
    hand_over<0>(last);
    return;
  }

  const int first = threadIdx.x / 32 * 16 - 64;
  float dq[1][W / 8][4], sum[2], mean[2];
  int token[2], start[2];
  clear(dq);
  AD_UNROLL
  for (int i = 0; i < 2; i++) {
    const int r = first + 8 * i + lane / 4;
    const int64_t element = q.at(r, p.heads, 1);
    const bool valid = q.valid(r);
    sum[i] = valid ? lse[element] * kLog2e : kInfinity;  // probabilities of rows that do not exist are 0
    float d = 0;
    AD_UNROLL
    for (int c = 0; c < W; c += 32) {  // all loads at once: none is conditional
      const int column = c + lane % 4 * 8;
      const bool there = valid && column < p.dim;
      const int64_t at = there ? element * p.dim + column : 0;
      const ad_vector<T> a = ad_load(dy + at), b = ad_load(y + at);
      AD_UNROLL
      for (int e = 0; e < 8; e++) d = there ? ad_fma(a[e], b[e], d) : d;
    }
    mean[i] = quad_sum(d);
    if (valid && lane % 4 == 0) delta[element] = mean[i];
    token[i] = q.clamped(r);
    start[i] = p.start(q.b, token[i]);
  }
  bounds<kRows>(p, q, lane, least, most);
  const int end = q.clamped(kRows - 1) + 1, begin = least / kTile * kTile;
  int stage = 0;
  AD_ROLL
  for (int u0 = begin; u0 < end; u0 += kTile, stage = after(stage)) {
    const ad_shared a = tileQ + ad_opaque(group * 64 * 128), tileK = tiles + stage * 2 * tile;
    float s[kTile / 8][4], d[kTile / 8][4];
    AD_BUG(hopper_grad_full, ad_barrier(full(stage, group), kOne), );
    multiply_rows<T, W>(s, a, tileK);
    multiply_rows<T, W>(d, a + own, tileK + tile);
    ad_wgmma_wait<1>(s);
    // Ahead of the branch, and so of the wait behind it: the assembler would put off what only follows the wait.
    AD_UNROLL
    for (int j = 0; j < kTile / 8; j++)
      AD_UNROLL
      for (int e = 0; e < 4; e++) s[j][e] = ad_exp2(ad_fma(s[j][e], scale, -sum[e / 2]));
    if (u0 < most || u0 + kTile - 1 > q.token) {
      AD_UNROLL
      for (int j = 0; j < kTile / 8; j++)
        AD_UNROLL
        for (int e = 0; e < 4; e++) {
          const int u = u0 + 8 * j + lane % 4 * 2 + e % 2;
          if (u < start[e / 2] || u > token[e / 2]) s[j][e] = 0;
        }
    }
    AD_BUG(hopper_grad_wait, ad_wgmma_wait<0>(d), );
    uint32_t scores[kTile / 16][4];  // their gradients
    AD_UNROLL
    for (int j = 0; j < kTile / 8; j++)
      AD_UNROLL
      for (int i = 0; i < 2; i++)
        scores[j / 2][j % 2 * 2 + i] = ad_pack<T>(s[j][2 * i] * (d[j][2 * i] - mean[i]), s[j][2 * i + 1] * (d[j][2 * i + 1] - mean[i]));
    multiply_columns<T, W>(dq[0], scores, tileK);
    ad_wgmma_wait<0>(dq[0]);
    ad_barrier_arrive(empty(stage), kAll);
  }
  ad_barrier(kDone, kOwners);  // both are done with the queries, whose memory is for the result now
  const Queries done = queries_of_block<kRows>(p);
  const float gains[1][2] = {{gain, gain}};
  store<W>(dq, gains, memory, first, p.dim, lane, [&](int r) { return done.valid(r) ? dqkv + done.at(r, width, p.dim) : nullptr; });
}

// The keys' and values' columns of dqkv, or parts: see attention_tensor.h. Grid: shares times key heads; sequences; tiles of kRows keys.
template <class T, int W>
AD_DEVICE void grad_keys(T *dqkv, float *parts, const T *dy, const T *qkv, const float *lse, const float *delta, const Problem &p, int share, float scale, float gain) {
  constexpr int own = kRows * 2 * W, tile = kTile * 2 * W;
  AD_DYNAMIC_SHARED(T, unaligned);
  AD_SHARED(float, sums, kStages * kTile);
  AD_SHARED(float, means, kStages * kTile);
  AD_SHARED(int, starts, kStages * kTile);
  AD_SHARED(int, tokens, kStages);          // of a stage's first row, -1 behind the last stage
  AD_SHARED(uint32_t, edges, 2 * kStages);  // the rows that do not see all of the block's keys
  T *const memory = aligned(unaligned);
  const ad_shared tileK = ad_shared_address(memory), tileV = tileK + own, tiles = tileV + own;  // then queries and gradients of each stage
  const int lane = threadIdx.x % 32, group = threadIdx.x / 128 - 1;
  const int heads = p.heads / p.kvHeads, shares = (heads + share - 1) / share;
  const int split = blockIdx.x % shares, g = blockIdx.x / shares;
  const int b = blockIdx.y, u0 = blockIdx.z * kRows;
  const int width = p.width();
  if (group < 0) {
    const PanelCopier<W> copier = {(int)threadIdx.x / (W / 8), (int)threadIdx.x % (W / 8)};
    const T *const keys = qkv + (int64_t)b * p.seq * width + (p.heads + g) * p.dim + copier.piece * 8;
    const bool inside = copier.piece * 8 < p.dim;
    copier.template copy<kRows>(tileK, keys, width, u0 + copier.row, copier.step, p.seq, inside);
    copier.template copy<kRows>(tileV, keys + p.kvHeads * p.dim, width, u0 + copier.row, copier.step, p.seq, inside);

    // The last token that sees one of the keys, then the tiles of queries, all heads of late tokens first: blocks of one sequence begin with the same ones, and
    // what one reads the others find in the cache.
    const int u1 = u0 + kRows < p.seq ? u0 + kRows : p.seq;
    int beyond = 0;
    for (int t0 = u0 + lane; t0 < p.seq; t0 += 256) {
      int t[8], start[8];  // all loads at once: none is conditional
      AD_UNROLL
      for (int i = 0; i < 8; i++) t[i] = t0 + 32 * i < p.seq ? t0 + 32 * i : p.seq - 1, start[i] = p.start(b, t[i]);
      AD_UNROLL
      for (int i = 0; i < 8; i++)
        if (start[i] < u1 && -t[i] - 1 < beyond) beyond = -t[i] - 1;
    }
    ad_registers_fewer<40>();  // not before: what was above takes more
    const int count = kTile >> p.fold, limit = u0 + (-warp_min(beyond) - u0 + count - 1) / count * count;
    const int head0 = g * heads + split * share, headEnd = head0 + share < (g + 1) * heads ? head0 + share : (g + 1) * heads;
    const int r = threadIdx.x;
    Queries q = {b, limit - count, head0, headEnd, p.fold, p.seq};
    int stage = 0, last = 0;
    for (int i = 0;; i++, last = stage, stage = after(stage)) {
      if (i >= kStages) AD_BUG(hopper_grad_keys_empty, ad_barrier(empty(stage), kAll), );
      const bool more = q.token >= u0;
      if (more) {
        copy_queries<kTile>(tiles + stage * 2 * tile, qkv, width, q, p.dim, copier);
        copy_queries<kTile>(tiles + stage * 2 * tile + tile, dy, p.heads * p.dim, q, p.dim, copier);
        if (r < kTile) {
          const int64_t element = q.at(r, p.heads, 1);
          const bool valid = q.valid(r);
          const int start = valid ? p.start(b, q.t(r)) : 0;
          sums[stage * kTile + r] = valid ? lse[element] * kLog2e : kInfinity;  // probabilities of rows that do not exist are 0
          means[stage * kTile + r] = valid ? delta[element] : 0;
          starts[stage * kTile + r] = start;
          const uint32_t edge = __ballot_sync(AD_ALL, start > u0 || q.t(r) < u0 + kRows - 1);
          if (lane == 0) edges[2 * stage + r / 32] = edge;
        }
      }
      if (r == 0) tokens[stage] = more ? q.token : -1;
      ad_cp_commit();
      if (i > 0) hand_over<1>(last);
      if (!more) break;
      q.head += 1 << p.fold;
      if (q.head >= headEnd) q.head = head0, q.token -= count;
    }
    hand_over<0>(stage);
    return;
  }

  ad_registers_more<232>();
  const int first = threadIdx.x / 32 * 16 - 64;
  float dk[1][W / 8][4], dv[1][W / 8][4];
  clear(dk);
  clear(dv);
  AD_ROLL
  for (int stage = 0;; stage = after(stage)) {
    const ad_shared a = tileK + ad_opaque(group * 64 * 128), tileQ = tiles + stage * 2 * tile, tileG = tileQ + tile;
    float s[kTile / 8][4], d[kTile / 8][4];  // of keys by queries
    AD_BUG(hopper_grad_keys_full, ad_barrier(full(stage, group), kOne), );
    const int token = tokens[stage];
    if (token < 0) break;
    multiply_rows<T, W>(s, a, tileQ);
    multiply_rows<T, W>(d, a + own, tileG);
    ad_wgmma_wait<1>(s);
    if (edges[2 * stage] | edges[2 * stage + 1]) {
      AD_UNROLL
      for (int j = 0; j < kTile / 8; j++)
        AD_UNROLL
        for (int e = 0; e < 2; e++) {
          const int r = 8 * j + lane % 4 * 2 + e, t = token + (r >> p.fold), start = starts[stage * kTile + r];
          AD_UNROLL
          for (int i = 0; i < 2; i++) {
            const int u = u0 + first + 8 * i + lane / 4;
            if (u < start || u > t) s[j][2 * i + e] = -kInfinity;
          }
        }
    }
    uint32_t probabilities[kTile / 16][4], scores[kTile / 16][4];  // the scores' gradients
    AD_UNROLL
    for (int j = 0; j < kTile / 8; j++) {
      const float *sum = sums + stage * kTile + 8 * j + lane % 4 * 2;
      AD_UNROLL
      for (int e = 0; e < 4; e++) s[j][e] = ad_exp2(ad_fma(s[j][e], scale, -sum[e % 2]));
      AD_UNROLL
      for (int i = 0; i < 2; i++) probabilities[j / 2][j % 2 * 2 + i] = ad_pack<T>(s[j][2 * i], s[j][2 * i + 1]);
    }
    multiply_columns<T, W>(dv[0], probabilities, tileG);
    AD_BUG(hopper_grad_keys_wait, ad_wgmma_wait<1>(d), );
    AD_UNROLL
    for (int j = 0; j < kTile / 8; j++) {
      const float *mean = means + stage * kTile + 8 * j + lane % 4 * 2;
      AD_UNROLL
      for (int i = 0; i < 2; i++)
        scores[j / 2][j % 2 * 2 + i] = ad_pack<T>(s[j][2 * i] * (d[j][2 * i] - mean[0]), s[j][2 * i + 1] * (d[j][2 * i + 1] - mean[1]));
    }
    multiply_columns<T, W>(dk[0], scores, tileQ);
    ad_wgmma_wait<0>(dk[0], dv[0]);
    ad_barrier_arrive(empty(stage), kAll);
  }
  if (parts) {
    AD_UNROLL
    for (int i = 0; i < 2; i++) {
      const int u = u0 + first + 8 * i + lane / 4;
      if (u >= p.seq) continue;
      const int64_t rows = (int64_t)gridDim.y * p.seq;
      float *row = parts + ((split * rows + (int64_t)b * p.seq + u) * 2 * p.kvHeads + g) * p.dim + lane % 4 * 2;
      AD_UNROLL
      for (int j = 0; j < W / 8; j++)
        if (8 * j < p.dim)
          AD_UNROLL
          for (int e = 0; e < 2; e++) {
            row[8 * j + e] = dk[0][j][2 * i + e] * gain;
            row[p.kvHeads * p.dim + 8 * j + e] = dv[0][j][2 * i + e];
          }
    }
    return;
  }
  ad_barrier(kDone, kOwners);  // both are done with the keys and values, whose memory is for the result now
  T *const out = dqkv + (int64_t)b * p.seq * width + (p.heads + g) * p.dim;
  const float gains[1][2] = {{gain, gain}}, ones[1][2] = {{1, 1}};
  store<W>(dk, gains, memory, first, p.dim, lane, [&](int r) { return u0 + r < p.seq ? out + (u0 + r) * width : nullptr; });
  store<W>(dv, ones, memory + kRows * W, first, p.dim, lane, [&](int r) { return u0 + r < p.seq ? out + p.kvHeads * p.dim + (u0 + r) * width : nullptr; });
}

}  // namespace hopper
}  // namespace attention

// The kernels of tiles W wide. They take what those of ATTENTION_KERNELS take; key, salt, threshold and the last scale are not used.
#define ATTENTION_HOPPER_GRADIENTS(W, S)                                                                                                             \
  AD_KERNEL_OCCUPANCY(attention_hopper##W##_grad_queries_##S, (S * dqkv, float *delta, const S *dy, const S *y, const S *qkv, const int32_t *docStart, const int32_t *key, const float *lse, ATTENTION_PROBLEM, float scale, float gain, float), 384, 1) { \
    attention::hopper::grad_queries<S, W>(dqkv, delta, dy, y, qkv, lse, ATTENTION_GIVEN, scale, gain);                                               \
  }                                                                                                                                                  \
  AD_KERNEL_OCCUPANCY(attention_hopper##W##_grad_keys_##S, (S * dqkv, float *parts, const S *dy, const S *qkv, const int32_t *docStart, const int32_t *key, const float *lse, const float *delta, ATTENTION_PROBLEM, int32_t share, float scale, float gain, float), 384, 1) { \
    attention::hopper::grad_keys<S, W>(dqkv, parts, dy, qkv, lse, delta, ATTENTION_GIVEN, share, scale, gain);                                       \
  }
