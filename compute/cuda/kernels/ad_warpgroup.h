// What compute capability 9.0 alone has (targets sm_90a): products of a warpgroup, whose operands lie in shared memory, and what goes with them.
// Section numbers are those of NVIDIA's PTX ISA 8.x, "Asynchronous Warpgroup Level Matrix Multiply-Accumulate Instructions" (9.7.15). Its
// emulation is standin/src/warpgroup.h.
#pragma once

// A warpgroup is four warps of which the first has a number that is a multiple of four. A product is begun by all of its threads and runs beside them:
//
//   ad_wgmma_fence();                      what registers hold is seen by the products that follow
//   ad_wgmma<T, N, TRANSPOSED>(c, a, b)…   any number, in order; c and a must not be touched
//   ad_wgmma_commit();                     they are one group
//   ad_wgmma_wait<PENDING>(c…);            at most PENDING groups are under way; the c of those that are done may be used, and what
//                                          they read overwritten
//
// C[64,N] += A[64,16]·B[16,N], sums in float32 (m64nNk16, T bf16 or f16, N 64, 128 or 256), or = with add false.
//
// c[j] of lane i of warp w are rows 16w+g, 16w+g, 16w+g+8, 16w+g+8 and columns 8j+t, 8j+t+1, 8j+t, 8j+t+1, g = i/4, t = 2(i%4) (9.7.15.5.1.1,
// "Register Fragments", the figure of matrix D); a in registers is as ad_mma's of the warp's 16 rows (the figure of matrix A).
//
// Tiles in shared memory are panels of 64 columns, 128 bytes a row, one panel after the other; the 16-byte piece p of row r of a panel lies at piece
// p ^ (r & 7) (9.7.15.5.1.2, "128B swizzling"): bits 4 to 6 of the address are exclusive-ored with bits 7 to 9, so panels begin at multiples of 1024.
// A, and B where not TRANSPOSED, is K-major: a row of the tile is a row of A or a column of B, and steps of 16 along k are 32 bytes within a panel. With
// TRANSPOSED, B is MN-major: a row of the tile is a row of B, and steps along k are 16 rows, 2048 bytes.

// Describes the operand at address, a multiple of 16: a tile's beginning or a step along k from there ("Matrix Descriptor Format": bits 0 to 13 the start
// address, 16 to 29 the leading dimension's byte offset, 32 to 45 the stride dimension's, each without its four lowest bits and cut to 18; 49 to 51 the base
// offset, 0 as panels begin at multiples of 1024; 62 and 63 the swizzling, 1 for 128 bytes). The stride dimension's offset is from eight rows to the next
// eight; the leading dimension's is from one panel to the next for TRANSPOSED operands, and is not used for others, which lie in one panel per step.
AD_DEVICE uint64_t ad_wgmma_descriptor(ad_shared address, int panel) {
  const uint32_t low = (address & 0x3ffff) >> 4 | (uint32_t)((panel & 0x3ffff) >> 4) << 16, high = 1024 >> 4 | 1u << 30;
  return (uint64_t)high << 32 | low;
}
// The descriptor of an operand that lies `bytes` further: adds to the start address, in the low word alone, so that the high one stays a constant.
AD_DEVICE uint64_t ad_wgmma_advance(uint64_t descriptor, int bytes) {
  return descriptor >> 32 << 32 | (uint32_t)((uint32_t)descriptor + (bytes >> 4));
}

AD_DEVICE void ad_wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
AD_DEVICE void ad_wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// No use of c is moved ahead of where this stands.
template <int N>
AD_DEVICE void ad_wgmma_hold(float (&c)[N][4]) {
  AD_UNROLL
  for (int j = 0; j < N; j++) asm volatile("" : "+f"(c[j][0]), "+f"(c[j][1]), "+f"(c[j][2]), "+f"(c[j][3])::"memory");
}
template <int PENDING, int... N>
AD_DEVICE void ad_wgmma_wait(float (&... c)[N][4]) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
  (ad_wgmma_hold(c), ...);
}

// What c held is not kept: a product that does not add would otherwise carry it through loops, in registers.
template <int N>
AD_DEVICE void ad_wgmma_forget(float (&c)[N][4]) {
  AD_UNROLL
  for (int j = 0; j < N; j++) asm volatile("" : "=f"(c[j][0]), "=f"(c[j][1]), "=f"(c[j][2]), "=f"(c[j][3]));
}

