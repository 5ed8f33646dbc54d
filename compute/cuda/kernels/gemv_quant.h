// Products of a few rows with weights in 8 or 4 bits (quant.h). y [n,out] = act(norm(x)·wᵀ + bias) + base, where w is the codes times their scales, x [n,in].
// Unlike the processor's, activations keep their bits.
//
// A block owns a panel at a time and R rows of x. Its warps read the panel group by group in turn: 512 bytes at a time, a lane 4 outputs by 4 (or 8) inputs of
// them. So the bits of a row of y are a function of in and the row alone, as in gemv.cu, whose shares and early launches these are too.
#pragma once
#include "gemv.h"
#include "quant.h"

namespace gemv_quant {

constexpr int kWarps = gemv::kWarps, kPanel = quant::kPanel;
constexpr int kAhead = 64 << 10;  // bytes of codes of a share that are brought to the cache before the wait

// O is y's and base's type, T that of x and bias.
template <int Bits, int R, class O, class T>
AD_DEVICE void product(O *y, const T *x, const uint8_t *codes, const uint16_t *scales, const T *bias, const O *base, const T *gain, const T *shift, int32_t n, int32_t in,
    int32_t out, int32_t gelu, float epsilon) {
  using F = quant::Form<Bits>;
  AD_SHARED(float, partial, 2 * kWarps * kPanel * R);  // of this panel and of the one before
  ad_allow_next();
  const gemv::Rows<R> of(n);
  const int group = of.first;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, panels = (out + kPanel - 1) / kPanel;
  const gemv::Share share = of.share(panels);
  const int begin = share.begin, end = share.end;
  n = n - group < R ? n - group : R;
  x += (int64_t)group * in;
  constexpr int kPerGroup = F::group / F::step, kSteps = Bits == 8 ? 8 : 4, kGroups = kSteps / kPerGroup;
  const int steps = (in + 63) / 64 * 64 / F::step, scaled = (steps + kPerGroup - 1) / kPerGroup;
  const int turns = (steps + kWarps * kSteps - 1) / (kWarps * kSteps);

  // All that a warp reads of its steps in a turn is under way at once. Steps beyond the last stand for one before and are not used.
  ad_u4 words[kSteps] = {};
  uint64_t halves[kGroups] = {};
  auto load = [&](int panel, int turn) AD_INLINE {
    const int first = (turn * kWarps + warp) * kSteps;
    if (panel >= end || first >= steps) return;
    const uint8_t *from = codes + ((int64_t)panel * steps * 32 + lane) * 16;
    const uint16_t *scale = scales + (int64_t)panel * scaled * kPanel + lane % 4 * 4;
    AD_UNROLL
    for (int s = 0; s < kSteps; s++) words[s] = ad_load_once(from + (int64_t)(first + s < steps ? first + s : first) * 512);
    AD_UNROLL
    for (int g = 0; g < kGroups; g++) {
      const int at = first / kPerGroup + g;
      halves[g] = *(const uint64_t *)(scale + (int64_t)(at < scaled ? at : scaled - 1) * kPanel);
    }
  };
  load(begin, 0);
  if (group == 0 && lane == 0 && warp == 0)
    for (int panel = begin + 1, left = kAhead; panel < end && left > 0; panel++, left -= steps * 512) ad_prefetch(codes + (int64_t)panel * steps * 512, steps * 512);
  const gemv::Norm<T> norm(gain, shift, epsilon, in);
  AD_BUG(gemv_quant_wait, ad_wait(), );
  if (norm.gain) {
    AD_DYNAMIC_SHARED(T, rows);
    norm.template put<R>(rows, x, n, in);
    x = rows;
  }
  AD_BUG(gemv_quant_wait, , ad_wait());

  float sum[4 * R];
  AD_UNROLL
  for (int i = 0; i < 4 * R; i++) sum[i] = 0;
  auto use = [&](int turn) AD_INLINE {
    const int first = (turn * kWarps + warp) * kSteps;
    if (first >= steps) return;
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
  };
  for (int panel = begin; panel < end; panel++) {
    const int o = panel * kPanel + threadIdx.x / R, r = threadIdx.x % R;
    const bool mine = threadIdx.x < kPanel * R && o < out && r < n;
    const int64_t to = (int64_t)(group + r) * out + o;
    float biased = 0, based = 0;
    if (mine && bias) biased = ad_float(bias[o]);
    if (mine && base) based = ad_float(base[to]);
    AD_ROLL
    for (int turn = 0; turn < turns; turn++) {
      use(turn);
      load(turn + 1 < turns ? panel : panel + 1, turn + 1 < turns ? turn + 1 : 0);
    }
    AD_UNROLL
    for (int i = 0; i < 4 * R; i++)
      AD_UNROLL
      for (int mask = 16; mask >= 4; mask >>= 1) sum[i] += __shfl_xor_sync(AD_ALL, sum[i], mask);
    float *const parts = partial + panel % 2 * kWarps * kPanel * R;
    if (lane < 4)
      AD_UNROLL
      for (int i = 0; i < 4 * R; i++) parts[(warp * 4 + lane) * 4 * R + i] = sum[i];
    AD_UNROLL
    for (int i = 0; i < 4 * R; i++) sum[i] = 0;
    AD_BUG(gemv_quant_barrier, __syncthreads(), );
    if (!mine) continue;
    float v = 0;
    AD_UNROLL
    for (int w = 0; w < kWarps; w++) v += parts[w * kPanel * R + threadIdx.x];
    v += biased;
    if (gelu) v = gemv::gelu_tanh(v);
    y[to] = ad_cast<O>(v + based);
  }
}

}  // namespace gemv_quant

#define GEMV_QUANT(BITS, R, name, O, T)                                                                                                         \
  AD_KERNEL_OCCUPANCY(gemv##R##_##name##int##BITS, (O * y, const T *x, const uint8_t *codes, const uint16_t *scales, const T *bias, const O *base, \
      const T *gain, const T *shift, int32_t n, int32_t in, int32_t out, int32_t gelu, float epsilon), 256, R < 4 ? 2 : 1) {                         \
    gemv_quant::product<BITS, R>(y, x, codes, scales, bias, base, gain, shift, n, in, out, gelu, epsilon);                                       \
  }
