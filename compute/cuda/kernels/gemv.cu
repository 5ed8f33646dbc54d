#include "ad_cuda.h"

// Products of a few rows, as decoding has them: y [n,out] = act(x·wᵀ + bias) + base, x [n,in], w [out,in]. They are bound by
// reading w, 16 bytes a lane: all of a block's rows of w are under way at once while in is at most some thousands.
//
// A block owns kOutputs rows of w and R rows of x. Blocks with the same rows of w lie side by side, so that one of them reads w from memory and the
// others find it in cache. Its threads take vectors of `in` in turn, so a thread's sum, the order in which lanes' and then warps'
// sums are added, and so the bits of a row of y, are a function of in and the row alone: not of n, nor of R, nor of the row's place.
namespace gemv {

constexpr int kThreads = 128, kOutputs = 4;

// Adds up each of the first Count values of v over the lanes that differ in the bits up to Mask. Half of the values go to the other lane
// at each step, as long as there is more than one: with M values and Mask 16, lane i has the sum of value i·M/32 in v[0] then.
template <int Count, int Mask, int M>
AD_DEVICE void lane_sums(float (&v)[M]) {
  if constexpr (Mask == 0) {
    return;
  } else if constexpr (Count == 1) {
    v[0] += __shfl_xor_sync(AD_ALL, v[0], Mask);
    lane_sums<1, Mask / 2>(v);
  } else {
    const bool upper = threadIdx.x & Mask;
    AD_UNROLL
    for (int i = 0; i < Count / 2; i++) {
      const float keep = upper ? v[i + Count / 2] : v[i], give = upper ? v[i] : v[i + Count / 2];
      v[i] = keep + __shfl_xor_sync(AD_ALL, give, Mask);
    }
    lane_sums<Count / 2, Mask / 2>(v);
  }
}

AD_DEVICE float gelu_tanh(float x) {
  const float u = 0.797884561f * (x + 0.044715f * x * x * x);
  return x * ad_sigmoid(2 * u);
}

// V elements of memory, as one access.
template <int V, class T>
struct Piece {
  T e[V];
  AD_DEVICE static Piece load(const T *p) {
    if constexpr (V == 1) return Piece{{*p}};
    else return __builtin_bit_cast(Piece, ad_load(p));
  }
};

// O is y's and base's type.
template <int R, int V, class O, class T>
AD_DEVICE void gemv(O *y, const T *x, const T *w, const T *bias, const O *base, int32_t n, int32_t in, int32_t out, int32_t gelu) {
  AD_SHARED(float, partial, 4 * kOutputs * R);
  const int groups = (n + R - 1) / R, group = blockIdx.x % groups * R;
  const int pieces = in / V, first = blockIdx.x / groups * kOutputs;
  n = n - group < R ? n - group : R;
  x += (int64_t)group * in;
  float sum[kOutputs * R];
  AD_UNROLL
  for (int i = 0; i < kOutputs * R; i++) sum[i] = 0;
  // Rows beyond the last stand for it; what comes of them is not stored.
  w += (int64_t)first * in;
  int rows[kOutputs], tokens[R];
  AD_UNROLL
  for (int o = 0; o < kOutputs; o++) rows[o] = (first + o < out ? o : out - 1 - first) * in;
  AD_UNROLL
  for (int r = 0; r < R; r++) tokens[r] = (r < n ? r : n - 1) * in;
  auto add = [&](const Piece<V, T> (&a)[kOutputs], int at) {
    AD_UNROLL
    for (int r = 0; r < R; r++) {
      const Piece<V, T> b = Piece<V, T>::load(x + (tokens[r] + at * V));
      AD_UNROLL
      for (int o = 0; o < kOutputs; o++)
        AD_UNROLL
        for (int i = 0; i < V; i++) sum[o * R + r] = ad_fma(ad_float(a[o].e[i]), ad_float(b.e[i]), sum[o * R + r]);
    }
  };
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int at = threadIdx.x;
  for (; at - lane + 31 + kThreads < pieces; at += 2 * kThreads) {
    Piece<V, T> a[kOutputs], b[kOutputs];
    AD_UNROLL
    for (int o = 0; o < kOutputs; o++) a[o] = Piece<V, T>::load(w + (rows[o] + at * V));
    AD_UNROLL
    for (int o = 0; o < kOutputs; o++) b[o] = Piece<V, T>::load(w + (rows[o] + (at + kThreads) * V));
    __syncwarp();  // no load is put off until its vectors are needed, which the assembler would do to save registers
    add(a, at);
    add(b, at + kThreads);
  }
  for (; at < pieces; at += kThreads) {
    Piece<V, T> a[kOutputs];
    AD_UNROLL
    for (int o = 0; o < kOutputs; o++) a[o] = Piece<V, T>::load(w + (rows[o] + at * V));
    add(a, at);
  }
  constexpr int M = kOutputs * R;
  lane_sums<M, 16>(sum);
  if (lane % (32 / M) == 0) partial[warp * M + lane * M / 32] = sum[0];
  AD_BUG(gemv_barrier, __syncthreads(), );
  if (threadIdx.x >= M) return;
  const int o = first + threadIdx.x / R, r = threadIdx.x % R;
  if (o >= out || r >= n) return;
  float v = 0;
  AD_UNROLL
  for (int k = 0; k < kThreads / 32; k++) v += partial[k * M + threadIdx.x];
  if (bias) v += ad_float(bias[o]);
  if (gelu) v = gelu_tanh(v);
  const int64_t to = (int64_t)(group + r) * out + o;
  if (base) v += ad_float(base[to]);
  y[to] = ad_cast<O>(v);
}

}  // namespace gemv

#define KERNEL(R, V, name, O, T)                                                                                                         \
  AD_KERNEL(gemv##R##_##name, (O * y, const T *x, const T *w, const T *bias, const O *base, int32_t n, int32_t in, int32_t out, int32_t gelu), 128) { \
    gemv::gemv<R, V>(y, x, w, bias, base, n, in, out, gelu);                                                                              \
  }
// gemvR_STORE, for rows of whole vectors; gemvR_logits_STORE gives float32; gemv8_any_… are for rows of any width.
#define EACH(R)                                  \
  KERNEL(R, 4, f32, float, float)                \
  KERNEL(R, 8, bf16, bf16, bf16)                 \
  KERNEL(R, 8, logits_bf16, float, bf16)         \
  KERNEL(R, 8, f16, f16, f16)                    \
  KERNEL(R, 8, logits_f16, float, f16)
EACH(1)
EACH(2)
EACH(4)
EACH(8)
KERNEL(8, 1, any_f32, float, float)
KERNEL(8, 1, any_bf16, bf16, bf16)
KERNEL(8, 1, any_logits_bf16, float, bf16)
KERNEL(8, 1, any_f16, f16, f16)
KERNEL(8, 1, any_logits_f16, float, f16)
