#include "ad_cuda.h"

// Sums over the rows of a matrix, in two launches: column_sums gives each block's, column_sums_add adds them up in order.

// parts [gridDim.y,width]: row blockIdx.y is the sum of the rows r of x [rows,width] with r/8 % gridDim.y == blockIdx.y. A block of 8 warps
// has 32 vectors of V columns; each warp takes rows in turn, four at a time. V is 1 or, if width is a multiple of it, that of ad_vector.
// Bytes moved: x once, and the parts.
template <int V, class T>
AD_DEVICE void column_sums(float *parts, const T *x, int32_t rows, int32_t width) {
  AD_SHARED(float, sums, 8 * 32 * V);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, column = (blockIdx.x * 32 + lane) * V;
  const int32_t step = gridDim.y * 8;
  float sum[V];
  AD_UNROLL
  for (int i = 0; i < V; i++) sum[i] = 0;
  struct Piece {
    T e[V];
  };
  auto load = [&](int32_t row) {
    const T *p = x + (int64_t)row * width + column;
    if constexpr (V == 1) return Piece{p[0]};
    else return __builtin_bit_cast(Piece, ad_load(p));
  };
  auto add = [&](const Piece &p) {
    AD_UNROLL
    for (int i = 0; i < V; i++) sum[i] += ad_float(p.e[i]);
  };
  if (column < width) {
    int32_t row = blockIdx.y * 8 + warp;
    for (; row + 3 * step < rows; row += 4 * step) {
      const Piece a = load(row), b = load(row + step), c = load(row + 2 * step), d = load(row + 3 * step);
      add(a), add(b), add(c), add(d);
    }
    for (; row < rows; row += step) add(load(row));
  }
  AD_UNROLL
  for (int i = 0; i < V; i++) sums[warp * 32 * V + lane * V + i] = sum[i];
  AD_BUG(column_sums_barrier, __syncthreads(), );
  const int own = blockIdx.x * 32 * V + threadIdx.x;
  if ((int)threadIdx.x >= 32 * V || own >= width) return;
  float all = 0;
  AD_UNROLL
  for (int w = 0; w < 8; w++) all += sums[w * 32 * V + threadIdx.x];
  parts[(int64_t)blockIdx.y * width + own] = all;
}

#define KERNEL(S, T)                                                                                  \
  AD_KERNEL(column_sums_##S, (float *parts, const T *x, int32_t rows, int32_t width), 256) {          \
    column_sums<ad_vector<T>::n>(parts, x, rows, width);                                              \
  }                                                                                                   \
  AD_KERNEL(column_sums_any_##S, (float *parts, const T *x, int32_t rows, int32_t width), 256) {      \
    column_sums<1>(parts, x, rows, width);                                                            \
  }
AD_STORES(KERNEL)

// y[width] += Σ parts [n,width], the parts in order within eighths, and these in order. A block of 256 threads has 32 columns; blocks with
// blockIdx.y 1 do the same for y1 and parts1.
AD_KERNEL(column_sums_add_f32, (float *y, float *y1, const float *parts, const float *parts1, int32_t n, int32_t width), 256) {
  AD_SHARED(float, sums, 256);
  if (blockIdx.y) y = y1, parts = parts1;
  const int lane = threadIdx.x % 32, eighth = threadIdx.x / 32, column = blockIdx.x * 32 + lane;
  const int32_t each = (n + 7) / 8, end = (eighth + 1) * each < n ? (eighth + 1) * each : n;
  float sum = 0;
  if (column < width) {
    const float *p = parts + column;
    int32_t i = eighth * each;
    for (; i + 7 < end; i += 8) {
      float v[8];
      AD_UNROLL
      for (int j = 0; j < 8; j++) v[j] = p[(int64_t)(i + j) * width];
      AD_UNROLL
      for (int j = 0; j < 8; j++) sum += v[j];
    }
    for (; i < end; i++) sum += p[(int64_t)i * width];
  }
  sums[threadIdx.x] = sum;
  AD_BUG(column_sums_add_barrier, __syncthreads(), );
  if (eighth || column >= width) return;
  AD_UNROLL
  for (int e = 1; e < 8; e++) sum += sums[e * 32 + lane];
  y[column] += sum;
}
