// What AutoDev's kernels are written against. A .cu file includes this header and nothing else, and is compiled twice:
//
//   - by clang to PTX (no CUDA toolkit: everything the device offers is built from compiler intrinsics and inline PTX here);
//   - by the host's C++ compiler into the stand-in driver (AD_STANDIN), where standin.h gives every operation its meaning.
//
// Inline PTX stands only here, each beside the declaration of its emulation in standin.h, so that no kernel can use an
// instruction that the tests do not run. No fast-math anywhere: a kernel that wants an approximation names it (ad_exp2, ...).
#pragma once

#ifdef AD_STANDIN
#include "standin.h"
#else

typedef unsigned char uint8_t;
typedef signed char int8_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long int64_t;
typedef unsigned long uint64_t;

// A device function; it is always inlined.
#define AD_DEVICE __attribute__((device, always_inline)) inline
// Makes a lambda one: [&](int i) AD_INLINED { … }.
#define AD_INLINED __attribute__((always_inline))
// The definition's head of a kernel that is launched with at most `threads` threads a block.
#define AD_KERNEL(name, params, threads) \
  extern "C" __attribute__((global)) __attribute__((launch_bounds(threads))) void name params
// The same, and at least `blocks` blocks must fit a multiprocessor (bounds the registers).
#define AD_KERNEL_OCCUPANCY(name, params, threads, blocks) \
  extern "C" __attribute__((global)) __attribute__((launch_bounds(threads, blocks))) void name params
// n elements of shared memory, the same for the threads of a block, aligned to 16 bytes, uninitialised.
#define AD_SHARED(T, name, n) static __attribute__((shared, aligned(16))) T name[n]
// The dynamic shared memory of the launch (Grid.Shared bytes), aligned to 16 bytes, uninitialised.
#define AD_DYNAMIC_SHARED(T, name) \
  extern __attribute__((shared, aligned(16))) unsigned char ad_dynamic_shared[]; \
  T *name = (T *)ad_dynamic_shared
#define AD_UNROLL _Pragma("unroll")
#define AD_ROLL _Pragma("unroll 1")

struct ad_dim3 {
  int x, y, z;
};
#define threadIdx (ad_dim3{(int)__nvvm_read_ptx_sreg_tid_x(), (int)__nvvm_read_ptx_sreg_tid_y(), (int)__nvvm_read_ptx_sreg_tid_z()})
#define blockIdx (ad_dim3{(int)__nvvm_read_ptx_sreg_ctaid_x(), (int)__nvvm_read_ptx_sreg_ctaid_y(), (int)__nvvm_read_ptx_sreg_ctaid_z()})
#define blockDim (ad_dim3{(int)__nvvm_read_ptx_sreg_ntid_x(), (int)__nvvm_read_ptx_sreg_ntid_y(), (int)__nvvm_read_ptx_sreg_ntid_z()})
#define gridDim (ad_dim3{(int)__nvvm_read_ptx_sreg_nctaid_x(), (int)__nvvm_read_ptx_sreg_nctaid_y(), (int)__nvvm_read_ptx_sreg_nctaid_z()})

// Barriers.

// __syncthreads(), a builtin: all threads of the block meet; what they wrote before is seen by all after.
// `threads` threads (a multiple of 32) of the block meet at barrier id, 1 to 15.
AD_DEVICE void ad_barrier(int id, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
// The lanes of mask meet.
AD_DEVICE void __syncwarp(uint32_t mask = 0xffffffffu) { asm volatile("bar.warp.sync %0;" ::"r"(mask) : "memory"); }
// Writes before are seen by the whole device before writes after.
AD_DEVICE void __threadfence() { asm volatile("membar.gl;" ::: "memory"); }

// Early launches. A kernel that waits may be launched early (Entry.Early): its blocks may begin while kernels before it run, once all blocks of the
// one before have allowed it or ended. The rule, on which every kernel after it relies too:
//
//   - before ad_wait a kernel reads what no kernel of the same graph writes (weights, what the host sent before the graph) and writes no
//     global memory;
//   - every thread waits, on every path, before it ends.
//
// So what ends is behind all that was launched before it, and after ad_wait everything before has been written and nothing before is still to
// be read: operands may be written over as if launches followed one another. ad_allow_next may stand anywhere, first of all too.
// Before sm_90, and for launches that are not early, both do nothing.

// Kernels that wait for this one may begin.
AD_DEVICE void ad_allow_next() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
// Waits until all kernels before this one have ended and what they wrote is seen (PTX ISA, griddepcontrol).
AD_DEVICE void ad_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// Brings bytes at p, both multiples of 16, from memory to the second-level cache, asynchronously; one thread asks for all. Before sm_90 it does nothing.
AD_DEVICE void ad_prefetch([[maybe_unused]] const void *p, [[maybe_unused]] uint32_t bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(p), "r"(bytes) : "memory");
#endif
}

