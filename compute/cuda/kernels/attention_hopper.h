// Causal soft-max attention, forward, by products of warpgroups (Shah et al. 2024, FlashAttention-3, arXiv 2407.08608): what attention_tensor.h's forward
// computes, for compute capability 9.0. attention64_hopper.cu and attention128_hopper.cu make the kernels of one width of tiles each.
//
// A block stays on its multiprocessor and takes one tile of 128 queries after the other. The first of its three warpgroups copies into shared memory: two warps
// queries and keys, two values, each in two stages, so that neither waits for the other; the other warpgroups own 64 queries each. A warpgroup begins the scores of the next tile of keys before the product of
// the last one's probabilities with its values, and works on scores while both run; the two take turns at beginning products, so that one's soft-max runs
// beside the other's products.
#pragma once
#include "attention_tensor.h"

namespace attention {
namespace hopper {

constexpr int kRows = 128, kKeys = 128;                            // of a tile
constexpr int kCopiers = 128, kOwners = 256;                       // threads
constexpr int kAll = kCopiers + kOwners, kOne = kCopiers + 128;    // at a barrier of the copiers with both warpgroups, with one
constexpr int kHalf = kCopiers / 2;                                // those that copy keys, or values,
constexpr int kHalfAll = kHalf + kOwners, kHalfOne = kHalf + 128;  // and their barriers

// Named barriers. Of keys (0) or values (1), two stages (and two warpgroups): tiles are there, tiles are done with.
AD_DEVICE int tiles_full(int values, int stage, int group) { return 1 + 4 * values + 2 * stage + group; }
AD_DEVICE int tiles_empty(int values, int stage) { return 9 + 2 * values + stage; }
constexpr int kQueriesEmpty = 13;
AD_DEVICE int turn(int group) { return 14 + group; }

// Where things lie in shared memory: tiles in panels of 64 columns, as products want them, and the block's outputs.
template <int W>
struct Layout {
  static constexpr int queries = 0, keys = queries + kRows * 2 * W, values = keys + 2 * kKeys * 2 * W, outputs = values + 2 * kKeys * 2 * W;
  static constexpr int panelQ = kRows * 128, panelK = kKeys * 128, stage = kKeys * 2 * W;
};

// What one of THREADS threads copies of tiles: piece `piece` of the rows row, row + step, …
template <int W, int THREADS = kCopiers>
struct PanelCopier {
  static constexpr int step = THREADS / (W / 8);
  int row, piece;

  // Copier::copy into panels, which begin at a multiple of 1024.
  template <int ROWS, class T>
  AD_DEVICE void copy(ad_shared tile, const T *from, int stride, int position, int apart, int end, bool inside) const {
    tile += piece / 8 * ROWS * 128 + row * 128 + ((piece ^ row) & 7) * 16;
    from += (int64_t)position * stride;
    AD_UNROLL
    for (int i = 0; i < ROWS / step; i++) {
      ad_cp_async16((tile + i * step * 128) ^ (i * step & 7) << 4, from, inside && position < end);
      position += apart;
      from += (int64_t)apart * stride;
    }
  }
  // Begins to copy a tile of queries, whose heads may be more than step. from is the thread's piece of the first head of the sequence's first token.
  template <class T>
  AD_DEVICE void copy_queries(ad_shared tile, const T *from, int stride, const Queries &q, int dim, bool inside) const {
    tile += piece / 8 * kRows * 128;
    AD_ROLL
    for (int r0 = row; r0 < kRows; r0 += 4 * step)
      AD_UNROLL
      for (int i = 0; i < 4; i++) {
        const int r = r0 + i * step;
        ad_cp_async16(tile + r * 128 + ((piece ^ r) & 7) * 16, from + q.t(r) * stride + q.h(r) * dim, inside && q.valid(r));
      }
  }
};

// The tiles of queries, late tokens first, of all heads and sequences: those see the most keys. Blocks take them in turn, to and fro, so that each has
// about the same work.
struct Work {
  int headTiles, sequences, tokenTiles, group, folded;

