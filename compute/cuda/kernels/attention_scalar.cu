// targets: sm_70
#include "attention.h"

// Attention without tensor cores: for float32, for cards that have no suitable ones and for head dimensions that tiles of theirs do not
// fit. 256 threads are 16 × 16; a tile is 16·R rows of queries and as many keys, and each thread has R × R of its scores. Head dimensions
// go up to 256/R. Everything is computed in float32.

namespace attention {

// Tiles are float32 in dynamic shared memory, rows of `stride` elements, which is the head dimension filled up to a multiple of 4 with
// zeros, and 4 more, so that neighbouring rows lie in different banks. Scores have rows of 16·R + 1.
template <int R>
struct Scalar {
  static constexpr int rows = 16 * R, scoreStride = rows + 1, groups = 4 / R;  // of 64 columns
  int dim, wide, stride, x, y;  // the thread's column and row of the 16 × 16

  // Fills a tile with rows from(r), null for zeros.
  template <class F>
  AD_DEVICE void load(float *tile, F from) const {
    for (int r = y; r < rows; r += 16) {
      const auto *row = from(r);
      for (int c = x; c < wide; c += 16) tile[r * stride + c] = row && c < dim ? ad_float(row[c]) : 0;
    }
  }
  // s[i][j] = row R·y + i of a times row x + 16j of b.
  AD_DEVICE void products(float (&s)[R][R], const float *a, const float *b) const {
    AD_UNROLL
    for (int i = 0; i < R; i++)
      AD_UNROLL
      for (int j = 0; j < R; j++) s[i][j] = 0;
    for (int c = 0; c < wide; c += 4) {
      ad_vector<float> p[R], q[R];
      AD_UNROLL
      for (int i = 0; i < R; i++) p[i] = ad_load(a + (R * y + i) * stride + c), q[i] = ad_load(b + (x + 16 * i) * stride + c);
      AD_UNROLL
      for (int e = 0; e < 4; e++)
        AD_UNROLL
        for (int i = 0; i < R; i++)
          AD_UNROLL
          for (int j = 0; j < R; j++) s[i][j] = ad_fma(p[i].e[e], q[j].e[e], s[i][j]);
    }
  }
  // c[i][k] += Σ over u of score(R·y + i, u)·b[u], columns 64(k/4) + 4x + k%4.
  template <class F>
  AD_DEVICE void accumulate(float (&c)[R][4 * groups], const float *b, F score) const {
    for (int u = 0; u < rows; u++) {
      float p[R];
      AD_UNROLL
      for (int i = 0; i < R; i++) p[i] = score(R * y + i, u);
      AD_UNROLL
      for (int g = 0; g < groups; g++) {
        if (64 * g + 4 * x >= wide) continue;
        const ad_vector<float> v = ad_load(b + u * stride + 64 * g + 4 * x);
        AD_UNROLL
        for (int i = 0; i < R; i++)
          AD_UNROLL
          for (int k = 0; k < 4; k++) c[i][4 * g + k] = ad_fma(p[i], v.e[k], c[i][4 * g + k]);
      }
    }
  }
  // row(i)[column] = c[i]·factor[i] for the thread's rows and columns; row is null for rows that are not stored.
  template <class T, class F>
  AD_DEVICE void store(const float (&c)[R][4 * groups], const float (&factor)[R], F row) const {
    AD_UNROLL
    for (int i = 0; i < R; i++) {
      T *to = row(R * y + i);
      AD_UNROLL
      for (int k = 0; k < 4 * groups; k++) {
        const int column = k / 4 * 64 + 4 * x + k % 4;
        if (to && column < dim) to[column] = ad_cast<T>(c[i][k] * factor[i]);
      }
    }
  }
};
template <int R>
AD_DEVICE Scalar<R> scalar_of(int dim) {
  const int wide = (dim + 3) / 4 * 4;
  return Scalar<R>{dim, wide, wide + 4, (int)threadIdx.x % 16, (int)threadIdx.x / 16};
}
// Over the 16 threads that share rows.
AD_DEVICE float row_sum(float v) {
  AD_UNROLL
  for (int m = 8; m; m >>= 1) v += __shfl_xor_sync(AD_ALL, v, m);
  return v;
}
AD_DEVICE float row_max(float v) {
  AD_UNROLL
  for (int m = 8; m; m >>= 1) v = ad_max(v, __shfl_xor_sync(AD_ALL, v, m));
  return v;
}
template <int N, int K>
AD_DEVICE void zero(float (&c)[N][K]) {
  AD_UNROLL
  for (int i = 0; i < N; i++)
    AD_UNROLL
    for (int k = 0; k < K; k++) c[i][k] = 0;
}

// The operands and the grid are those of the tensor cores' forward, grad_queries and grad_keys.
template <class T, int R>
AD_DEVICE void scalar_forward(T *y, float *lse, const T *qkv, const Problem &p, float scale, float keep) {
  AD_DYNAMIC_SHARED(float, tileQ);
  const Scalar<R> s = scalar_of<R>(p.dim);
  constexpr int rows = s.rows;
  float *const tileK = tileQ + rows * s.stride, *const scores = tileK + rows * s.stride;
  const int group = p.heads / p.kvHeads, folded = ((group - 1) >> p.fold) + 1, g = blockIdx.x / folded;
  const Queries q = {(int)blockIdx.y, (int)(gridDim.z - 1 - blockIdx.z) * (rows >> p.fold), g * group + ((int)blockIdx.x % folded << p.fold), (g + 1) * group, p.fold, p.seq};
  const int width = p.width();
  const T *const keys = qkv + (int64_t)q.b * p.seq * width + (p.heads + g) * p.dim;
  int least, most;
  bounds<rows>(p, q, threadIdx.x % 32, least, most);
  const int end = q.clamped(rows - 1) + 1, begin = least / rows * rows;
  s.load(tileQ, [&](int r) { return q.valid(r) ? qkv + q.at(r, width, p.dim) : nullptr; });
  float out[R][4 * s.groups], largest[R], sum[R];
  zero(out);
  AD_UNROLL
  for (int i = 0; i < R; i++) largest[i] = -kInfinity, sum[i] = 0;
  for (int u0 = begin; u0 < end; u0 += rows) {
    __syncthreads();
    s.load(tileK, [&](int r) { return u0 + r < p.seq ? keys + (int64_t)(u0 + r) * width : nullptr; });
    __syncthreads();
    float x[R][R];
    s.products(x, tileQ, tileK);
    AD_BUG(attention_scalar_barrier, __syncthreads(), );
    s.load(tileK, [&](int r) { return u0 + r < p.seq ? keys + p.kvHeads * p.dim + (int64_t)(u0 + r) * width : nullptr; });
    AD_UNROLL
    for (int i = 0; i < R; i++) {
      const int r = R * s.y + i, t = q.clamped(r), from = p.start(q.b, t);
      float top = largest[i];
      AD_UNROLL
      for (int j = 0; j < R; j++) {
        const int u = u0 + s.x + 16 * j;
        if (u < from || u > t) x[i][j] = -kInfinity;
        top = ad_max(top, x[i][j]);
      }
      top = row_max(top);
      const float base = top == -kInfinity ? 0.0f : top * scale, before = ad_exp2(ad_fma(largest[i], scale, -base));
      largest[i] = top;
      float total = 0;
      AD_UNROLL
      for (int j = 0; j < R; j++) {
        float e = ad_exp2(ad_fma(x[i][j], scale, -base));
        total += e;
        if (p.key && p.drop().dropped(p.element(q.b, q.h(r), t, u0 + s.x + 16 * j))) e = 0;
        scores[r * s.scoreStride + s.x + 16 * j] = e;
      }
      sum[i] = ad_fma(sum[i], before, row_sum(total));
      AD_UNROLL
      for (int k = 0; k < 4 * s.groups; k++) out[i][k] *= before;
    }
    __syncthreads();
    s.accumulate(out, tileK, [&](int r, int u) { return scores[r * s.scoreStride + u]; });
  }
  float factor[R];
  AD_UNROLL
  for (int i = 0; i < R; i++) {
    const int r = R * s.y + i;
    factor[i] = keep / sum[i];
    if (lse && s.x == 0 && q.valid(r)) lse[q.at(r, p.heads, 1)] = ad_fma(largest[i], scale, ad_log2(sum[i])) * kLn2;
  }
  s.template store<T>(out, factor, [&](int r) { return q.valid(r) ? y + q.at(r, (int64_t)p.heads * p.dim, p.dim) : nullptr; });
}

template <class T, int R>
AD_DEVICE void scalar_grad_queries(T *dqkv, float *delta, const T *dy, const T *y, const T *qkv, const float *lse, const Problem &p, float scale, float gain, float keep) {
  AD_DYNAMIC_SHARED(float, tileQ);
  const Scalar<R> s = scalar_of<R>(p.dim);
  constexpr int rows = s.rows;
  float *const tileG = tileQ + rows * s.stride, *const tileK = tileG + rows * s.stride, *const tileV = tileK + rows * s.stride, *const scores = tileV + rows * s.stride;
  const int group = p.heads / p.kvHeads, folded = ((group - 1) >> p.fold) + 1, g = blockIdx.x / folded;
  const Queries q = {(int)blockIdx.y, (int)(gridDim.z - 1 - blockIdx.z) * (rows >> p.fold), g * group + ((int)blockIdx.x % folded << p.fold), (g + 1) * group, p.fold, p.seq};
  const int width = p.width();
  const T *const keys = qkv + (int64_t)q.b * p.seq * width + (p.heads + g) * p.dim;
  int least, most;
  bounds<rows>(p, q, threadIdx.x % 32, least, most);
  const int end = q.clamped(rows - 1) + 1, begin = least / rows * rows;
  s.load(tileQ, [&](int r) { return q.valid(r) ? qkv + q.at(r, width, p.dim) : nullptr; });
  s.load(tileG, [&](int r) { return q.valid(r) ? dy + q.at(r, (int64_t)p.heads * p.dim, p.dim) : nullptr; });
  float dq[R][4 * s.groups], total[R], mean[R];
  zero(dq);
  AD_UNROLL
  for (int i = 0; i < R; i++) {
    const int r = R * s.y + i;
    const int64_t element = q.at(r, p.heads, 1);
    const bool valid = q.valid(r);
    total[i] = valid ? lse[element] * kLog2e : kInfinity;
    float d = 0;
    for (int column = s.x; valid && column < p.dim; column += 16) d = ad_fma(ad_float(dy[element * p.dim + column]), ad_float(y[element * p.dim + column]), d);
    mean[i] = row_sum(d);
    if (valid && s.x == 0) delta[element] = mean[i];
  }
  for (int u0 = begin; u0 < end; u0 += rows) {
    __syncthreads();
    s.load(tileK, [&](int r) { return u0 + r < p.seq ? keys + (int64_t)(u0 + r) * width : nullptr; });
    s.load(tileV, [&](int r) { return u0 + r < p.seq ? keys + p.kvHeads * p.dim + (int64_t)(u0 + r) * width : nullptr; });
    __syncthreads();
    float x[R][R], d[R][R];
    s.products(x, tileQ, tileK);
    s.products(d, tileG, tileV);
    AD_UNROLL
    for (int i = 0; i < R; i++) {
      const int r = R * s.y + i, t = q.clamped(r), from = p.start(q.b, t);
      AD_UNROLL
      for (int j = 0; j < R; j++) {
        const int u = u0 + s.x + 16 * j;
        float e = ad_exp2(ad_fma(x[i][j], scale, -total[i])), de = d[i][j];
        if (u < from || u > t) e = 0;
        if (p.key) de = p.drop().dropped(p.element(q.b, q.h(r), t, u)) ? 0 : de * keep;
        scores[r * s.scoreStride + s.x + 16 * j] = e * (de - mean[i]);
      }
    }
    __syncthreads();
    s.accumulate(dq, tileK, [&](int r, int u) { return scores[r * s.scoreStride + u]; });
  }
  float factor[R];
  AD_UNROLL
  for (int i = 0; i < R; i++) factor[i] = gain;
  s.template store<T>(dq, factor, [&](int r) { return q.valid(r) ? dqkv + q.at(r, width, p.dim) : nullptr; });
}

template <class T, int R>
AD_DEVICE void scalar_grad_keys(T *dqkv, float *parts, const T *dy, const T *qkv, const float *lse, const float *delta, const Problem &p, int share, float scale, float gain, float keep) {
  AD_DYNAMIC_SHARED(float, tileK);
  const Scalar<R> s = scalar_of<R>(p.dim);
  constexpr int rows = s.rows;
  float *const tileV = tileK + rows * s.stride, *const tileQ = tileV + rows * s.stride, *const tileG = tileQ + rows * s.stride;
  float *const kept = tileG + rows * s.stride, *const scores = kept + rows * s.scoreStride;  // of keys by queries
  const int group = p.heads / p.kvHeads, shares = (group + share - 1) / share, split = blockIdx.x % shares, g = blockIdx.x / shares;
  const int b = blockIdx.y, u0 = blockIdx.z * rows, u1 = u0 + rows < p.seq ? u0 + rows : p.seq;
  const int width = p.width();
  const int head0 = g * group + split * share, headEnd = head0 + share < (g + 1) * group ? head0 + share : (g + 1) * group;
  const T *const keys = qkv + (int64_t)b * p.seq * width + (p.heads + g) * p.dim;
  s.load(tileK, [&](int r) { return u0 + r < p.seq ? keys + (int64_t)(u0 + r) * width : nullptr; });
  s.load(tileV, [&](int r) { return u0 + r < p.seq ? keys + p.kvHeads * p.dim + (int64_t)(u0 + r) * width : nullptr; });
  int beyond = 0;
  for (int t = u0 + (int)threadIdx.x % 32; t < p.seq; t += 32)
    if (p.start(b, t) < u1) beyond = -t - 1 < beyond ? -t - 1 : beyond;
  const int last = -warp_min(beyond);
  float dk[R][4 * s.groups], dv[R][4 * s.groups];
  zero(dk);
  zero(dv);
  for (int head = head0; head < headEnd; head += 1 << p.fold)
    for (int t0 = u0; t0 < last; t0 += rows >> p.fold) {
      const Queries q = {b, t0, head, headEnd, p.fold, p.seq};
      __syncthreads();
      s.load(tileQ, [&](int r) { return q.valid(r) ? qkv + q.at(r, width, p.dim) : nullptr; });
      s.load(tileG, [&](int r) { return q.valid(r) ? dy + q.at(r, (int64_t)p.heads * p.dim, p.dim) : nullptr; });
      __syncthreads();
      float x[R][R], d[R][R];
      s.products(x, tileK, tileQ);
      s.products(d, tileV, tileG);
      AD_UNROLL
      for (int j = 0; j < R; j++) {
        const int r = s.x + 16 * j, t = q.clamped(r), from = p.start(b, t);
        const bool valid = q.valid(r);
        const float total = valid ? lse[q.at(r, p.heads, 1)] * kLog2e : kInfinity, mean = valid ? delta[q.at(r, p.heads, 1)] : 0;
        AD_UNROLL
        for (int i = 0; i < R; i++) {
          const int u = u0 + R * s.y + i;
          float e = ad_exp2(ad_fma(x[i][j], scale, -total)), factor = 1;
          if (u < from || u > t) e = 0;
          if (p.key) factor = p.drop().dropped(p.element(b, q.h(r), t, u)) ? 0 : keep;
          kept[(R * s.y + i) * s.scoreStride + r] = e * factor;
          scores[(R * s.y + i) * s.scoreStride + r] = e * (d[i][j] * factor - mean);
        }
      }
      __syncthreads();
      s.accumulate(dv, tileG, [&](int u, int r) { return kept[u * s.scoreStride + r]; });
      s.accumulate(dk, tileQ, [&](int u, int r) { return scores[u * s.scoreStride + r]; });
    }
  float gains[R], ones[R];
  AD_UNROLL
  for (int i = 0; i < R; i++) gains[i] = gain, ones[i] = 1;
  if (parts) {
    float *const to = parts + (((int64_t)split * gridDim.y + b) * p.seq * 2 * p.kvHeads + g) * p.dim;
    const int64_t stride = (int64_t)2 * p.kvHeads * p.dim;
    s.template store<float>(dk, gains, [&](int r) { return u0 + r < p.seq ? to + (u0 + r) * stride : nullptr; });
    s.template store<float>(dv, ones, [&](int r) { return u0 + r < p.seq ? to + p.kvHeads * p.dim + (u0 + r) * stride : nullptr; });
    return;
  }
  T *const to = dqkv + (int64_t)b * p.seq * width + (p.heads + g) * p.dim;
  s.template store<T>(dk, gains, [&](int r) { return u0 + r < p.seq ? to + (int64_t)(u0 + r) * width : nullptr; });
  s.template store<T>(dv, ones, [&](int r) { return u0 + r < p.seq ? to + p.kvHeads * p.dim + (int64_t)(u0 + r) * width : nullptr; });
}

}  // namespace attention

