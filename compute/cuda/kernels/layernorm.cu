#include "ad_cuda.h"

// y [rows,width] = (x − mean)/√(variance + epsilon)·gain + bias for each row of x. One block a row; the row is read twice more from
// cache. Sums are float32, the variance is of the differences to the mean.
template <class T>
AD_DEVICE void layernorm(T *y, const T *x, const float *gain, const float *bias, int32_t width, float epsilon) {
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
  for (int i = threadIdx.x; i < width; i += blockDim.x) y[i] = ad_cast<T>((ad_float(x[i]) - mean) * rstd * gain[i] + bias[i]);
}

#define KERNEL(S, T)                                                                                                       \
  AD_KERNEL(layernorm_##S, (T * y, const T *x, const float *gain, const float *bias, int32_t width, float epsilon), 256) { \
    layernorm(y, x, gain, bias, width, epsilon);                                                                           \
  }
AD_STORES(KERNEL)
