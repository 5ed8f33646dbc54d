#include "ad_cuda.h"

// Choices among the logits of rows, so that these need not go to the host.
namespace choose {

constexpr int kThreads = 1024, kNone = 0x7fffffff;
constexpr float kInfinity = __builtin_huge_valf();

// Whether logit a of token i goes before logit b of token j: a larger one, or an equal one of a lower token.
AD_DEVICE bool before(float a, int i, float b, int j) { return a > b || (a == b && i < j); }

// choices [gridDim.x] = the token with the largest of a row's first `vocab` logits, the lowest of several; −1 where none is above −∞. Tokens
// that are masked and NaNs are never chosen. logits [gridDim.x,stride], masked [vocab]. A block has a row. Bytes moved: the logits and the mask once.
AD_DEVICE void greedy(int32_t *choices, const float *logits, const uint8_t *masked, int32_t vocab, int32_t stride) {
  AD_SHARED(float, tops, kThreads / 32);
  AD_SHARED(int32_t, tokens, kThreads / 32);
  const float *x = logits + (int64_t)blockIdx.x * stride;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  float top = -kInfinity;
  int token = kNone;
  constexpr int kAtOnce = 4;
  for (int v = threadIdx.x; v < vocab; v += kAtOnce * kThreads) {
    float a[kAtOnce];
    AD_UNROLL
    for (int i = 0; i < kAtOnce; i++) {
      const int u = v + i * kThreads;
      a[i] = u < vocab && !masked[u] ? x[u] : -kInfinity;
    }
    AD_UNROLL
    for (int i = 0; i < kAtOnce; i++)
      if (a[i] > top) top = a[i], token = v + i * kThreads;
  }
  AD_UNROLL
  for (int m = 16; m; m >>= 1) {
    const float other = __shfl_xor_sync(AD_ALL, top, m);
    const int theirs = __shfl_xor_sync(AD_ALL, token, m);
    if (before(other, theirs, top, token)) top = other, token = theirs;
  }
  if (lane == 0) tops[warp] = top, tokens[warp] = token;
  AD_BUG(greedy_barrier, __syncthreads(), );
  if (threadIdx.x > 0) return;
  for (int w = 1; w < kThreads / 32; w++)
    if (before(tops[w], tokens[w], top, token)) top = tops[w], token = tokens[w];
  choices[blockIdx.x] = token == kNone ? -1 : token;
}

}  // namespace choose

AD_KERNEL(greedy_f32, (int32_t *choices, const float *logits, const uint8_t *masked, int32_t vocab, int32_t stride), 1024) {
  choose::greedy(choices, logits, masked, vocab, stride);
}
