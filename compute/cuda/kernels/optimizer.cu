#include "ad_cuda.h"

// Σ x² in float64, in two launches: each block's, then the blocks' in order. The same grid gives the same bits. Bytes moved: x once.
AD_KERNEL(sum_squares_f32, (double *parts, const float *x, int64_t n), 256) {
  AD_SHARED(double, partial, 32);
  const int64_t first = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, stride = (int64_t)gridDim.x * blockDim.x, vectors = n / 4;
  double sum[4] = {0, 0, 0, 0};
  auto add = [&](const ad_vector<float> &a) {
    AD_UNROLL
    for (int i = 0; i < 4; i++) sum[i] += (double)a.e[i] * a.e[i];
  };
  int64_t v = first;
  for (; v + 3 * stride < vectors; v += 4 * stride) {
    const ad_vector<float> a = ad_load(x + v * 4), b = ad_load(x + (v + stride) * 4), c = ad_load(x + (v + 2 * stride) * 4), d = ad_load(x + (v + 3 * stride) * 4);
    add(a), add(b), add(c), add(d);
  }
  for (; v < vectors; v += stride) add(ad_load(x + v * 4));
  const int64_t rest = vectors * 4 + first;
  if (rest < n) sum[0] += (double)x[rest] * x[rest];
  const double all = ad_block_sum((sum[0] + sum[1]) + (sum[2] + sum[3]), partial);
  if (threadIdx.x == 0) parts[blockIdx.x] = all;
}
AD_KERNEL(sum_squares_add_f32, (double *sum, const double *parts, int32_t n), 256) {
  AD_SHARED(double, partial, 32);
  double own = 0;
  for (int32_t i = threadIdx.x; i < n; i += blockDim.x) own += parts[i];
  own = ad_block_sum(own, partial);
  if (threadIdx.x == 0) *sum = own;
}

// AdamW (Loshchilov, Hutter 2019): param, m, v [n] are updated in place from grad [n]; copy [n], which may be null, gets param as T.
// hyper [8]: learning rate, β1, β2, ε, weight decay, 1−β1^t, 1−β2^t, gradient multiplier. Bytes moved an element: 28 (grad read;
// param, m and v read and written), and the copy.
struct AdamW {
  float rate, beta1, beta2, epsilon, decay, correction1, correction2, multiplier, rest1, rest2;
  AD_DEVICE explicit AdamW(const float *h)
      : rate(h[0]), beta1(h[1]), beta2(h[2]), epsilon(h[3]), decay(h[0] * h[4]), correction1(h[5]), correction2(h[6]), multiplier(h[7]), rest1(1.0f - h[1]), rest2(1.0f - h[2]) {}
  AD_DEVICE void operator()(float &p, float &m, float &v, float g) const {
    g *= multiplier;
    m = ad_fma(beta1, m, rest1 * g);
    v = ad_fma(beta2, v, rest2 * g * g);
    p = p - decay * p - rate * (m / correction1) / (ad_sqrt(v / correction2) + epsilon);
  }
};

template <class T>
AD_DEVICE void adamw(float *param, float *m, float *v, T *copy, const float *grad, const float *hyper, int64_t n) {
  const AdamW step(hyper);
  const int64_t first = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, stride = (int64_t)gridDim.x * blockDim.x;
  struct alignas(4 * sizeof(T)) Four {
    T e[4];
  };
  for (int64_t i = first; i < n / 4; i += stride) {
    ad_vector<float> p = ad_load(param + i * 4), a = ad_load(m + i * 4), b = ad_load(v + i * 4);
    const ad_vector<float> g = ad_load(grad + i * 4);
    Four c;
    AD_UNROLL
    for (int j = 0; j < 4; j++) {
      step(p.e[j], a.e[j], b.e[j], g.e[j]);
      c.e[j] = ad_cast<T>(p.e[j]);
    }
    ad_store(param + i * 4, p);
    ad_store(m + i * 4, a);
    ad_store(v + i * 4, b);
    if (copy) *(Four *)(copy + i * 4) = c;
  }
  const int64_t rest = AD_BUG(adamw_rest, n / 4 * 4 + first, n + first);
  if (rest >= n) return;
  step(param[rest], m[rest], v[rest], grad[rest]);
  if (copy) copy[rest] = ad_cast<T>(param[rest]);
}

#define KERNEL(S, T)                                                                                                         \
  AD_KERNEL(adamw_##S, (float *param, float *m, float *v, T *copy, const float *grad, const float *hyper, int64_t n), 256) { \
    adamw(param, m, v, copy, grad, hyper, n);                                                                                \
  }
AD_STORES(KERNEL)
