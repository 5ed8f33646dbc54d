// The host's meaning of what kernels/ad_cuda.h offers. Every thread of a block is a fiber of one host thread (block.cc); fibers change
// only where threads wait for each other, in an order that a seed decides.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#define AD_DEVICE inline
#define AD_INLINED
#define AD_KERNEL(name, params, threads)                                                                          \
  static void ad_kernel_##name params;                                                                            \
  static const bool ad_registered_##name = standin::add(#name, threads, standin::unpack<ad_kernel_##name>::kernel()); \
  static void ad_kernel_##name params
#define AD_KERNEL_OCCUPANCY(name, params, threads, blocks) AD_KERNEL(name, params, threads)
#define AD_SHARED(T, name, n)                          \
  static standin::Site ad_site_##name{sizeof(T) * (n)}; \
  T *const name = (T *)standin::shared(&ad_site_##name)
#define AD_DYNAMIC_SHARED(T, name) T *const name = (T *)standin::dynamic_shared()
#define AD_UNROLL
#define AD_ROLL

namespace standin {

struct Dim {
  int x, y, z;
};
// What a fiber knows of itself.
struct Thread {
  Dim tid, bid, bdim, gdim;
  int lane, warp;
};
extern thread_local Thread *current __attribute__((tls_model("initial-exec")));

// A static shared array: id is given at first use.
struct Site {
  size_t bytes;
  int id = 0;
};
void *shared(Site *);
void *dynamic_shared();

// Blocks until `threads` threads have arrived at barrier id (0: all that have not returned).
void barrier(int id, int threads);
// Blocks until all lanes of mask have called it with the same f; the last to arrive runs f(mask, args), args[lane] being what each passed.
void collective(uint32_t mask, void *arg, void (*f)(uint32_t mask, void **args));
// Ends the launch with an error, as an illegal instruction or address would.
[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
void copy_async(void *to, const void *from, bool valid);
void copy_commit();
void copy_wait(int pending);
// Early launches: the running thread allows the kernels behind its own; waits for those before it.
void allow_next();
void wait_before();

// A kernel as the driver calls it: the sizes of its parameters and a function that takes pointers to them.
struct Entry {
  int parameters;
  const unsigned char *sizes;
  void (*run)(void **arguments);
};
bool add(const char *name, int threads, Entry);

template <auto F>
struct unpack;
template <class... A, void (*F)(A...)>
struct unpack<F> {
  static constexpr unsigned char sizes[] = {sizeof(A)..., 0};
  template <size_t... I>
  static void call(void **p, std::index_sequence<I...>) { F(*(A *)p[I]...); }
  static void run(void **p) { call(p, std::index_sequence_for<A...>{}); }
  static Entry kernel() { return {sizeof...(A), sizes, run}; }
};

}  // namespace standin

#define threadIdx (standin::current->tid)
#define blockIdx (standin::current->bid)
#define blockDim (standin::current->bdim)
#define gridDim (standin::current->gdim)

inline void __syncthreads() { standin::barrier(0, 0); }
inline void ad_barrier(int id, int threads) { standin::barrier(id, threads); }
inline void __syncwarp(uint32_t mask = 0xffffffffu) {
  standin::collective(mask, nullptr, [](uint32_t, void **) {});
}
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

inline void ad_allow_next() { standin::allow_next(); }
inline void ad_wait() { standin::wait_before(); }
// What is asked for is there.
inline void ad_prefetch(const void *p, uint32_t bytes) {
  if ((uintptr_t)p % 16 || bytes % 16) standin::fail("prefetch of %u bytes at %p, expected multiples of 16", bytes, p);
  if (bytes) (void)*(const volatile char *)p, (void)((const volatile char *)p)[bytes - 1];
}

// A lane that reads from one outside the mask gets a NaN's bits: on a device the value is undefined.
enum class ad_move { index, exclusive, up, down };
struct ad_shuffle_slot {
  uint32_t value, result;
  int lane;
};
template <ad_move how>
inline uint32_t ad_shuffle_any(uint32_t mask, uint32_t v, int lane) {
  ad_shuffle_slot mine{v, 0, lane};
  standin::collective(mask, &mine, [](uint32_t m, void **args) {
    for (int i = 0; i < 32; i++) {
      if (!args[i]) continue;
      auto *s = (ad_shuffle_slot *)args[i];
      int from = how == ad_move::index ? s->lane & 31 : how == ad_move::exclusive ? i ^ s->lane : how == ad_move::up ? i - s->lane : i + s->lane;
      if (how != ad_move::index && (from < 0 || from > 31)) from = i;
      s->result = m >> from & 1 && args[from] ? ((ad_shuffle_slot *)args[from])->value : 0xffffffffu;
    }
  });
  return mine.result;
}
inline uint32_t ad_shuffle(uint32_t mask, uint32_t v, int lane) { return ad_shuffle_any<ad_move::index>(mask, v, lane); }
inline uint32_t ad_shuffle_xor(uint32_t mask, uint32_t v, int lane) { return ad_shuffle_any<ad_move::exclusive>(mask, v, lane); }
inline uint32_t ad_shuffle_up(uint32_t mask, uint32_t v, int by) { return ad_shuffle_any<ad_move::up>(mask, v, by); }
inline uint32_t ad_shuffle_down(uint32_t mask, uint32_t v, int by) { return ad_shuffle_any<ad_move::down>(mask, v, by); }
inline uint32_t __ballot_sync(uint32_t mask, bool p) {
  ad_shuffle_slot mine{p, 0, 0};
  standin::collective(mask, &mine, [](uint32_t, void **args) {
    uint32_t all = 0;
    for (int i = 0; i < 32; i++)
      if (args[i] && ((ad_shuffle_slot *)args[i])->value) all |= 1u << i;
    for (int i = 0; i < 32; i++)
      if (args[i]) ((ad_shuffle_slot *)args[i])->result = all;
  });
  return mine.result;
}

// Blocks run on several host threads, so these are atomic on the host too.
template <class T, class F>
inline T ad_atomically(T *p, F f) {
  T old, next;
  __atomic_load(p, &old, __ATOMIC_RELAXED);
  do next = f(old);
  while (!__atomic_compare_exchange(p, &old, &next, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
  return old;
}
inline float atomicAdd(float *p, float v) { return ad_atomically(p, [=](float o) { return o + v; }); }
inline int32_t atomicAdd(int32_t *p, int32_t v) { return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); }
inline uint32_t atomicAdd(uint32_t *p, uint32_t v) { return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); }
inline int32_t atomicMax(int32_t *p, int32_t v) { return ad_atomically(p, [=](int32_t o) { return o > v ? o : v; }); }
inline int32_t atomicMin(int32_t *p, int32_t v) { return ad_atomically(p, [=](int32_t o) { return o < v ? o : v; }); }
inline uint32_t atomicOr(uint32_t *p, uint32_t v) { return __atomic_fetch_or(p, v, __ATOMIC_SEQ_CST); }
inline uint32_t atomicExch(uint32_t *p, uint32_t v) { return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST); }
inline uint32_t atomicCAS(uint32_t *p, uint32_t compare, uint32_t v) {
  __atomic_compare_exchange_n(p, &compare, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
  return compare;
}

// .ftz: subnormal arguments and results are zeros.
inline float ad_flush(float x) { return std::fabs(x) < 1.17549435e-38f ? std::copysign(0.0f, x) : x; }
inline float ad_exp2(float x) { return ad_flush(std::exp2(ad_flush(x))); }
inline float ad_log2(float x) { return std::log2(ad_flush(x)); }
inline float ad_rsqrt(float x) { return 1.0f / std::sqrt(ad_flush(x)); }
inline float ad_rcp(float x) { return ad_flush(1.0f / ad_flush(x)); }
inline float ad_sqrt(float x) { return std::sqrt(x); }
inline float ad_fma(float x, float y, float z) { return std::fma(x, y, z); }
inline float ad_max(float x, float y) { return std::fmax(x, y); }
inline float ad_min(float x, float y) { return std::fmin(x, y); }
inline int32_t ad_round(float x) {
  if (x != x) return 0;
  if (x >= 2147483648.0f) return INT32_MAX;
  if (x <= -2147483648.0f) return INT32_MIN;
  return (int32_t)std::nearbyint(x);
}
inline uint32_t ad_mulhi(uint32_t a, uint32_t b) { return (uint32_t)((uint64_t)a * b >> 32); }
inline int32_t ad_dot4(uint32_t a, uint32_t b, int32_t c) {
  for (int i = 0; i < 32; i += 8) c += (int32_t)(int8_t)(a >> i) * (int8_t)(b >> i);
  return c;
}

struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};
inline float ad_float(float x) { return x; }
inline float ad_float(bf16 x) { return __builtin_bit_cast(float, (uint32_t)x.bits << 16); }
inline float ad_float(f16 x) {
  const uint32_t sign = (uint32_t)(x.bits & 0x8000) << 16, exponent = x.bits >> 10 & 31, mantissa = x.bits & 1023;
  if (exponent == 31) return __builtin_bit_cast(float, sign | 0x7f800000 | mantissa << 13);
  if (exponent == 0) return std::copysign((float)mantissa * 0x1p-24f, __builtin_bit_cast(float, sign));
  return __builtin_bit_cast(float, sign | (exponent + 112) << 23 | mantissa << 13);
}
template <class T>
inline T ad_cast(float x);
template <>
inline float ad_cast<float>(float x) { return x; }
template <>
inline bf16 ad_cast<bf16>(float x) {
  const uint32_t u = __builtin_bit_cast(uint32_t, x);
  if (x != x) return bf16{0x7fff};
  return bf16{(uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16)};
}
template <>
inline f16 ad_cast<f16>(float x) {
  const uint16_t sign = __builtin_bit_cast(uint32_t, x) >> 16 & 0x8000;
  const float a = std::fabs(x);
  if (x != x) return f16{0x7fff};
  if (a >= 65520.0f) return f16{(uint16_t)(sign | 0x7c00)};
  if (a < 0x1p-14f) return f16{(uint16_t)(sign | (uint16_t)std::nearbyint(a * 0x1p24f))};
  const uint32_t u = __builtin_bit_cast(uint32_t, a);
  return f16{(uint16_t)(sign | ((u + 0xfff + (u >> 13 & 1)) - (112u << 23)) >> 13)};
}
template <class T>
inline uint32_t ad_pack(float lo, float hi) { return ad_cast<T>(lo).bits | (uint32_t)ad_cast<T>(hi).bits << 16; }
template <class T>
inline float ad_half(uint32_t word, int high) { return ad_float(T{(uint16_t)(high ? word >> 16 : word)}); }

inline int32_t ad_opaque(int32_t x) { return x; }

typedef uint32_t ad_u4 __attribute__((vector_size(16)));
inline ad_u4 ad_load_once(const void *p) { return *(const ad_u4 *)p; }

// A copy happens as late as it may, at the wait that covers it: what is read earlier is what was there before. Under one schedule of five it happens at
// once: what it overwrites too early is gone.
typedef uintptr_t ad_shared;
inline ad_shared ad_shared_address(const void *p) { return (ad_shared)p; }
inline void ad_cp_async16(void *shared, const void *global, bool valid) { standin::copy_async(shared, global, valid); }
inline void ad_cp_async16(ad_shared shared, const void *global, bool valid) { standin::copy_async((void *)shared, global, valid); }
inline void ad_cp_commit() { standin::copy_commit(); }
template <int pending>
inline void ad_cp_wait() { standin::copy_wait(pending); }

struct ad_ldmatrix_slot {
  uint32_t *result;
  const void *row;
};
template <int matrices, bool transposed>
inline void ad_ldmatrix(uint32_t *r, const void *row) {
  ad_ldmatrix_slot mine{r, row};
  standin::collective(0xffffffffu, &mine, [](uint32_t, void **args) {
    uint16_t m[matrices * 8][8];
    for (int i = 0; i < 8 * matrices; i++) {
      const void *p = ((ad_ldmatrix_slot *)args[i])->row;
      if ((uintptr_t)p % 16) standin::fail("ldmatrix: the row of lane %d is at %p, which is no multiple of 16", i, p);
      memcpy(m[i], p, 16);
    }
    for (int lane = 0; lane < 32; lane++)
      for (int i = 0; i < matrices; i++) {
        const int row = lane / 4, column = lane % 4 * 2;
        uint16_t lo = m[8 * i + row][column], hi = m[8 * i + row][column + 1];
        if (transposed) lo = m[8 * i + column][row], hi = m[8 * i + column + 1][row];
        ((ad_ldmatrix_slot *)args[lane])->result[i] = lo | (uint32_t)hi << 16;
      }
  });
}
template <bool transposed>
inline void ad_ldmatrix4(uint32_t r[4], const void *row) { ad_ldmatrix<4, transposed>(r, row); }
template <bool transposed>
inline void ad_ldmatrix4(uint32_t r[4], ad_shared row) { ad_ldmatrix<4, transposed>(r, (const void *)row); }
template <bool transposed>
inline void ad_ldmatrix2(uint32_t r[2], const void *row) { ad_ldmatrix<2, transposed>(r, row); }

struct ad_mma_slot {
  float *c;
  const uint32_t *a, *b;
};
template <class T>
inline void ad_mma(float c[4], const uint32_t a[4], const uint32_t b[2]) {
  ad_mma_slot mine{c, a, b};
  standin::collective(0xffffffffu, &mine, [](uint32_t, void **args) {
    float A[16][16], B[16][8], C[16][8];
    for (int lane = 0; lane < 32; lane++) {
      const auto *s = (ad_mma_slot *)args[lane];
      const int g = lane / 4, t = lane % 4 * 2;
      for (int i = 0; i < 8; i++) A[g + (i / 2 & 1) * 8][t + i / 4 * 8 + (i & 1)] = ad_half<T>(s->a[i / 2], i & 1);
      for (int i = 0; i < 4; i++) B[t + i / 2 * 8 + (i & 1)][g] = ad_half<T>(s->b[i / 2], i & 1);
      for (int i = 0; i < 4; i++) C[g + i / 2 * 8][t + (i & 1)] = s->c[i];
    }
    for (int i = 0; i < 16; i++)
      for (int k = 0; k < 16; k++)
        for (int j = 0; j < 8; j++) C[i][j] += A[i][k] * B[k][j];
    for (int lane = 0; lane < 32; lane++)
      for (int i = 0; i < 4; i++) ((ad_mma_slot *)args[lane])->c[i] = C[lane / 4 + i / 2 * 8][lane % 4 * 2 + (i & 1)];
  });
}

#include "warpgroup.h"
