package cpu

import "autodev/compute/cpu/vec"

// normBlock is the number of elements whose squares one piece of SumSquares sums.
const normBlock = 1 << 16

// SumSquaresWork returns the scratch of SumSquares for n elements.
func SumSquaresWork(n int) int { return 2 * ((n + normBlock - 1) / normBlock) }

// SumSquares is compute.SumSquares: blocks of 65,536 elements are summed in float64, and the blocks in order.
func (k Kernels) SumSquares(x []float32, work []float32) float64 {
	parts := float64s(work)[:SumSquaresWork(len(x))/2]
	k.spans(len(x), normBlock, func(lo, hi int) { parts[lo/normBlock] = vec.SumSquares64(x[lo:hi]) })
	total := 0.0
	for _, p := range parts {
		total += p
	}
	return total
}

// AdamW is compute.AdamW.
func (k Kernels) AdamW(param, m, v, grad []float32, h vec.AdamWStep) {
	k.spans(len(param), span, func(lo, hi int) { vec.AdamW(param[lo:hi], m[lo:hi], v[lo:hi], grad[lo:hi], &h) })
}
