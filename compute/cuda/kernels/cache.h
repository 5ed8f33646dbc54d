// The cache of keys and values of one layer: pages of kPage tokens, each [kvHeads,2,kPage,dim], keys before values. A call has rows of
// qkv [rows,(heads+2·kvHeads)·dim], new tokens of any number of sequences: row r is the token at position[r] of the sequence whose pages row
// sequence[r] of table [sequences,tablePages] names, token u's being the one at u/kPage. sequence[r] is negative for rows that are none.
//
// Attention cuts the keys at multiples of kChunk tokens from the sequence's beginning. Each chunk gives a row's largest score, sum and
// weighted values, part [rows,heads,chunks,dim+kMore], and these are added up in order. So a token's bits are a function of its keys and
// values alone: not of how many chunks there is room for, of other new tokens or of other sequences.
#pragma once
#include "ad_cuda.h"

namespace cache {

constexpr int kPage = 64, kChunk = 128;
constexpr int kMore = 4;  // of a part: the largest score, the sum, and two that keep parts at multiples of 16 bytes
constexpr float kInfinity = __builtin_huge_valf();

template <class T>
struct Cache {
  T *pages;
  const int32_t *table, *sequence, *position;
  int tablePages, heads, kvHeads, dim;

  AD_DEVICE int width() const { return (heads + 2 * kvHeads) * dim; }
  // Token u's key, or value, of key head g in sequence b.
  AD_DEVICE T *at(int b, int u, int g, int value) const {
    const int64_t page = table[AD_BUG(cache_table_row, (int64_t)b * tablePages, 0) + u / kPage];
    return pages + (((page * kvHeads + g) * 2 + value) * kPage + u % kPage) * dim;
  }
  // Where the share of a chunk for a row and head is: dim weighted values, the largest score times scale, the sum.
  AD_DEVICE float *part(float *parts, int row, int head, int chunks, int chunk) const {
    return parts + (((int64_t)row * heads + head) * chunks + chunk) * (dim + kMore);
  }
};

}  // namespace cache

#define CACHE_WHERE const int32_t *table, const int32_t *sequence, const int32_t *position
#define CACHE_SIZES int32_t tablePages, int32_t heads, int32_t kvHeads, int32_t dim
#define CACHE_GIVEN(T) cache::Cache<T>{const_cast<T *>(pages), table, sequence, position, tablePages, heads, kvHeads, dim}