  AD_DEVICE Work(const Problem &p, int sequences) : sequences(sequences) {
    group = p.heads / p.kvHeads;
    folded = ((group - 1) >> p.fold) + 1;
    headTiles = folded * p.kvHeads;
    tokenTiles = (p.seq + (kRows >> p.fold) - 1) / (kRows >> p.fold);
  }
  AD_DEVICE int count() const { return headTiles * sequences * tokenTiles; }
  // What this block takes in a round; count() or more when there is nothing left.
  AD_DEVICE int turn(int round) const { return round * gridDim.x + (round & 1 ? gridDim.x - 1 - blockIdx.x : blockIdx.x); }
  AD_DEVICE Queries tile(const Problem &p, int i) const {
    const int y = i % headTiles, g = y / folded, b = i / headTiles % sequences, z = i / headTiles / sequences;
    return Queries{b, (tokenTiles - 1 - z) * (kRows >> p.fold), g * group + (y % folded << p.fold), (g + 1) * group, p.fold, p.seq};
  }
};

// What the owners of a tile of queries are told by those who copy: its first key, and the last document start of its tokens.
struct Range {
  int begin, most;
};

template <class T, int W>
AD_DEVICE void copy_tiles(ad_shared tiles, Range *range, const T *qkv, const Problem &p, const Work &work) {
  using L = Layout<W>;
  const int values = threadIdx.x / kHalf, thread = threadIdx.x % kHalf;
  const PanelCopier<W, kHalf> copier = {thread / (W / 8), thread % (W / 8)};
  const int width = p.width();
  const bool inside = copier.piece * 8 < p.dim;
  int slot = 0;  // tiles of keys so far
  for (int round = 0; work.turn(round) < work.count(); round++) {
    const Queries q = work.tile(p, work.turn(round));
    const T *const sequence = qkv + (int64_t)q.b * p.seq * width + copier.piece * 8, *const keys = sequence + (p.heads + q.head / work.group + values * p.kvHeads) * p.dim;
    int least, most;
    bounds<kRows>(p, q, threadIdx.x % 32, least, most);
    const int end = q.clamped(kRows - 1) + 1, begin = least / kKeys * kKeys;
    if (!values) {
      if (slot) AD_BUG(hopper_queries, ad_barrier(kQueriesEmpty, kHalfAll), );
      if (thread == 0) *range = Range{begin, most};
      copier.copy_queries(tiles + L::queries, sequence, width, q, p.dim, inside);
    }
    for (int u0 = begin; u0 < end; u0 += kKeys, slot++) {
      const int stage = slot & 1;
      if (slot > 1) AD_BUG(hopper_empty, ad_barrier(tiles_empty(values, stage), kHalfAll), );
      copier.template copy<kKeys>(tiles + (values ? L::values : L::keys) + stage * L::stage, keys, width, u0 + copier.row, copier.step, p.seq, inside);
      ad_cp_commit();
      AD_BUG(hopper_copies, ad_cp_wait<0>(), );
      AD_BUG(hopper_proxy, ad_fence_async(), );
      ad_barrier_arrive(tiles_full(values, stage, 0), kHalfOne);
      ad_barrier_arrive(tiles_full(values, stage, 1), kHalfOne);
    }
  }
}

// The soft-max of one warpgroup's rows, two a thread.
struct Rows {
  float base[2], sum[2], factor[2];  // the base of the powers of two; their sum; what results so far are to be multiplied with
  bool moved;                        // whether any factor of the warp is not 1

