#include "ad_cuda.h"

// Functions of one element and of two. Arrays are read and written 16 bytes at a time; what is left over, at the end, element by
// element. Results may lie where operands do. Bytes moved: those of the operands and of the result, once each.

template <class T, class F>
AD_DEVICE void map(T *y, const T *x, int64_t n, F f) {
  constexpr int N = ad_vector<T>::n;
  const int64_t first = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, stride = (int64_t)gridDim.x * blockDim.x;
  for (int64_t v = first; v < n / N; v += stride) {
    const ad_vector<T> a = ad_load(x + v * N);
    ad_vector<T> r;
    AD_UNROLL
    for (int i = 0; i < N; i++) r.e[i] = ad_cast<T>(f(a[i]));
    ad_store(y + v * N, r);
  }
  const int64_t rest = AD_BUG(elementwise_rest, n / N * N + first, n / N * N + first + 1);
  if (rest < n) y[rest] = ad_cast<T>(f(ad_float(x[rest])));
}

template <class T, class F>
AD_DEVICE void map(T *y, const T *a, const T *b, int64_t n, F f) {
  constexpr int N = ad_vector<T>::n;
  const int64_t first = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, stride = (int64_t)gridDim.x * blockDim.x;
  for (int64_t v = first; v < n / N; v += stride) {
    const ad_vector<T> p = ad_load(a + v * N), q = ad_load(b + v * N);
    ad_vector<T> r;
    AD_UNROLL
    for (int i = 0; i < N; i++) r.e[i] = ad_cast<T>(f(p[i], q[i]));
    ad_store(y + v * N, r);
  }
  const int64_t rest = n / N * N + first;
  if (rest < n) y[rest] = ad_cast<T>(f(ad_float(a[rest]), ad_float(b[rest])));
}

// GELU by tanh is x·s with s = 1/(1 + e^−2u), u = √(2/π)·(x + 0.044715·x³): the same function without tanh's cancellation. Beyond ±15 s
// is 0 or 1 in float32; there x is cut off, so that no power of it overflows. A NaN stays one.
struct GELUTanh {
  float s, slope;  // slope is 2·du/dx
  AD_DEVICE explicit GELUTanh(float x) {
    const float c = 1.59576912f, z = x > 15.0f ? 15.0f : x < -15.0f ? -15.0f : x;  // c is 2√(2/π)
    s = ad_rcp(1.0f + ad_exp(-c * z * (1.0f + 0.044715f * z * z)));
    slope = c * (1.0f + 0.134145f * z * z);
  }
};
AD_DEVICE float gelu_tanh(float x) { return x * GELUTanh(x).s; }
AD_DEVICE float gelu_tanh_grad(float dy, float x) {
  const GELUTanh g(x);
  return dy * (g.s + x * g.s * (1.0f - g.s) * g.slope);
}

// Φ(x), the normal distribution's share below x, = erfc(−x/√2)/2. With z = |x|/√2 and t = 1/(1 + z/2), erfc(z) = t·e^(p(t) − z²); p is the
// polynomial that interpolates at Chebyshev's points (testdata/erfc.py), relative error 1.8e-7 before rounding.
AD_DEVICE float normal_below(float x) {
  const float z = 0.707106781f * (x < 0.0f ? -x : x), t = ad_rcp(1.0f + 0.5f * z);
  float p = 0.188447592f;
  p = ad_fma(p, t, -0.906393286f);
  p = ad_fma(p, t, 1.65903858f);
  p = ad_fma(p, t, -1.3248115f);
  p = ad_fma(p, t, 0.405030216f);
  p = ad_fma(p, t, -0.237604743f);
  p = ad_fma(p, t, 0.109291886f);
  p = ad_fma(p, t, 0.372376812f);
  p = ad_fma(p, t, 1.00013961f);
  p = ad_fma(p, t, -1.26551505f);
  const float tail = 0.5f * t * ad_exp(p - z * z);
  return x < 0.0f ? tail : 1.0f - tail;
}
AD_DEVICE float gelu_erf(float x) { return x * normal_below(x); }
AD_DEVICE float gelu_erf_grad(float dy, float x) { return dy * (normal_below(x) + x * 0.398942280f * ad_exp(-0.5f * x * x)); }

AD_DEVICE float relu(float x) { return x < 0.0f ? 0.0f : x; }
AD_DEVICE float relu_grad(float dy, float x) { return x > 0.0f ? dy : 0.0f; }

#define ACTIVATION(name, S, T)                                                            \
  AD_KERNEL(name##_##S, (T * y, const T *x, int64_t n), 256) {                            \
    map(y, x, n, [](float v) { return name(v); });                                        \
  }                                                                                       \
  AD_KERNEL(name##_grad_##S, (T * dx, const T *dy, const T *x, int64_t n), 256) {         \
    map(dx, dy, x, n, [](float d, float v) { return name##_grad(d, v); });                \
  }
#define KERNEL(S, T)                                                                      \
  ACTIVATION(gelu_tanh, S, T)                                                             \
  ACTIVATION(gelu_erf, S, T)                                                              \
  ACTIVATION(relu, S, T)                                                                  \
  AD_KERNEL(add_##S, (T * y, const T *a, const T *b, int64_t n), 256) {                   \
    map(y, a, b, n, [](float p, float q) { return p + q; });                              \
  }
AD_STORES(KERNEL)
