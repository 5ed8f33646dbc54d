// What the kernels of causal soft-max attention share: the problem, tiles of queries, dropout. The layout is that of compute.Attention:
// rows of qkv [n,(heads+2·kvHeads)·dim]; token t of a sequence sees the tokens docStart[t]..t of it.
//
// Query heads that share keys lie in one tile: row r of a tile of queries is token first + (r >> fold) in head first + r % 2^fold. So
// multi-query attention reads its keys once for many heads, and a tile spans few tokens, which wastes little on the diagonal and
// at the bounds of documents.
#pragma once
#include "ad_cuda.h"

namespace attention {

constexpr float kInfinity = __builtin_huge_valf(), kLog2e = 1.44269504f, kLn2 = 0.693147181f;

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

}  // namespace attention

#define ATTENTION_PROBLEM int32_t heads, int32_t kvHeads, int32_t dim, int32_t seq, int32_t fold, int32_t salt, int32_t threshold
#define ATTENTION_GIVEN attention::Problem{heads, kvHeads, dim, seq, fold, docStart, key, (uint32_t)salt, (uint32_t)threshold}
