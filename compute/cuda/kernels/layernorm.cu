#include "ad_cuda.h"

// y [rows,width] = (x − mean)/√(variance + epsilon)·gain + bias for each row of x; y may be x. Sums are float32, the variance is of
// the differences to the mean. Bytes moved: x and y once; gain and bias from cache.

// Rows of any width, a block each, which is read twice more from cache.
template <class T>
AD_DEVICE void layernorm(T *y, const T *x, const T *gain, const T *bias, int32_t width, float epsilon) {
  AD_SHARED(float, partial, 32);
  const int64_t row = AD_BUG(layernorm_offset, (int64_t)blockIdx.x * width, ((int64_t)blockIdx.x + 1) * width);
  x += row;
  y += row;
  float sum = 0;
  for (int i = threadIdx.x; i < width; i += blockDim.x) sum += ad_float(x[i]);
  const float mean = ad_block_sum(sum, partial) / width;
  float squares = 0;
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    const float d = ad_float(x[i]) - mean;
    squares += d * d;
  }
  const float rstd = ad_rsqrt(ad_block_sum(squares, partial) / width + epsilon);
  for (int i = threadIdx.x; i < width; i += blockDim.x) y[i] = ad_cast<T>((ad_float(x[i]) - mean) * rstd * ad_float(gain[i]) + ad_float(bias[i]));
}

// The sum over the `warps` warps that have a row, in each of their threads with the same bits; warps is a power of two that divides the
// block's. partial is not that of the sum before.
AD_DEVICE float row_sum(float v, float *partial, int warps) {
  v = ad_warp_sum(v);
  if (warps == 1) return v;
  const int warp = threadIdx.x / 32;
  if (threadIdx.x % 32 == 0) partial[warp] = v;
  AD_BUG(layernorm_rows_barrier, __syncthreads(), );
  float sum = 0;
  for (int w = 0; w < warps; w++) sum += partial[warp / warps * warps + w];
  return sum;
}

// Rows whose width is a multiple of a vector and at most 8 vectors for each lane of a row's warps: they are read once and kept in
// registers, all of a row under way at once.
template <class T>
AD_DEVICE void layernorm_rows(T *y, const T *x, const T *gain, const T *bias, int32_t rows, int32_t width, int32_t warps, float epsilon) {
  constexpr int N = ad_vector<T>::n, K = 8;
  AD_SHARED(float, partial, 16);
  const int lanes = 32 * warps, lane = threadIdx.x % lanes;
  const int64_t row = (int64_t)blockIdx.x * (blockDim.x / lanes) + threadIdx.x / lanes;
  x += row * width;
  y += row * width;
  ad_vector<T> v[K];
  float sum = 0;
  AD_UNROLL
  for (int k = 0; k < K; k++) {
    const int column = (k * lanes + lane) * N;
    v[k] = row < rows && column < width ? ad_load(x + column) : __builtin_bit_cast(ad_vector<T>, ad_u4{0, 0, 0, 0});
  }
  AD_UNROLL
  for (int k = 0; k < K; k++)
    AD_UNROLL
    for (int i = 0; i < N; i++) sum += v[k][i];
  const float mean = row_sum(sum, partial, warps) / width;
  float squares = 0;
  AD_UNROLL
  for (int k = 0; k < K; k++)
    if ((k * lanes + lane) * N < width)
      AD_UNROLL
      for (int i = 0; i < N; i++) squares = ad_fma(v[k][i] - mean, v[k][i] - mean, squares);
  const float rstd = ad_rsqrt(row_sum(squares, partial + 8, warps) / width + epsilon);
  AD_UNROLL
  for (int k = 0; k < K; k++) {
    const int column = (k * lanes + lane) * N;
    if (row >= rows || column >= width) continue;
    const ad_vector<T> g = ad_load(gain + column), b = ad_load(bias + column);
    ad_vector<T> r;
    AD_UNROLL
    for (int i = 0; i < N; i++) r.e[i] = ad_cast<T>(ad_fma((v[k][i] - mean) * rstd, g[i], b[i]));
    ad_store(y + column, r);
  }
}

#define KERNEL(S, T)                                                                                                                        \
  AD_KERNEL(layernorm_##S, (T * y, const T *x, const T *gain, const T *bias, int32_t width, float epsilon), 256) {                          \
    layernorm(y, x, gain, bias, width, epsilon);                                                                                            \
  }                                                                                                                                         \
  AD_KERNEL(layernorm_rows_##S, (T * y, const T *x, const T *gain, const T *bias, int32_t rows, int32_t width, int32_t warps, float epsilon), 256) { \
    layernorm_rows(y, x, gain, bias, rows, width, warps, epsilon);                                                                          \
  }
AD_STORES(KERNEL)
