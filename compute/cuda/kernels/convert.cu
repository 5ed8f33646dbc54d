#include "ad_cuda.h"

// Moves between float32 and shorter types, 8 elements at a time. Bytes moved: both sides once.
template <class T>
AD_DEVICE void round_to(T *y, const float *x, int64_t n) {
  const int64_t first = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, stride = (int64_t)gridDim.x * blockDim.x;
  for (int64_t v = first; v < n / 8; v += stride) {
    const ad_vector<float> a = ad_load(x + v * 8), b = ad_load(x + v * 8 + 4);
    ad_vector<T> r;
    AD_UNROLL
    for (int i = 0; i < 4; i++) r.e[i] = ad_cast<T>(a.e[i]), r.e[4 + i] = ad_cast<T>(b.e[i]);
    ad_store(y + v * 8, r);
  }
  const int64_t rest = n / 8 * 8 + first;
  if (rest < n) y[rest] = ad_cast<T>(x[rest]);
}
template <class T>
AD_DEVICE void widen(float *y, const T *x, int64_t n) {
  const int64_t first = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, stride = (int64_t)gridDim.x * blockDim.x;
  for (int64_t v = first; v < n / 8; v += stride) {
    const ad_vector<T> a = ad_load(x + v * 8);
    ad_store(y + v * 8, ad_vector<float>{{a[0], a[1], a[2], a[3]}});
    ad_store(y + v * 8 + 4, ad_vector<float>{{a[4], a[5], a[6], a[7]}});
  }
  const int64_t rest = n / 8 * 8 + first;
  if (rest < n) y[rest] = ad_float(x[rest]);
}

#define KERNEL(S, T)                                                                              \
  AD_KERNEL(round_##S, (T * y, const float *x, int64_t n), 256) { round_to(y, x, n); }            \
  AD_KERNEL(widen_##S, (float *y, const T *x, int64_t n), 256) { widen(y, x, n); }
KERNEL(bf16, bf16)
KERNEL(f16, f16)

// x[n] = 0. Bytes moved: x once.
AD_KERNEL(zero_f32, (float *x, int64_t n), 256) {
  const int64_t first = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, stride = (int64_t)gridDim.x * blockDim.x;
  for (int64_t v = first; v < n / 4; v += stride) ad_store(x + v * 4, ad_vector<float>{{0, 0, 0, 0}});
  const int64_t rest = n / 4 * 4 + first;
  if (rest < n) x[rest] = 0;
}

// wrong[0] = the least i, if it is less than what is there, for which x[i] of x[n] is not in [least, limit).
AD_KERNEL(check_range_i32, (int32_t *wrong, const int32_t *x, int32_t n, int32_t least, int32_t limit), 256) {
  for (int32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
    if (x[i] < least || x[i] >= limit) atomicMin(wrong, i);
}