// Shuffles: a 32-bit value of another lane. All lanes of mask must call it together.

#define AD_SHUFFLE(name, mode, clamp)                                                                     \
  AD_DEVICE uint32_t name(uint32_t mask, uint32_t v, int lane) {                                          \
    uint32_t r;                                                                                           \
    asm volatile("shfl.sync." mode ".b32 %0, %1, %2, " clamp ", %3;" : "=r"(r) : "r"(v), "r"(lane), "r"(mask)); \
    return r;                                                                                             \
  }
AD_SHUFFLE(ad_shuffle, "idx", "31")
AD_SHUFFLE(ad_shuffle_xor, "bfly", "31")
AD_SHUFFLE(ad_shuffle_up, "up", "0")
AD_SHUFFLE(ad_shuffle_down, "down", "31")
#undef AD_SHUFFLE
AD_DEVICE uint32_t __ballot_sync(uint32_t mask, bool p) {
  uint32_t r;
  asm volatile("{ .reg .pred p; setp.ne.u32 p, %1, 0; vote.sync.ballot.b32 %0, p, %2; }" : "=r"(r) : "r"((uint32_t)p), "r"(mask));
  return r;
}

// Atomic operations; each returns what was there.

#define AD_ATOMIC(name, op, T, c)                                                                          \
  AD_DEVICE T name(T *p, T v) {                                                                            \
    T old;                                                                                                 \
    asm volatile("atom." op " %0, [%1], %2;" : "=" c(old) : "l"(p), c(v) : "memory");                      \
    return old;                                                                                            \
  }
AD_ATOMIC(atomicAdd, "add.f32", float, "f")
AD_ATOMIC(atomicAdd, "add.s32", int32_t, "r")
AD_ATOMIC(atomicAdd, "add.u32", uint32_t, "r")
AD_ATOMIC(atomicMax, "max.s32", int32_t, "r")
AD_ATOMIC(atomicMin, "min.s32", int32_t, "r")
AD_ATOMIC(atomicOr, "or.b32", uint32_t, "r")
AD_ATOMIC(atomicExch, "exch.b32", uint32_t, "r")
#undef AD_ATOMIC
AD_DEVICE uint32_t atomicCAS(uint32_t *p, uint32_t compare, uint32_t v) {
  uint32_t old;
  asm volatile("atom.cas.b32 %0, [%1], %2, %3;" : "=r"(old) : "l"(p), "r"(compare), "r"(v) : "memory");
  return old;
}

// Approximations of the special function unit; errors are those of the PTX manual.

// 2^x, relative error 2^-22; 0 below 2^-126.
AD_DEVICE float ad_exp2(float x) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
// log2 x, absolute error 2^-22 near 1, else relative 2^-22.
AD_DEVICE float ad_log2(float x) {
  float r;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
// 1/√x, relative error 2^-22.9.
AD_DEVICE float ad_rsqrt(float x) {
  float r;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
// 1/x, relative error 2^-23.
AD_DEVICE float ad_rcp(float x) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
// √x, correctly rounded.
AD_DEVICE float ad_sqrt(float x) {
  float r;
  asm("sqrt.rn.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
// x·y + z with one rounding.
AD_DEVICE float ad_fma(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
AD_DEVICE float ad_max(float x, float y) {
  float r;
  asm("max.f32 %0, %1, %2;" : "=f"(r) : "f"(x), "f"(y));
  return r;
}
AD_DEVICE float ad_min(float x, float y) {
  float r;
  asm("min.f32 %0, %1, %2;" : "=f"(r) : "f"(x), "f"(y));
  return r;
}
// x rounded to the nearest integer, ties to even; saturates.
AD_DEVICE int32_t ad_round(float x) {
  int32_t r;
  asm("cvt.rni.s32.f32 %0, %1;" : "=r"(r) : "f"(x));
  return r;
}
// The high 32 bits of the product, for counter-based random numbers.
AD_DEVICE uint32_t ad_mulhi(uint32_t a, uint32_t b) { return (uint32_t)((uint64_t)a * b >> 32); }
// c + Σ a_i·b_i over the four signed bytes of a and b.
AD_DEVICE int32_t ad_dot4(uint32_t a, uint32_t b, int32_t c) {
  int32_t r;
  asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
  return r;
}

// The storage types; arithmetic is always float.
struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};
AD_DEVICE float ad_float(float x) { return x; }
AD_DEVICE float ad_float(bf16 x) { return __builtin_bit_cast(float, (uint32_t)x.bits << 16); }
AD_DEVICE float ad_float(f16 x) {
  float r;
  asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(x.bits));
  return r;
}
template <class T>
AD_DEVICE T ad_cast(float x);
template <>
AD_DEVICE float ad_cast<float>(float x) { return x; }
// Nearest, ties to even; a NaN stays one.
template <>
AD_DEVICE bf16 ad_cast<bf16>(float x) {
#if __CUDA_ARCH__ >= 800
  uint16_t r;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r) : "f"(x));
  return bf16{r};
#else
  uint32_t u = __builtin_bit_cast(uint32_t, x);
  if (x != x) return bf16{0x7fff};
  return bf16{(uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16)};
#endif
}
template <>
AD_DEVICE f16 ad_cast<f16>(float x) {
  uint16_t r;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r) : "f"(x));
  return f16{r};
}