  // Makes scores powers of two.
  template <int N>
  AD_DEVICE void soften(float (&s)[N][4], float scale) {
    float top[2];
    AD_UNROLL
    for (int i = 0; i < 2; i++) {
      float part[2] = {ad_max(s[0][2 * i], s[0][2 * i + 1]), ad_max(s[1][2 * i], s[1][2 * i + 1])};
      AD_UNROLL
      for (int j = 2; j < N; j++) part[j % 2] = ad_max(part[j % 2], ad_max(s[j][2 * i], s[j][2 * i + 1]));
      top[i] = quad_max(ad_max(part[0], part[1]));
    }
    // The base follows the largest score only when it is far behind: sums and products then need no correction.
    const bool behind[2] = {ad_fma(top[0], scale, -base[0]) > kBehind, ad_fma(top[1], scale, -base[1]) > kBehind};
    moved = __ballot_sync(AD_ALL, behind[0] || behind[1]);
    if (moved) {
      AD_UNROLL
      for (int i = 0; i < 2; i++) {
        const float next = behind[i] ? top[i] * scale : base[i];
        factor[i] = behind[i] ? ad_exp2(base[i] - next) : 1.0f;
        base[i] = next;
        sum[i] *= factor[i];
      }
    }
    AD_UNROLL
    for (int j = 0; j < N; j++)
      AD_UNROLL
      for (int e = 0; e < 4; e++) {
        s[j][e] = ad_exp2(ad_fma(s[j][e], scale, -base[e / 2]));
        sum[e / 2] += s[j][e];
      }
  }
};

template <class T, int W>
AD_DEVICE void own_tiles(ad_shared tiles, T *outputs, const Range *range, T *y, float *lse, const Problem &p, const Work &work, float scale, float keep) {
  using L = Layout<W>;
  constexpr int N = kKeys;
  const int lane = threadIdx.x % 32, group = threadIdx.x / 128 - 1, first = threadIdx.x / 32 * 16 - kCopiers / 2;
  const uint64_t queries = ad_wgmma_descriptor(tiles + L::queries + group * 64 * 128, L::panelQ);
  const uint64_t keys = ad_wgmma_descriptor(tiles + L::keys, L::panelK), values = ad_wgmma_descriptor(tiles + L::values, L::panelK);
  if (group == 1) ad_barrier_arrive(turn(0), kOwners);  // the first turn
  int slot = 0;
  for (int round = 0; work.turn(round) < work.count(); round++) {
    const Queries q = work.tile(p, work.turn(round));
    const int end = q.clamped(kRows - 1) + 1;
    int t[2], from[2];  // what this thread's rows see
    AD_UNROLL
    for (int i = 0; i < 2; i++) t[i] = q.clamped(first + 8 * i + lane / 4), from[i] = p.start(q.b, t[i]);

    float s[N / 8][4], out[1][W / 8][4];
    uint32_t probabilities[N / 16][4];
    Rows rows = {{kLowest, kLowest}, {}, {}, false};
    auto begin_scores = [&](int stage) AD_INLINED {
      const uint64_t b = ad_wgmma_advance(keys, stage * L::stage);
      ad_wgmma_fence();
      AD_UNROLL
      for (int k = 0; k < W / 16; k++)
        ad_wgmma<T, N, false>(s, ad_wgmma_advance(queries, k / 4 * L::panelQ + k % 4 * 32), ad_wgmma_advance(b, k / 4 * L::panelK + k % 4 * 32), k > 0);
      ad_wgmma_commit();
    };
    auto begin_outputs = [&](int stage, bool add) AD_INLINED {
      const uint64_t b = ad_wgmma_advance(values, stage * L::stage);
      ad_wgmma_fence();
      AD_UNROLL
      for (int k = 0; k < N / 16; k++)
        ad_wgmma<T, W, true>(out[0], probabilities[k], ad_wgmma_advance(b, AD_BUG(hopper_step, k, k ^ 1) * 16 * 128), add || k > 0);
      ad_wgmma_commit();
    };
    auto soften = [&](int u0, int most) AD_INLINED {
      if (u0 < most || u0 + N - 1 > q.token) {
        AD_UNROLL
        for (int j = 0; j < N / 8; j++)
          AD_UNROLL
          for (int e = 0; e < 4; e++) {
            const int u = u0 + 8 * j + lane % 4 * 2 + e % 2;
            if (u < from[e / 2] || u > t[e / 2]) s[j][e] = -kInfinity;
          }
      }
      rows.soften(s, scale);
    };
    auto pack = [&]() AD_INLINED {
      AD_UNROLL
      for (int j = 0; j < N / 8; j++)
        AD_UNROLL
        for (int i = 0; i < 2; i++) probabilities[j / 2][j % 2 * 2 + i] = ad_pack<T>(s[j][2 * i], s[j][2 * i + 1]);
    };

    ad_barrier(tiles_full(0, slot & 1, group), kHalfOne);
    const int begin = range->begin, most = range->most;
    begin_scores(slot & 1);
    ad_wgmma_wait<0>(s);
    ad_barrier_arrive(tiles_empty(0, slot & 1), kHalfAll);
    if (begin + N >= end) ad_barrier_arrive(kQueriesEmpty, kHalfAll);
    soften(begin, most);
    pack();
    for (int u0 = begin + N; u0 < end; u0 += N, slot++) {
      const int stage = slot & 1;  // of the values, the keys are in the other
      ad_barrier(tiles_full(0, stage ^ 1, group), kHalfOne);
      ad_barrier(turn(group), kOwners);
      begin_scores(stage ^ 1);
      ad_barrier(tiles_full(1, stage, group), kHalfOne);
      begin_outputs(stage, u0 > begin + N);
      ad_barrier_arrive(turn(group ^ 1), kOwners);
      AD_BUG(hopper_scores, ad_wgmma_wait<1>(s), );
      ad_barrier_arrive(tiles_empty(0, stage ^ 1), kHalfAll);
      if (u0 + N >= end) ad_barrier_arrive(kQueriesEmpty, kHalfAll);
      soften(u0, most);
      // One wait behind the branches would be moved ahead of the powers of two.
      if (rows.moved) {
        ad_wgmma_wait<0>(out[0]);
        AD_UNROLL
        for (int j = 0; j < W / 8; j++)
          AD_UNROLL
          for (int e = 0; e < 4; e++) out[0][j][e] *= rows.factor[e / 2];
      } else {
        AD_BUG(hopper_wait, ad_wgmma_wait<0>(out[0]), );
      }
      ad_barrier_arrive(tiles_empty(1, stage), kHalfAll);
      pack();
    }
    ad_barrier(tiles_full(1, slot & 1, group), kHalfOne);
    begin_outputs(slot & 1, begin + N < end);
    ad_wgmma_wait<0>(out[0]);
    ad_barrier_arrive(tiles_empty(1, slot & 1), kHalfAll);
    slot++;

    const int at = ad_opaque(lane);
    float factor[1][2];
    AD_UNROLL
    for (int i = 0; i < 2; i++) {
      const int r = first + 8 * i + at / 4;
      const float total = quad_sum(rows.sum[i]);
      factor[0][i] = keep / total;
      if (lse && at % 4 == 0 && q.valid(r)) lse[q.at(r, p.heads, 1)] = (rows.base[i] + ad_log2(total)) * kLn2;
    }
    store<W>(out, factor, outputs, first, p.dim, at, [&](int r) { return q.valid(r) ? y + q.at(r, (int64_t)p.heads * p.dim, p.dim) : nullptr; });
  }
}

// Grid: as many blocks as there are multiprocessors, or tiles of queries if those are fewer. Dynamic shared memory: 1024 + 2·W·(128 + 4·128 + 128) bytes.
template <class T, int W>
AD_DEVICE void forward(T *y, float *lse, const T *qkv, const Problem &p, int sequences, float scale, float keep) {
  AD_DYNAMIC_SHARED(T, memory);
  AD_SHARED(Range, range, 1);
  const ad_shared begin = ad_shared_address(memory), tiles = (begin + 1023) & ~(ad_shared)1023;
  const Work work(p, sequences);
  if (threadIdx.x < kCopiers) {
    ad_registers_fewer<40>();
    copy_tiles<T, W>(tiles, range, qkv, p, work);
  } else {
    ad_registers_more<232>();
    own_tiles<T, W>(tiles, memory + (tiles - begin + Layout<W>::outputs) / sizeof(T), range, y, lse, p, work, scale, keep);
  }
}

}  // namespace hopper
}  // namespace attention

#define ATTENTION_HOPPER_KERNEL(W, S)                                                                                                                   \
  AD_KERNEL_OCCUPANCY(attention_hopper##W##_##S, (S * y, float *lse, const S *qkv, const int32_t *docStart, const int32_t *key, ATTENTION_PROBLEM, int32_t sequences, float scale, float keep), 384, 1) { \
    attention::hopper::forward<S, W>(y, lse, qkv, ATTENTION_GIVEN, sequences, scale, keep);                                                            \
  }
