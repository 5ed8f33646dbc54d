// Products of a few rows with weights in 8 or 4 bits (quant.h). y [n,out] = act(x·wᵀ + bias) + base, where w is the codes times their scales, x [n,in].
// Unlike the processor's, activations keep their bits.
//
// A block owns a panel and R rows of x. Its warps read the panel group by group in turn: 512 bytes at a time, a lane 4 outputs by 4 (or 8) inputs of them. So the
// bits of a row of y are a function of in and the row alone, as in gemv.cu.
#pragma once
#include "quant.h"

namespace gemv_quant {

constexpr int kWarps = 8, kPanel = quant::kPanel;

AD_DEVICE float gelu_tanh(float x) {
  const float u = 0.797884561f * (x + 0.044715f * x * x * x);
  return x * ad_sigmoid(2 * u);
}

// O is y's and base's type, T that of x and bias.
template <int Bits, int R, class O, class T>
AD_DEVICE void gemv(O *y, const T *x, const uint8_t *codes, const uint16_t *scales, const T *bias, const O *base, int32_t n, int32_t in, int32_t out, int32_t gelu) {
  using F = quant::Form<Bits>;
  AD_SHARED(float, partial, kWarps * kPanel * R);
  const int turns = (n + R - 1) / R, turn = blockIdx.x % turns * R;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, panel = blockIdx.x / turns;
  n = n - turn < R ? n - turn : R;
  x += (int64_t)turn * in;
  const int steps = (in + 63) / 64 * 64 / F::step, perGroup = F::group / F::step, groups = (steps + perGroup - 1) / perGroup;
  codes += ((int64_t)panel * steps * 32 + lane) * 16;
  scales += (int64_t)panel * groups * kPanel + lane % 4 * 4;
  float sum[4 * R];
  AD_UNROLL
  for (int i = 0; i < 4 * R; i++) sum[i] = 0;
  constexpr int kPerGroup = F::group / F::step, kSteps = Bits == 8 ? 8 : 4, kGroups = kSteps / kPerGroup;
  // All that a warp reads of its steps is under way before the first is used.
  for (int first = warp * kSteps; first < steps; first += kWarps * kSteps) {
    ad_u4 words[kSteps];
    uint64_t halves[kGroups];
    AD_UNROLL
    for (int s = 0; s < kSteps; s++) words[s] = *(const ad_u4 *)(codes + (int64_t)(first + s < steps ? first + s : first) * 512);
    AD_UNROLL
    for (int g = 0; g < kGroups; g++) {
      const int group = first / kPerGroup + g;
      halves[g] = *(const uint64_t *)(scales + (int64_t)(group < groups ? group : groups - 1) * kPanel);
    }
    __syncwarp();  // no load is put off until its words are needed, which the assembler would do to save registers
    AD_UNROLL
    for (int g = 0; g < kGroups; g++) {
      float part[4 * R];
      AD_UNROLL
      for (int i = 0; i < 4 * R; i++) part[i] = 0;
      AD_UNROLL
      for (int s = g * kPerGroup; s < (g + 1) * kPerGroup; s++)
        AD_UNROLL
        for (int q = 0; q < F::quads; q++) {
          const int k = (first + s) * F::step + lane / 4 * (F::step / 8) + 4 * q;
          const bool inside = k < in;  // in is a multiple of 4: padding is whole quads
          float w[4][4];
          AD_UNROLL
          for (int o = 0; o < 4; o++) quant::decode<Bits>(w[o], words[s][o] >> 4 * q);
          AD_UNROLL
          for (int r = 0; r < R; r++) {
            quant::Quad<T> four;
            if (inside) four = quant::Quad<T>::load(x + ((r < n ? r : n - 1) * in + k));
            AD_UNROLL
            for (int i = 0; i < 4; i++) {
              const float v = four[i];
              AD_UNROLL
              for (int o = 0; o < 4; o++) part[o * R + r] = ad_fma(w[o][i], v, part[o * R + r]);
            }
          }
        }
      AD_UNROLL
      for (int o = 0; o < 4; o++) {
        const float f = quant::scale(halves[g], o);
        AD_UNROLL
        for (int r = 0; r < R; r++) sum[o * R + r] = ad_fma(part[o * R + r], f, sum[o * R + r]);
      }
    }
  }
  AD_UNROLL
  for (int i = 0; i < 4 * R; i++)
    AD_UNROLL
    for (int mask = 16; mask >= 4; mask >>= 1) sum[i] += __shfl_xor_sync(AD_ALL, sum[i], mask);
  if (lane < 4)
    AD_UNROLL
    for (int i = 0; i < 4 * R; i++) partial[(warp * 4 + lane) * 4 * R + i] = sum[i];
  AD_BUG(gemv_quant_barrier, __syncthreads(), );
  const int o = panel * kPanel + threadIdx.x / R, r = threadIdx.x % R;
  if (threadIdx.x >= kPanel * R || o >= out || r >= n) return;
  float v = 0;
  AD_UNROLL
  for (int w = 0; w < kWarps; w++) v += partial[w * kPanel * R + threadIdx.x];
  if (bias) v += ad_float(bias[o]);
  if (gelu) v = gelu_tanh(v);
  const int64_t to = (int64_t)(turn + r) * out + o;
  if (base) v += ad_float(base[to]);
  y[to] = ad_cast<O>(v);
}

}  // namespace gemv_quant

#define GEMV_QUANT(BITS, R, name, O, T)                                                                                               \
  AD_KERNEL(gemv##R##_##name##int##BITS, (O * y, const T *x, const uint8_t *codes, const uint16_t *scales, const T *bias, const O *base, \
      int32_t n, int32_t in, int32_t out, int32_t gelu), 256) {                                                                       \
    gemv_quant::gemv<BITS, R>(y, x, codes, scales, bias, base, n, in, out, gelu);                                                     \
  }
