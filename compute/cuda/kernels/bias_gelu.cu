#include "ad_cuda.h"

// GELU by tanh as x·sigmoid(2u), u = √(2/π)·(x + 0.044715·x³): the same function without tanh's cancellation.
AD_DEVICE float gelu(float x) {
  const float u = 0.797884561f * (x + 0.044715f * x * x * x);
  return x * ad_sigmoid(2 * u);
}

// y [rows,width] = gelu(x + bias), element by element, one thread each; y may be x. bias may be null.
template <class T>
AD_DEVICE void bias_gelu(T *y, const T *x, const float *bias, int64_t n, int32_t width) {
  const int64_t stride = (int64_t)gridDim.x * blockDim.x;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
    const float b = bias ? bias[i % width] : 0.0f;
    y[i] = ad_cast<T>(gelu(ad_float(x[i]) + b));
  }
}

#define KERNEL(S, T)                                                                                   \
  AD_KERNEL(bias_gelu_##S, (T * y, const T *x, const float *bias, int64_t n, int32_t width), 256) { \
    bias_gelu(y, x, bias, n, width);                                                                   \
  }
AD_STORES(KERNEL)