// x, of which the compiler knows nothing any more: what is computed from it is computed where it stands, not ahead of the loop around
// it, which may take more registers than there are.
AD_DEVICE int32_t ad_opaque(int32_t x) {
  asm volatile("" : "+r"(x));
  return x;
}

// Sixteen bytes that are loaded and stored at once; addresses must be multiples of 16.
typedef uint32_t ad_u4 __attribute__((vector_size(16)));

// Sixteen bytes that nobody writes while the kernel runs and that are read once. The load stands where it is written: not behind ad_wait.
AD_DEVICE ad_u4 ad_load_once(const void *p) {
  uint32_t a, b, c, d;
#if __CUDA_ARCH__ >= 900
  asm volatile("ld.global.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(a), "=r"(b), "=r"(c), "=r"(d) : "l"(p) : "memory");
#else
  asm volatile("ld.global.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(a), "=r"(b), "=r"(c), "=r"(d) : "l"(p) : "memory");
#endif
  return ad_u4{a, b, c, d};
}

#if __CUDA_ARCH__ >= 800

// Asynchronous copies of 16 bytes from global to shared memory; without valid, zeros are written and global is not read.
// Both addresses are multiples of 16. What was copied may be read after ad_cp_wait and a barrier.
// ad_shared is an address in shared memory in bytes: where many differ by constants, sums of it cost no registers.
typedef uint32_t ad_shared;
AD_DEVICE ad_shared ad_shared_address(const void *p) {
  uint32_t r;
  asm("{ .reg .u64 t; cvta.to.shared.u64 t, %1; cvt.u32.u64 %0, t; }" : "=r"(r) : "l"(p));
  return r;
}
AD_DEVICE void ad_cp_async16(ad_shared shared, const void *global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global), "r"(valid ? 16 : 0) : "memory");
}
AD_DEVICE void ad_cp_async16(void *shared, const void *global, bool valid) { ad_cp_async16(ad_shared_address(shared), global, valid); }
AD_DEVICE void ad_cp_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most `pending` of the committed groups of this thread are still under way.
template <int pending>
AD_DEVICE void ad_cp_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory"); }

// Loads 8×8 matrices of 16-bit elements from shared memory into fragments: lane i gives the address (a multiple of 16) of row
// i%8 of matrix i/8 and gets of each matrix elements (i/4, 2(i%4)) and the next, or with `transposed` of its transpose.
// With two matrices, lanes from 16 on need valid addresses too and they are not used.
template <bool transposed>
AD_DEVICE void ad_ldmatrix4(uint32_t r[4], ad_shared row) {
  if constexpr (transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(row) : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(row) : "memory");
}
template <bool transposed>
AD_DEVICE void ad_ldmatrix4(uint32_t r[4], const void *row) { ad_ldmatrix4<transposed>(r, ad_shared_address(row)); }
template <bool transposed>
AD_DEVICE void ad_ldmatrix2(uint32_t r[2], const void *row) {
  if constexpr (transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(ad_shared_address(row)) : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(ad_shared_address(row)) : "memory");
}

