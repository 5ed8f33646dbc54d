#include "quant.h"

namespace quant {

// y [out,in] = the weights, for products of many rows. A block has a panel's step of 512 bytes, a lane 4 outputs by 4 or 8 inputs. Bytes moved:
// codes and y once, scales from cache.
template <int Bits, class T>
AD_DEVICE void widen(T *y, const uint8_t *codes, const uint16_t *scales, int32_t in, int32_t out) {
  using F = Form<Bits>;
  const int lane = threadIdx.x % 32, step = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, panel = blockIdx.y;
  const int steps = (in + 63) / 64 * 64 / F::step, perGroup = F::group / F::step, groups = (steps + perGroup - 1) / perGroup;
  if (step >= steps) return;
  const int group = AD_BUG(widen_quant_group, step / perGroup, 0);
  const ad_u4 word = *(const ad_u4 *)(codes + (((int64_t)panel * steps + step) * 32 + lane) * 16);
  const uint64_t halves = *(const uint64_t *)(scales + ((int64_t)panel * groups + group) * kPanel + lane % 4 * 4);
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
      Quad<T> four;
      AD_UNROLL
      for (int i = 0; i < 4; i++) four.set(i, w[i] * f);
      four.store(y + (int64_t)row * in + k);
    }
  }
}

// y [n,width] row i = table[ids[i]] + places[positions[i]] as in embed.cu, of a table [rows,width] in 8 bits; width is a multiple of 4. A row's quads are
// 64 bytes apart. Bytes moved: y, the rows of places, 32 bytes for every 4 of a row of the table.
template <class T>
AD_DEVICE void embed(T *y, const uint8_t *codes, const uint16_t *scales, const T *places, const int32_t *ids, const int32_t *positions, int64_t n, int32_t rows,
    int32_t placeRows, int32_t width) {
  const int32_t pieces = width / 4, quads = (width + 63) / 64 * 16, groups = (width + Form<8>::group - 1) / Form<8>::group;
  const int64_t stride = (int64_t)gridDim.x * blockDim.x;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n * pieces; i += stride) {
    const int64_t token = i / pieces;
    const int32_t quad = (int32_t)(i % pieces), id = ids[token], position = positions[token];
    const bool inside = (uint32_t)id < (uint32_t)rows && (uint32_t)position < (uint32_t)placeRows;
    const int64_t panel = inside ? id / kPanel : 0;
    const int row = inside ? AD_BUG(embed_quant_row, id % kPanel, id % 8) : 0;
    float w[4];
    decode<8>(w, *(const uint32_t *)(codes + ((panel * quads + quad) * kPanel + row) * 4));
    const float f = scale(scales[(panel * groups + quad / (Form<8>::group / 4)) * kPanel + row], 0);
    const Quad<T> place = Quad<T>::load(places + (inside ? (int64_t)position * width : 0) + 4 * quad);
    const float wrong = inside ? 0.0f : __builtin_nanf("");
    Quad<T> sum;
    AD_UNROLL
    for (int j = 0; j < 4; j++) sum.set(j, ad_fma(w[j], f, place[j]) + wrong);
    sum.store(y + token * width + 4 * quad);
  }
}

}  // namespace quant

#define STORE(S, T)                                                                                                                            \
  AD_KERNEL(widen_int8_##S, (T * y, const uint8_t *codes, const uint16_t *scales, int32_t in, int32_t out), 256) {                              \
    quant::widen<8>(y, codes, scales, in, out);                                                                                                \
  }                                                                                                                                            \
  AD_KERNEL(widen_int4_##S, (T * y, const uint8_t *codes, const uint16_t *scales, int32_t in, int32_t out), 256) {                              \
    quant::widen<4>(y, codes, scales, in, out);                                                                                                \
  }                                                                                                                                            \
  AD_KERNEL(embed_int8_##S, (T * y, const uint8_t *codes, const uint16_t *scales, const T *places, const int32_t *ids, const int32_t *positions, \
      int64_t n, int32_t rows, int32_t placeRows, int32_t width), 256) {                                                                       \
    quant::embed(y, codes, scales, places, ids, positions, n, rows, placeRows, width);                                                         \
  }
STORE(f32, float)
STORE(bf16, bf16)
STORE(f16, f16)
