// The host's meaning of kernels/ad_warpgroup.h. Products run beside the threads: each warp does its 16 rows at a moment between the product's beginning and the
// wait that covers it, which the schedule decides, and reads shared memory then. Until that wait the sums are NaNs.
#pragma once
#include "standin.h"

namespace standin {

// A product as one warp of a warpgroup does it: rows 16·(warp%4).. of C[64,columns] += A[64,16]·B[16,columns].
struct Product {
  int columns;
  bool transposed, add, registers;  // registers: a is fragments, else the descriptor a
  float (*widen)(uint16_t);
  uint64_t a, b;
  uint32_t fragments[32][4];
  float *c[32];  // each lane's [columns/8][4]
};
// All lanes of a warp call these together; the last to arrive runs them.
void product_fence();
void product_begin(const Product &);
void product_commit();
void product_wait(int pending);
// What this thread copied into shared memory is seen by products from now on.
void fence_async();
void barrier_arrive(int id, int threads);
// Where an address in dynamic shared memory is, from a multiple of 1024 that is not behind its beginning.
uint32_t shared_offset(uintptr_t address);

}  // namespace standin

inline uint64_t ad_wgmma_descriptor(ad_shared address, int panel) {
  return (uint64_t)(standin::shared_offset(address) >> 4) | (uint64_t)((panel & 0x3ffff) >> 4) << 16 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}
inline uint64_t ad_wgmma_advance(uint64_t descriptor, int bytes) { return descriptor + (uint32_t)(bytes >> 4); }

inline void ad_wgmma_fence() {
  standin::collective(0xffffffffu, nullptr, [](uint32_t, void **) { standin::product_fence(); });
}
inline void ad_wgmma_commit() {
  standin::collective(0xffffffffu, nullptr, [](uint32_t, void **) { standin::product_commit(); });
}
template <int PENDING, int... N>
inline void ad_wgmma_wait(float (&...c)[N][4]) {
  standin::collective(0xffffffffu, nullptr, [](uint32_t, void **) { standin::product_wait(PENDING); });
}

struct ad_wgmma_slot {
  float *c;
  const uint32_t *fragment;
  uint64_t a, b;
  bool add;
};
template <class T, int N, bool TRANSPOSED>
inline void ad_wgmma_any(ad_wgmma_slot mine) {
  static_assert(N == 64 || N == 128 || N == 256, "ad_warpgroup.h has no such product");
  standin::collective(0xffffffffu, &mine, [](uint32_t, void **args) {
    const auto &first = *(ad_wgmma_slot *)args[0];
    standin::Product p = {N, TRANSPOSED, first.add, first.fragment != nullptr, [](uint16_t bits) { return ad_float(T{bits}); }, first.a, first.b, {}, {}};
    for (int lane = 0; lane < 32; lane++) {
      const auto &s = *(ad_wgmma_slot *)args[lane];
      if (s.a != p.a || s.b != p.b || s.add != p.add) standin::fail("wgmma: lane %d has other operands than lane 0", lane);
      if (p.registers) memcpy(p.fragments[lane], s.fragment, sizeof p.fragments[lane]);
      p.c[lane] = s.c;
    }
    standin::product_begin(p);
  });
}
template <class T, int N, bool TRANSPOSED>
inline void ad_wgmma(float (&c)[N / 8][4], const uint32_t (&a)[4], uint64_t b, bool add = true) { ad_wgmma_any<T, N, TRANSPOSED>({c[0], a, 0, b, add}); }
template <class T, int N, bool TRANSPOSED>
inline void ad_wgmma(float (&c)[N / 8][4], uint64_t a, uint64_t b, bool add = true) { ad_wgmma_any<T, N, TRANSPOSED>({c[0], nullptr, a, b, add}); }

inline void ad_fence_async() { standin::fence_async(); }
inline void ad_barrier_arrive(int id, int threads) { standin::barrier_arrive(id, threads); }
template <int N>
inline void ad_registers_more() {}
template <int N>
inline void ad_registers_fewer() {}