// C[16,8] += A[16,16]·B[16,8], sums in float32. Fragments of lane i, g = i/4, t = 2(i%4), low half of a word first:
// a: rows g, g+8, g, g+8, columns t, t+1 (words 0, 1) and t+8, t+9 (words 2, 3); b: rows t, t+1 and t+8, t+9 of column g;
// c: rows g, g, g+8, g+8, columns t, t+1, t, t+1.
template <class T>
AD_DEVICE void ad_mma(float c[4], const uint32_t a[4], const uint32_t b[2]);
template <>
AD_DEVICE void ad_mma<bf16>(float c[4], const uint32_t a[4], const uint32_t b[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <>
AD_DEVICE void ad_mma<f16>(float c[4], const uint32_t a[4], const uint32_t b[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Two floats as a word of two T, lo in the low half.
template <class T>
AD_DEVICE uint32_t ad_pack(float lo, float hi);
template <>
AD_DEVICE uint32_t ad_pack<bf16>(float lo, float hi) {
  uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
  return r;
}
template <>
AD_DEVICE uint32_t ad_pack<f16>(float lo, float hi) {
  uint32_t r;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
  return r;
}

#endif  // sm_80
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#include "ad_warpgroup.h"
#endif  // sm_90a
#endif  // PTX

// From here on one text for both compilers.

#define AD_ALL 0xffffffffu  // all lanes of a warp

// Behind the parameters of a lambda: it is always inlined, so that arrays that it is given may stay in registers.
#define AD_INLINE __attribute__((always_inline))

// M(suffix, type) for each storage type: the kernels of a template.
#define AD_STORES(M) M(f32, float) M(bf16, bf16) M(f16, f16)

// AD_BUG(flag, good, bad) is good, or bad where the tests plant the bug by compiling with -DAD_PLANT_flag=, (a comma).
#define AD_BUG(flag, good, bad) AD_BUG_EXPAND(AD_PLANT_##flag, bad, good, )
#define AD_BUG_EXPAND(...) AD_BUG_THIRD(__VA_ARGS__)
#define AD_BUG_THIRD(a, b, c, ...) c

AD_DEVICE float ad_exp(float x) { return ad_exp2(x * 1.44269504f); }
AD_DEVICE float ad_log(float x) { return ad_log2(x) * 0.693147181f; }
// 1/(1+e^-x), relative error 2^-21 above -80.
AD_DEVICE float ad_sigmoid(float x) { return 1.0f / (1.0f + ad_exp(-x)); }

AD_DEVICE float __shfl_sync(uint32_t mask, float v, int lane) { return __builtin_bit_cast(float, ad_shuffle(mask, __builtin_bit_cast(uint32_t, v), lane)); }
AD_DEVICE float __shfl_xor_sync(uint32_t mask, float v, int lane) { return __builtin_bit_cast(float, ad_shuffle_xor(mask, __builtin_bit_cast(uint32_t, v), lane)); }
AD_DEVICE float __shfl_up_sync(uint32_t mask, float v, int by) { return __builtin_bit_cast(float, ad_shuffle_up(mask, __builtin_bit_cast(uint32_t, v), by)); }
AD_DEVICE float __shfl_down_sync(uint32_t mask, float v, int by) { return __builtin_bit_cast(float, ad_shuffle_down(mask, __builtin_bit_cast(uint32_t, v), by)); }
AD_DEVICE int32_t __shfl_sync(uint32_t mask, int32_t v, int lane) { return (int32_t)ad_shuffle(mask, (uint32_t)v, lane); }
AD_DEVICE int32_t __shfl_xor_sync(uint32_t mask, int32_t v, int lane) { return (int32_t)ad_shuffle_xor(mask, (uint32_t)v, lane); }
AD_DEVICE double __shfl_xor_sync(uint32_t mask, double v, int lane) {
  uint64_t u = __builtin_bit_cast(uint64_t, v);
  uint64_t lo = ad_shuffle_xor(mask, (uint32_t)u, lane), hi = ad_shuffle_xor(mask, (uint32_t)(u >> 32), lane);
  return __builtin_bit_cast(double, lo | hi << 32);
}

// What one access of 16 bytes holds of a storage type: 4 float or 8 bf16 or f16.
template <class T>
struct ad_vector {
  static constexpr int n = 16 / sizeof(T);
  T e[n];
  AD_DEVICE float operator[](int i) const { return ad_float(e[i]); }
};
// p must be a multiple of 16.
template <class T>
AD_DEVICE ad_vector<T> ad_load(const T *p) { return __builtin_bit_cast(ad_vector<T>, *(const ad_u4 *)p); }
template <class T>
AD_DEVICE void ad_store(T *p, const ad_vector<T> &v) { *(ad_u4 *)p = __builtin_bit_cast(ad_u4, v); }

// The sum and the maximum over a full warp, in every lane with the same bits.
template <class T>
AD_DEVICE T ad_warp_sum(T v) {
  AD_UNROLL
  for (int m = 16; m; m >>= 1) v += __shfl_xor_sync(AD_ALL, v, m);
  return v;
}
AD_DEVICE float ad_warp_max(float v) {
  AD_UNROLL
  for (int m = 16; m; m >>= 1) v = ad_max(v, __shfl_xor_sync(AD_ALL, v, m));
  return v;
}
// The sum over a block of full warps, in every thread with the same bits; partial has 32 elements of shared memory. It begins and ends
// with a barrier, so that partial may be used again at once.
template <class T>
AD_DEVICE T ad_block_sum(T v, T *partial) {
  v = ad_warp_sum(v);
  __syncthreads();
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = v;
  AD_BUG(block_sum_barrier, __syncthreads(), );
  T sum = 0;
  for (int w = 0; w < blockDim.x / 32; w++) sum += partial[w];
  return sum;
}
