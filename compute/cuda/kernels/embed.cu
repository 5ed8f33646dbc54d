#include "ad_cuda.h"

// y [n,width] row i = table[ids[i]] + places[positions[i]]; an id or position outside of its table gives a row of NaNs. V elements at a
// time, 1 or, if width is a multiple of it, those of an ad_vector. Bytes moved: y, the rows read (those of a frequent id from cache),
// 8 bytes a token.
template <int V, class T>
AD_DEVICE void embed(T *y, const T *table, const T *places, const int32_t *ids, const int32_t *positions, int64_t n, int32_t rows, int32_t placeRows, int32_t width) {
  const int32_t pieces = width / V;
  const int64_t stride = (int64_t)gridDim.x * blockDim.x;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n * pieces; i += stride) {
    const int64_t token = i / pieces;
    const int column = i % pieces * V;
    const int32_t id = ids[token], position = positions[token];
    const bool inside = (uint32_t)id < (uint32_t)rows && (uint32_t)position < (uint32_t)placeRows;
    const T *a = table + (inside ? (int64_t)id * width + column : 0), *b = places + (inside ? (int64_t)position * width + column : 0);
    T *to = y + token * width + column;
    const float wrong = inside ? 0.0f : __builtin_nanf("");
    if constexpr (V == 1) {
      *to = ad_cast<T>(ad_float(*a) + ad_float(*b) + wrong);
    } else {
      const ad_vector<T> p = ad_load(inside ? a : table), q = ad_load(inside ? b : places);
      ad_vector<T> r;
      AD_UNROLL
      for (int j = 0; j < V; j++) r.e[j] = ad_cast<T>(p[j] + q[j] + wrong);
      ad_store(to, r);
    }
  }
}

// The gradient goes to each row of the table from all tokens with its id, which must be added in one order. So tokens are sorted by id
// first, equal ones by place: each thread counts the tokens that come before its own, all against all, by pieces in shared memory.
// That is n² comparisons, which the card makes at some 10¹³ a second (32,768 tokens: 0.1 ms), and nothing else has to be ordered.
// sorted [n] are the ids in order, tokens [n] where each is from. Bytes moved: little.
AD_KERNEL(embed_order_i32, (int32_t *sorted, int32_t *tokens, const int32_t *ids, int32_t n), 128) {
  AD_SHARED(int32_t, piece, 128);
  const int32_t own = blockIdx.x * 128 + threadIdx.x, id = own < n ? ids[own] : 0;
  int32_t before = 0;
  for (int32_t first = 0; first < n; first += 128) {
    AD_BUG(embed_order_barrier, __syncthreads(), );
    if (first + (int32_t)threadIdx.x < n) piece[threadIdx.x] = ids[first + threadIdx.x];
    __syncthreads();
    const int m = n - first < 128 ? n - first : 128;
    if (first == (int32_t)blockIdx.x * 128) {
      for (int j = 0; j < m; j++) before += piece[j] < id || (piece[j] == id && j < (int)threadIdx.x);
    } else {
      const bool earlier = first < own;  // the same for the whole block
      if (m == 128)
        AD_UNROLL
        for (int j = 0; j < 128; j++) before += earlier ? piece[j] <= id : piece[j] < id;
      else
        for (int j = 0; j < m; j++) before += earlier ? piece[j] <= id : piece[j] < id;
    }
  }
  if (own >= n) return;
  sorted[before] = id;
  tokens[before] = own;
}

// dtable [rows,width] row id += the sum of the rows of dy [n,width] whose id it is, in token order, for ids in order as embed_order
// gives them. A block's x is a place in that order; only the first of an id has work. Its y is a piece of 64·V columns. Ids outside
// of the table are left out. Bytes moved: dy once, and two times float32 of the table's rows that occur.
template <int V, class T>
AD_DEVICE void embed_grad(float *dtable, const T *dy, const int32_t *sorted, const int32_t *tokens, int32_t n, int32_t rows, int32_t width) {
  int32_t at = blockIdx.x;
  const int32_t id = sorted[at], column = (blockIdx.y * blockDim.x + threadIdx.x) * V;
  if ((at > 0 && sorted[at - 1] == id) || (uint32_t)id >= (uint32_t)rows || column >= width) return;
  struct Piece {
    T e[V];
  };
  auto load = [&](int32_t i) {
    const T *p = dy + (int64_t)tokens[i] * width + column;
    if constexpr (V == 1) return Piece{p[0]};
    else return __builtin_bit_cast(Piece, ad_load(p));
  };
  float sum[V];
  AD_UNROLL
  for (int i = 0; i < V; i++) sum[i] = 0;
  auto add = [&](const Piece &p) {
    AD_UNROLL
    for (int i = 0; i < V; i++) sum[i] += ad_float(p.e[i]);
  };
  for (; at + 3 < n && sorted[at + 3] == id; at += 4) {
    const Piece a = load(at), b = load(at + 1), c = load(at + 2), d = load(at + 3);
    add(a), add(b), add(c), add(d);
  }
  for (; at < n && sorted[at] == id; at++) add(load(at));
  float *to = dtable + (int64_t)id * width + column;
  if constexpr (V == 1) {
    *to += sum[0];
  } else {
    AD_UNROLL
    for (int i = 0; i < V; i += 4) {
      ad_vector<float> t = ad_load(to + i);
      AD_UNROLL
      for (int j = 0; j < 4; j++) t.e[j] += sum[i + j];
      ad_store(to + i, t);
    }
  }
}

#define BOTH(V, name, S, T)                                                                                                            \
  AD_KERNEL(embed##name##_##S, (T * y, const T *table, const T *places, const int32_t *ids, const int32_t *positions, int64_t n,       \
      int32_t rows, int32_t placeRows, int32_t width), 256) {                                                                          \
    embed<V>(y, table, places, ids, positions, n, rows, placeRows, width);                                                             \
  }                                                                                                                                    \
  AD_KERNEL(embed_grad##name##_##S, (float *dtable, const T *dy, const int32_t *sorted, const int32_t *tokens, int32_t n, int32_t rows, \
      int32_t width), 64) {                                                                                                            \
    embed_grad<V>(dtable, dy, sorted, tokens, n, rows, width);                                                                         \
  }
#define KERNEL(S, T)                \
  BOTH(ad_vector<T>::n, , S, T)     \
  BOTH(1, _any, S, T)
AD_STORES(KERNEL)