template <class T, int N>
struct ad_wgmma_shape;
#define AD_SUMS_64 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define AD_SUMS_128 AD_SUMS_64 ", " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define AD_SUMS_256 AD_SUMS_128 ", " \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, " \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define AD_SUMS_OF_2(c, j) "+f"(c[j][0]), "+f"(c[j][1]), "+f"(c[j][2]), "+f"(c[j][3]), "+f"(c[j + 1][0]), "+f"(c[j + 1][1]), "+f"(c[j + 1][2]), "+f"(c[j + 1][3])
#define AD_SUMS_OF_8(c, j) AD_SUMS_OF_2(c, j), AD_SUMS_OF_2(c, j + 2), AD_SUMS_OF_2(c, j + 4), AD_SUMS_OF_2(c, j + 6)
#define AD_SUMS_OF_64(c) AD_SUMS_OF_8(c, 0)
#define AD_SUMS_OF_128(c) AD_SUMS_OF_8(c, 0), AD_SUMS_OF_8(c, 8)
#define AD_SUMS_OF_256(c) AD_SUMS_OF_8(c, 0), AD_SUMS_OF_8(c, 8), AD_SUMS_OF_8(c, 16), AD_SUMS_OF_8(c, 24)
#define AD_WGMMA(T, N)                                                                                                                                   \
  template <>                                                                                                                                            \
  struct ad_wgmma_shape<T, N> {                                                                                                                          \
    template <bool TRANSPOSED>                                                                                                                           \
    static AD_DEVICE void multiply(float (&c)[N / 8][4], const uint32_t (&a)[4], uint64_t b, bool add) {                                                 \
      asm volatile("{ .reg .pred p; setp.ne.b32 p, %[add], 0; wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." #T "." #T " {" AD_SUMS_##N                \
                   "}, {%[a0], %[a1], %[a2], %[a3]}, %[b], p, 1, 1, %[transposed]; }"                                                                    \
                   : AD_SUMS_OF_##N(c)                                                                                                                   \
                   : [a0] "r"(a[0]), [a1] "r"(a[1]), [a2] "r"(a[2]), [a3] "r"(a[3]), [b] "l"(b), [add] "r"((int)add), [transposed] "n"((int)TRANSPOSED)); \
    }                                                                                                                                                    \
    template <bool TRANSPOSED>                                                                                                                           \
    static AD_DEVICE void multiply(float (&c)[N / 8][4], uint64_t a, uint64_t b, bool add) {                                                             \
      asm volatile("{ .reg .pred p; setp.ne.b32 p, %[add], 0; wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." #T "." #T " {" AD_SUMS_##N                \
                   "}, %[a], %[b], p, 1, 1, 0, %[transposed]; }"                                                                                         \
                   : AD_SUMS_OF_##N(c)                                                                                                                   \
                   : [a] "l"(a), [b] "l"(b), [add] "r"((int)add), [transposed] "n"((int)TRANSPOSED));                                                    \
    }                                                                                                                                                    \
  };
AD_WGMMA(bf16, 64) AD_WGMMA(bf16, 128) AD_WGMMA(bf16, 256)
AD_WGMMA(f16, 64) AD_WGMMA(f16, 128) AD_WGMMA(f16, 256)
#undef AD_WGMMA

// A is uint32_t[4], a fragment in registers, or uint64_t, a descriptor of a K-major operand.
template <class T, int N, bool TRANSPOSED>
AD_DEVICE void ad_wgmma(float (&c)[N / 8][4], const uint32_t (&a)[4], uint64_t b, bool add = true) {
  if (!add) ad_wgmma_forget(c);
  ad_wgmma_shape<T, N>::template multiply<TRANSPOSED>(c, a, b, add);
}
template <class T, int N, bool TRANSPOSED>
AD_DEVICE void ad_wgmma(float (&c)[N / 8][4], uint64_t a, uint64_t b, bool add = true) {
  if (!add) ad_wgmma_forget(c);
  ad_wgmma_shape<T, N>::template multiply<TRANSPOSED>(c, a, b, add);
}

// What this thread stored in shared memory, or copied and waited for, is seen by products that are begun after a barrier from here.
AD_DEVICE void ad_fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
// Arrives at barrier id, 1 to 15, without waiting there.
AD_DEVICE void ad_barrier_arrive(int id, int threads) { asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
// The registers of each thread of this warpgroup become N, a multiple of 8 from 24 to 240: of a kernel of AD_KERNEL_OCCUPANCY, which has a bound.
template <int N>
AD_DEVICE void ad_registers_more() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N)); }
template <int N>
AD_DEVICE void ad_registers_fewer() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N)); }
