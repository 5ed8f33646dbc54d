#include "ad_cuda.h"

// The soft-max of rows of logits: their negative log-likelihoods and, in the logits' place, their gradients. The logits of a piece of the
// tokens come from a matrix product before, and two products of the gradients give those of tokens and head; the whole never exists.
// A block has a row. Bytes moved by cross_entropy: the logits read and written once (the second reading of a row comes from
// the second-level cache: an H100 has 264 rows of 98 KB in hand, which are half of it); by token_nll: the logits read once.

// The maximum and the sum of e^(x − maximum) of the first `vocab` logits of a row of `stride`, which begins at a multiple of 16 bytes, in
// every thread with the same bits. They are found at once: where the maximum grows, the sum so far shrinks. A NaN makes the sum one, an
// infinity too.
struct SoftMax {
  float largest, sum;
};
#define LOG2E 1.44269504f

AD_DEVICE void softmax_add(SoftMax &s, float largest, float sum) {
  const float m = ad_max(s.largest, largest);
  s.sum = s.sum * ad_exp2((s.largest - m) * LOG2E) + sum * ad_exp2((largest - m) * LOG2E);
  s.largest = m;
}

template <class T>
AD_DEVICE SoftMax softmax(const T *x, int32_t vocab) {
  constexpr int N = ad_vector<T>::n;
  constexpr float kLowest = -3.4e38f;
  AD_SHARED(SoftMax, partial, 32);
  SoftMax s{kLowest, 0};
  for (int32_t v = threadIdx.x; v < vocab / N; v += blockDim.x) {
    const ad_vector<T> a = ad_load(x + (int64_t)v * N);
    float largest = a[0], sum = 0;
    AD_UNROLL
    for (int i = 1; i < N; i++) largest = ad_max(largest, a[i]);
    const float m = ad_max(s.largest, largest);
    AD_UNROLL
    for (int i = 0; i < N; i++) sum += ad_exp2((a[i] - m) * LOG2E);
    s.sum = s.sum * ad_exp2((s.largest - m) * LOG2E) + sum;
    s.largest = m;
  }
  const int32_t rest = vocab / N * N + threadIdx.x;
  if (rest < vocab) softmax_add(s, ad_float(x[rest]), 1);
  AD_UNROLL
  for (int m = 16; m; m >>= 1) softmax_add(s, __shfl_xor_sync(AD_ALL, s.largest, m), __shfl_xor_sync(AD_ALL, s.sum, m));
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = s;
  AD_BUG(softmax_barrier, __syncthreads(), );
  s = partial[0];
  for (int w = 1; w < blockDim.x / 32; w++) softmax_add(s, partial[w].largest, partial[w].sum);
  return s;
}

// nll of a target whose logit is given; of a target that is none of the scored rows: a NaN.
AD_DEVICE float nll_of(const SoftMax &s, float logit) { return ad_log2(s.sum) * 0.693147181f + (s.largest - logit); }

// logits [gridDim.x,stride]: row r becomes scale·(soft-max − [target]) in the first `vocab` columns and 0 behind; nll [gridDim.x]. Rows
// whose target is negative become 0, their nll too.
template <class T>
AD_DEVICE void cross_entropy(T *logits, float *nll, const int32_t *targets, const float *scale, int32_t vocab, int32_t stride) {
  constexpr int N = ad_vector<T>::n;
  T *x = logits + (int64_t)blockIdx.x * stride;
  const int32_t target = targets[blockIdx.x];
  if (target < 0 || target >= vocab) {
    for (int32_t v = threadIdx.x; v < stride / N; v += blockDim.x) ad_store(x + (int64_t)v * N, __builtin_bit_cast(ad_vector<T>, ad_u4{0, 0, 0, 0}));
    if (threadIdx.x == 0) nll[blockIdx.x] = target < 0 ? 0.0f : __builtin_nanf("");
    return;
  }
  const float logit = ad_float(x[target]);
  const SoftMax s = softmax(x, vocab);  // its barrier comes after every thread has read the target's logit
  if (threadIdx.x == 0) nll[blockIdx.x] = nll_of(s, logit);
  const float factor = *scale, share = factor / s.sum;
  for (int32_t v = threadIdx.x; v < stride / N; v += blockDim.x) {
    const int32_t first = v * N;
    const ad_vector<T> a = ad_load(x + first);
    ad_vector<T> r;
    AD_UNROLL
    for (int i = 0; i < N; i++) {
      float g = ad_exp2((a[i] - s.largest) * LOG2E) * share;
      if (first + i == target) g -= factor;
      r.e[i] = ad_cast<T>(first + i < vocab ? g : 0.0f);  // whatever lies behind the scored columns
    }
    ad_store(x + first, r);
  }
}

template <class T>
AD_DEVICE void token_nll(float *nll, const T *logits, const int32_t *targets, int32_t vocab, int32_t stride) {
  const T *x = logits + (int64_t)blockIdx.x * stride;
  const int32_t target = targets[blockIdx.x];
  if (target < 0 || target >= vocab) {
    if (threadIdx.x == 0) nll[blockIdx.x] = target < 0 ? 0.0f : __builtin_nanf("");
    return;
  }
  const SoftMax s = softmax(x, vocab);
  if (threadIdx.x == 0) nll[blockIdx.x] = nll_of(s, ad_float(x[target]));
}

#define KERNEL(S, T)                                                                                                                            \
  AD_KERNEL(cross_entropy_##S, (T * logits, float *nll, const int32_t *targets, const float *scale, int32_t vocab, int32_t stride), 1024) {      \
    cross_entropy(logits, nll, targets, scale, vocab, stride);                                                                                  \
  }                                                                                                                                             \
  AD_KERNEL(token_nll_##S, (float *nll, const T *logits, const int32_t *targets, int32_t vocab, int32_t stride), 1024) {                         \
    token_nll(nll, logits, targets, vocab, stride);                                                                                             \
  }
AD_STORES(KERNEL)

// loss[0] = scale[0]·Σ nll[n], summed in float64 by one block.
AD_KERNEL(cross_entropy_loss_f32, (float *loss, const float *nll, const float *scale, int64_t n), 1024) {
  AD_SHARED(double, partial, 32);
  double sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) sum += nll[i];
  sum = ad_block_sum(sum, partial);
  if (threadIdx.x == 0) loss[0] = (float)(sum * scale[0]);
}
