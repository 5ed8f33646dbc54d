// Weights in 8 or 4 bits as package compute/cpu/quant stores them: outputs in panels of 16, codes [out/16][in/4][16][4] bytes (int8) or
// [out/16][in/8][16][4] (int4, low nibbles being the first four of eight inputs), scales [out/16][in/group][16] float16 of 256·scale; in is padded to
// 64 with zero weights.
#pragma once
#include "ad_cuda.h"

namespace quant {

constexpr int kPanel = 16;

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

// Four neighbours along in; they lie at a multiple of their size.
template <class T>
struct Quad {
  ad_vector<T> four{};
  AD_DEVICE static Quad load(const T *p) { return {ad_load(p)}; }
  AD_DEVICE void store(T *p) const { ad_store(p, four); }
  AD_DEVICE float operator[](int i) const { return four[i]; }
  AD_DEVICE void set(int i, float v) { four.e[i] = v; }
};
template <class T>
  requires(sizeof(T) == 2)
struct Quad<T> {
  uint64_t four = 0;
  AD_DEVICE static Quad load(const T *p) { return {*(const uint64_t *)p}; }
  AD_DEVICE void store(T *p) const { *(uint64_t *)p = four; }
  AD_DEVICE float operator[](int i) const { return ad_float(T{(uint16_t)(four >> 16 * i)}); }
  AD_DEVICE void set(int i, float v) { four |= (uint64_t)ad_cast<T>(v).bits << 16 * i; }  // once each
};

}  // namespace quant
