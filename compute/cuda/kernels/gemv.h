// What the products of few rows have in common, whatever their weights are.
#pragma once
#include "ad_cuda.h"

namespace gemv {

constexpr int kThreads = 256, kWarps = kThreads / 32;

AD_DEVICE float gelu_tanh(float x) {
  const float u = 0.797884561f * (x + 0.044715f * x * x * x);
  return x * ad_sigmoid(2 * u);
}

// The sums of each of R values over the block's threads, in each thread with the same bits; partial [kWarps·R] is not that of the sums before.
template <int R>
AD_DEVICE void block_sums(float (&v)[R], float *partial) {
  AD_UNROLL
  for (int r = 0; r < R; r++) {
    v[r] = ad_warp_sum(v[r]);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32 * R + r] = v[r];
  }
  AD_BUG(gemv_norm_barrier, __syncthreads(), );
  AD_UNROLL
  for (int r = 0; r < R; r++) {
    v[r] = 0;
    AD_UNROLL
    for (int w = 0; w < kWarps; w++) v[r] += partial[w * R + r];
  }
}

// The layer norm of the rows that a product reads, by each of its blocks for itself: the rows are in the second-level cache, and a launch of their own
// would take longer. It is layernorm.cu's: sums are float32, the variance is of the differences to the mean, rows are rounded to T.
// A thread's vectors, its lanes and its warps are added up in this order: a row's bits do not depend on R. Rows have whole vectors.
template <class T>
struct Norm {
  static constexpr int N = ad_vector<T>::n;
  const T *gain, *shift;
  float epsilon, each;  // each: 1/in
  ad_vector<T> g, b;    // those of the thread's first vector

  // Before the wait: gain and shift are weights. Without gain there is no norm.
  AD_DEVICE Norm(const T *gain, const T *shift, float epsilon, int in) : gain(gain), shift(shift), epsilon(epsilon), each(ad_rcp((float)in)) {
    const int column = threadIdx.x * N;
    if (gain && column < in) g = ad_load(gain + column), b = ad_load(shift + column);
  }

  // Puts the norms of n rows of x [n,in] into rows [R,in] of shared memory; rows beyond the last are like it.
  template <int R>
  AD_DEVICE void put(T *rows, const T *x, int n, int in) const {
    AD_SHARED(float, partial, 2 * kWarps * R);
    float sum[R], squares[R];
    AD_UNROLL
    for (int r = 0; r < R; r++) sum[r] = squares[r] = 0;
    for (int column = threadIdx.x * N; column < in; column += kThreads * N)
      AD_UNROLL
      for (int r = 0; r < R; r++) {
        const ad_vector<T> v = ad_load(x + ((r < n ? r : n - 1) * in + column));
        ad_store(rows + r * in + column, v);
        AD_UNROLL
        for (int i = 0; i < N; i++) sum[r] += v[i];
      }
    block_sums(sum, partial);
    AD_UNROLL
    for (int r = 0; r < R; r++) sum[r] *= each;  // the mean
    for (int column = threadIdx.x * N; column < in; column += kThreads * N)
      AD_UNROLL
      for (int r = 0; r < R; r++) {
        const ad_vector<T> v = ad_load(rows + r * in + column);
        AD_UNROLL
        for (int i = 0; i < N; i++) squares[r] = ad_fma(v[i] - sum[r], v[i] - sum[r], squares[r]);
      }
    block_sums(squares, partial + kWarps * R);
    for (int column = threadIdx.x * N; column < in; column += kThreads * N) {
      const bool first = column < kThreads * N;
      const ad_vector<T> scale = first ? g : ad_load(gain + column), move = first ? b : ad_load(shift + column);
      AD_UNROLL
      for (int r = 0; r < R; r++) {
        const float rstd = ad_rsqrt(ad_fma(squares[r], each, epsilon));
        const ad_vector<T> v = ad_load(rows + r * in + column);
        ad_vector<T> to;
        AD_UNROLL
        for (int i = 0; i < N; i++) to.e[i] = ad_cast<T>(ad_fma((v[i] - sum[r]) * rstd, scale[i], move[i]));
        ad_store(rows + r * in + column, to);
      }
    }
    __syncthreads();
  }
};

// The share of `all` that a block has: from begin to end.
struct Share {
  int begin, end;
  AD_DEVICE Share(int all, int share, int shares) {
    const uint32_t each = (uint32_t)all / shares, rest = (uint32_t)all % shares;
    begin = share * each + (share < (int)rest ? share : rest);
    end = begin + each + (share < (int)rest);
  }
};

// Which R of n rows a block has; below gemvRows (gemv.go) there are as many as R.
template <int R>
struct Rows {
  int groups, first;
  AD_DEVICE explicit Rows(int n) : groups(R < 8 ? 1 : (uint32_t)(n + R - 1) / R), first(R < 8 ? 0 : (int)((uint32_t)blockIdx.x % groups * R)) {}
  AD_DEVICE Share share(int all) const { return R < 8 ? Share(all, blockIdx.x, gridDim.x) : Share(all, (uint32_t)blockIdx.x / groups, (uint32_t)gridDim.x / groups); }
};

}  // namespace gemv
