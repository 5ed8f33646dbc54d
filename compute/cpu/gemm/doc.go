// Package gemm multiplies float32 matrices on the CPU: C = init + alpha·A·B, for training and inference.
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
// inside a batch. Work is split over C only.
//
// The AVX-512 and the AVX2 kernels keep this law to the bit and agree with each other. The portable kernel keeps the order
// but rounds the products as well (Go has no float32 fused multiply-add): it agrees with itself for all shapes, and with the
// assembly within rounding.
//
// # How
//
// A is packed into tiles of MR rows and B into panels of NR columns, both with k outermost, and a kernel written in assembly
// (made by the generator in _generate with avo) computes one MR×NR tile of C in registers. Kernel and packing functions are
// chosen at run time (Level). The build tag noasm leaves only the portable ones.
package gemm

//go:generate sh -c "cd _generate && go run . -pkg gemm -out ../kernel_amd64.s -stubs ../kernel_stubs_amd64.go"
