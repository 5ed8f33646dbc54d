#include "ad_cuda.h"

// Products of a few rows with weights in 8 or 4 bits, as package compute/cpu/quant stores them: outputs in panels of 16, codes
// [out/16][in/4][16][4] bytes (int8) or [out/16][in/8][16][4] (int4, low nibbles being the first four of eight inputs), scales
// [out/16][in/group][16] float16 of 256·scale; in is padded to 64 with zero weights. y [n,out] = act(x·wᵀ + bias) + base, where w is the codes times
// their scales, x [n,in] bf16. Unlike the processor's, activations keep their bits.
//
// A block owns a panel, which its warps read group by group in turn: 512 bytes at a time, a lane 4 outputs by 4 (or 8) inputs of them. So the
// bits of a row of y are a function of in and the row alone, as in gemv.cu.
namespace gemv_quant {

constexpr int kWarps = 8, kPanel = 16;

// Bits says how a weight is coded: the inputs of a group and of 512 bytes.
template <int Bits>
struct Form {
  static constexpr int group = Bits == 8 ? 256 : 64, step = Bits == 8 ? 32 : 64, quads = 8 / Bits;
};

// The numbers of the four bytes of a word (or of their low nibbles): each in the mantissa of 2²³, without a conversion.
template <int Bits>
AD_DEVICE void decode(float w[4], uint32_t word) {
  constexpr uint32_t mask = Bits == 8 ? 0xff : 0xf;
  constexpr float zero = 8388608.0f + (Bits == 8 ? 128 : 8);
  AD_UNROLL
  for (int i = 0; i < 4; i++) w[i] = __builtin_bit_cast(float, 0x4b000000u | (word >> 8 * i & mask)) - zero;
}

// One of four scales.
AD_DEVICE float scale(uint64_t halves, int i) { return ad_float(f16{(uint16_t)(halves >> 16 * i)}) * 0.00390625f; }

AD_DEVICE float gelu_tanh(float x) {
  const float u = 0.797884561f * (x + 0.044715f * x * x * x);
  return x * ad_sigmoid(2 * u);
}

template <int Bits, int R, class O>
AD_DEVICE void gemv(O *y, const bf16 *x, const uint8_t *codes, const uint16_t *scales, const bf16 *bias, const O *base, int32_t n, int32_t in, int32_t out, int32_t gelu) {
  using F = Form<Bits>;
  AD_SHARED(float, partial, kWarps * kPanel * R);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, panel = blockIdx.x;
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
          for (int o = 0; o < 4; o++) decode<Bits>(w[o], words[s][o] >> 4 * q);
          AD_UNROLL
          for (int r = 0; r < R; r++) {
            uint64_t four = 0;
            if (inside) four = *(const uint64_t *)(x + ((r < n ? r : n - 1) * in + k));
            AD_UNROLL
            for (int i = 0; i < 4; i++) {
              const float v = ad_float(bf16{(uint16_t)(four >> 16 * i)});
              AD_UNROLL
              for (int o = 0; o < 4; o++) part[o * R + r] = ad_fma(w[o][i], v, part[o * R + r]);
            }
          }
        }
      AD_UNROLL
      for (int o = 0; o < 4; o++) {
        const float f = scale(halves[g], o);
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
  const int64_t to = (int64_t)r * out + o;
  if (base) v += ad_float(base[to]);
  y[to] = ad_cast<O>(v);
}

// y [out,in] bf16 = the weights, for products of many rows. A block has a panel's step of 512 bytes, a lane 4 outputs by 4 or 8 inputs.
template <int Bits>
AD_DEVICE void widen(bf16 *y, const uint8_t *codes, const uint16_t *scales, int32_t in, int32_t out) {
  using F = Form<Bits>;
  const int lane = threadIdx.x % 32, step = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, panel = blockIdx.y;
  const int steps = (in + 63) / 64 * 64 / F::step, perGroup = F::group / F::step, groups = (steps + perGroup - 1) / perGroup;
  if (step >= steps) return;
  const ad_u4 word = *(const ad_u4 *)(codes + (((int64_t)panel * steps + step) * 32 + lane) * 16);
  const uint64_t halves = *(const uint64_t *)(scales + ((int64_t)panel * groups + step / perGroup) * kPanel + lane % 4 * 4);
  AD_UNROLL
  for (int q = 0; q < F::quads; q++) {
    const int k = step * F::step + lane / 4 * (F::step / 8) + 4 * q;
    if (k >= in) continue;
    AD_UNROLL
    for (int o = 0; o < 4; o++) {
      const int row = panel * kPanel + lane % 4 * 4 + o;
      if (row >= out) continue;
      float w[4];
      decode<Bits>(w, word[o] >> 4 * q);
      const float f = scale(halves, o);
      uint64_t four = 0;
      AD_UNROLL
      for (int i = 0; i < 4; i++) four |= (uint64_t)ad_cast<bf16>(w[i] * f).bits << 16 * i;
      *(uint64_t *)(y + (int64_t)row * in + k) = four;
    }
  }
}

}  // namespace gemv_quant

#define KERNEL(BITS, R, name, O)                                                                                                              \
  AD_KERNEL(gemv##R##_##name##int##BITS, (O * y, const bf16 *x, const uint8_t *codes, const uint16_t *scales, const bf16 *bias, const O *base, \
      int32_t n, int32_t in, int32_t out, int32_t gelu), 256) {                                                                                \
    gemv_quant::gemv<BITS, R>(y, x, codes, scales, bias, base, n, in, out, gelu);                                                             \
  }
#define EACH(R)                      \
  KERNEL(8, R, , bf16)               \
  KERNEL(8, R, logits_, float)       \
  KERNEL(4, R, , bf16)
EACH(1)
EACH(2)
EACH(4)
EACH(8)
#define WIDEN(BITS)                                                                                                                   \
  AD_KERNEL(widen_int##BITS, (bf16 * y, const uint8_t *codes, const uint16_t *scales, int32_t in, int32_t out), 256) {              \
    gemv_quant::widen<BITS>(y, codes, scales, in, out);                                                                               \
  }
WIDEN(8)
WIDEN(4)