#define KERNELS(R, S, T)                                                                                                                                    \
  AD_KERNEL(attention_scalar##R##_##S, (T * y, float *lse, const T *qkv, const int32_t *docStart, const int32_t *key, ATTENTION_PROBLEM, float scale, float keep), 256) { \
    attention::scalar_forward<T, R>(y, lse, qkv, ATTENTION_GIVEN, scale, keep);                                                                             \
  }                                                                                                                                                         \
  AD_KERNEL(attention_scalar##R##_grad_queries_##S, (T * dqkv, float *delta, const T *dy, const T *y, const T *qkv, const int32_t *docStart, const int32_t *key, const float *lse, ATTENTION_PROBLEM, float scale, float gain, float keep), 256) { \
    attention::scalar_grad_queries<T, R>(dqkv, delta, dy, y, qkv, lse, ATTENTION_GIVEN, scale, gain, keep);                                                 \
  }                                                                                                                                                         \
  AD_KERNEL(attention_scalar##R##_grad_keys_##S, (T * dqkv, float *parts, const T *dy, const T *qkv, const int32_t *docStart, const int32_t *key, const float *lse, const float *delta, ATTENTION_PROBLEM, int32_t share, float scale, float gain, float keep), 256) { \
    attention::scalar_grad_keys<T, R>(dqkv, parts, dy, qkv, lse, delta, ATTENTION_GIVEN, share, scale, gain, keep);                                         \
  }
#define KERNEL(S, T) KERNELS(1, S, T) KERNELS(2, S, T)
AD_STORES(KERNEL)
