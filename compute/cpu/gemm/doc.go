// Package gemm multiplies matrices on the CPU: C = init + alpha·A·B, for training and inference. Operands and results are
// float32; on demand the operands are rounded to bf16 first (Options.BF16, PackBF16), which doubles the speed where the machine
// has instructions for it.
//
// What must not live here: anything that knows what a matrix means (layers, attention, quantised weights).
//
// # Law
//
// With K the inner dimension cut into blocks of KC (the last may be shorter), every element of C is
//
//	acc := init                                   (0, the old C, a base matrix, and/or a bias)
//	for each block of K, ascending:
//		sum := 0
//		for each k of the block, ascending:
//			sum = fma(A[i,k], B[k,j], sum)
//		acc = fma(alpha, sum, acc)                (alpha·sum for the first block without init)
//	C[i,j] = acc
//
// so that its bits do not depend on the sizes of A and C, on where its row and column stand, on how the operands are stored,
// on whether B was packed beforehand, nor on the number of threads. One row of activations gives the same bits alone as
// inside a batch. Work is split over C only. With Options.Then, init leaves out the base, and C[i,j] = then(acc) + base[i,j].
//
// The AVX-512 and the AVX2 kernels keep this law to the bit and agree with each other. The portable kernel keeps the order
// but rounds the products as well (Go has no float32 fused multiply-add): it agrees with itself for all shapes, and with the
// assembly within rounding.
//
// # Law of bf16
//
// The same, with A and B rounded to the nearest bf16 (ties to even; NaNs stay NaNs, infinities infinities, what rounds beyond the
// largest number becomes infinite, and subnormal numbers become zeros). Products of two bf16 are exact in float32, so that even
// the portable kernel has the bits of the fused sums. Only sums below 2^-126 in magnitude, the smallest normal number, differ
// between machines: the instruction VDPBF16PS replaces each by zero, the emulations keep it.
//
// VDPBF16PS adds two products at a time, by two fused multiply-adds, the upper halves of its words first. Operands are therefore
// packed in pairs along K, the first in the upper half, and the order stays ascending. An odd K ends with a pair of which the
// second elements are zero, which changes nothing (but that a sum of −0 becomes +0). Blocks have KC elements as well; since the
// sums are one chain, where a pair begins does not matter.
//
// # How
//
// A is packed into tiles of mr rows and B into panels of columns, both with k outermost, and a kernel written in assembly
// (made by the generator in _generate with avo) computes one tile of C in registers. Kernel and packing functions are
// chosen at run time (Level, LevelBF16). Without AVX512_BF16 the kernels for bf16 spread the pairs of B over two registers of
// float32, so that packed bf16 weights take half the memory and bandwidth everywhere. The build tag noasm leaves only the
// portable kernels.
//
// With many rows, A and B are packed first and then multiplied in groups of tiles that stay in the second-level cache; with fewer,
// a worker packs the next panels of B share by share while it passes A over the ones before: between two tiles a few rows, which
// the tiles before have brought into the cache. Up to four rows with B packed beforehand wait for memory alone: one call of assembly
// reads a run of panels from its first byte to its last. What is otherwise left to wait for is memory: the tiles of a panel ask for
// the next one while they are computed, and finished pieces of C are added to and mapped (Options) while they are in cache.
package gemm

//go:generate sh -c "cd _generate && go run . -pkg gemm -out ../kernel_amd64.s -stubs ../kernel_stubs_amd64.go"
