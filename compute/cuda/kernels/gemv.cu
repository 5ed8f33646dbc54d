// targets: sm_70 sm_80 sm_90
#include "gemv.h"

// Products of a few rows, as decoding has them: y [n,out] = act(norm(x)·wᵀ + bias) + base, x [n,in], w [out,in]. They are bound by
// reading w, 16 bytes a lane.
//
// A warp owns two rows of w at a time, a block R rows of x. A block's warps go through its share of w, which lies in one piece; blocks with the same share
// lie side by side, so that one of them reads it from memory and the others find it in cache. Lanes take vectors of `in` in turn, so a lane's sum, the
// order in which lanes' sums are added, and so the bits of a row of y, are a function of in and the row alone: not of n, nor of R, nor of the row's place.
//
// Launched early, a block has the first two rows of each warp under way to registers, and what follows of its share to the second-level cache,
// when the kernel before it ends: then the matrices of attention are there as a whole.
namespace gemv {

constexpr int kOutputs = 2;        // rows of w that a warp has at a time
constexpr int kAhead = 128 << 10;  // bytes of a share that are brought to the cache before the wait

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

// V elements of memory, as one access. Those of 16 bytes are kept as words, so that halves do not have registers of their own.
template <int V, class T>
struct Piece {
  ad_u4 words;
  AD_DEVICE static Piece load(const T *p) { return {*(const ad_u4 *)p}; }
  AD_DEVICE static Piece load_once(const T *p) { return {ad_load_once(p)}; }
  AD_DEVICE float operator[](int i) const {
    if constexpr (sizeof(T) == 4) return __builtin_bit_cast(float, words[i]);
    else return ad_float(T{(uint16_t)(words[i / 2] >> 16 * (i % 2))});
  }
};
template <class T>
struct Piece<1, T> {
  T e;
  AD_DEVICE static Piece load(const T *p) { return {*p}; }
  AD_DEVICE static Piece load_once(const T *p) { return {*p}; }
  AD_DEVICE float operator[](int) const { return ad_float(e); }
};

// O is y's and base's type.
template <int R, int V, class O, class T>
AD_DEVICE void gemv(O *y, const T *x, const T *w, const T *bias, const O *base, const T *gain, const T *shift, int32_t n, int32_t in, int32_t out, int32_t gelu,
    float epsilon) {
  constexpr int M = kOutputs * R, kDepth = R < 8 ? 4 : 2;  // vectors of a row that one of two buffers has
  ad_allow_next();
  const Rows<R> of(n);
  const int group = of.first;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int pieces = in / V, turns = (pieces + 32 * kDepth - 1) / (32 * kDepth), tasks = (out + kOutputs - 1) / kOutputs;
  const Share share = of.share(tasks);
  const int first = share.begin, end = share.end;
  n = n - group < R ? n - group : R;
  x += (int64_t)group * in;

  // Where a buffer is: two rows of w, and a turn of their vectors.
  struct Place {
    int task, turn;
  };
  auto after = [&](Place p) AD_INLINE { return p.turn + 1 < turns ? Place{p.task, p.turn + 1} : Place{p.task + kWarps, 0}; };
  using Buffer = Piece<V, T>[kOutputs][kDepth];
  // What lies beyond the last row is like it, and not stored; what lies beyond the last vector is like it, and multiplied by 0.
  auto load = [&](Buffer &a, Place p) AD_INLINE {
    if (p.task >= end) return;
    const T *row = w + (int64_t)p.task * kOutputs * in;
    AD_UNROLL
    for (int o = 0; o < kOutputs; o++)
      AD_UNROLL
      for (int i = 0; i < kDepth; i++) {
        const int at = (p.turn * kDepth + i) * 32 + lane;
        a[o][i] = Piece<V, T>::load_once(row + ((p.task * kOutputs + o < out ? o * in : 0) + (at < pieces ? at : pieces - 1) * V));
      }
  };
  Place here = {first + warp, 0}, next = after(here);
  Buffer a = {}, b = {};
  load(a, here);
  load(b, next);
  if (V > 1 && group == 0 && lane == 0) {
    const int bytes = kOutputs * in * (int)sizeof(T);
    for (int task = first + kWarps + warp, left = kAhead / bytes - warp; task < end && left > 0; task += kWarps, left -= kWarps)
      ad_prefetch(w + (int64_t)task * kOutputs * in, task * kOutputs + 1 < out ? bytes : bytes / kOutputs);
  }
  const Norm<T> norm(V > 1 ? gain : nullptr, shift, epsilon, in);
  AD_BUG(gemv_no_wait, AD_BUG(gemv_wait, ad_wait(), ), );

  // The element of y that is this lane's to store, and what is added to its sum.
  const int o = lane * M / 32 / R, r = lane * M / 32 % R;
  const bool mine = lane % (32 / M) == 0 && r < n;
  float biased = 0, based = 0;
  auto fetch = [&](int task) AD_INLINE {
    const int column = task * kOutputs + o;
    if (!mine || task >= end || column >= out) return;
    if (bias) biased = ad_float(bias[column]);
    if (base) based = ad_float(base[(int64_t)(group + r) * out + column]);
  };
  fetch(here.task);
  if constexpr (V > 1)
    if (norm.gain) {
      AD_DYNAMIC_SHARED(T, rows);
      norm.template put<R>(rows, x, n, in);
      x = rows;
    }
  AD_BUG(gemv_wait, , ad_wait());

  float sum[M];
  AD_UNROLL
  for (int i = 0; i < M; i++) sum[i] = 0;
  auto use = [&](const Buffer &a, Place p) AD_INLINE {
    AD_UNROLL
    for (int i = 0; i < kDepth; i++) {
      const int at = (p.turn * kDepth + i) * 32 + lane;
      AD_UNROLL
      for (int r = 0; r < R; r++) {
        Piece<V, T> piece = Piece<V, T>::load(x + ((r < n ? r : n - 1) * in + (at < pieces ? at : pieces - 1) * V));
        if (at >= pieces) piece = Piece<V, T>{};
        AD_UNROLL
        for (int o = 0; o < kOutputs; o++)
          AD_UNROLL
          for (int e = 0; e < V; e++) sum[o * R + r] = ad_fma(a[o][i][e], piece[e], sum[o * R + r]);
      }
    }
    if (p.turn + 1 < turns) return;
    __syncwarp();
    lane_sums<M, 16>(sum);
    const int column = p.task * kOutputs + o;
    if (mine && column < out) {
      float v = sum[0] + biased;
      if (gelu) v = gelu_tanh(v);
      y[(int64_t)(group + r) * out + column] = ad_cast<O>(v + based);
    }
    AD_UNROLL
    for (int i = 0; i < M; i++) sum[i] = 0;
    fetch(p.task + kWarps);
  };
  while (here.task < end) {
    use(a, here);
    here = after(next);
    load(a, here);
    if (next.task >= end) break;
    use(b, next);
    next = after(here);
    load(b, next);
  }
}

}  // namespace gemv

#define KERNEL(R, V, name, O, T)                                                                                                                  \
  AD_KERNEL_OCCUPANCY(gemv##R##_##name, (O * y, const T *x, const T *w, const T *bias, const O *base, const T *gain, const T *shift, int32_t n,   \
      int32_t in, int32_t out, int32_t gelu, float epsilon), 256, 2) {                                                                           \
    gemv::gemv<R, V>(y, x, w, bias, base, gain, shift, n, in, out, gelu, epsilon);                                                                \
  }
// gemvR_STORE, for rows of whole vectors; gemvR_logits_STORE gives float32; gemv8_any_… are for rows of any width, without a norm.
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
