package cpu

import (
	"math"

	"autodev/compute/cpu/vec"
)

// moments returns the mean of row and 1/√(variance + epsilon): two passes, so that a large mean costs no precision.
func moments(row []float32, epsilon float64) (mean, rstd float32) {
	n := float64(len(row))
	mean = float32(vec.Sum(row) / n)
	return mean, float32(1 / math.Sqrt(vec.SumSquares(row, mean)/n+epsilon))
}

// LayerNorm is compute.LayerNorm for x [n,width].
func (k Kernels) LayerNorm(y, x, gain, bias []float32, n, width int, epsilon float64) {
	k.rows(n, width, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			row := x[i*width : (i+1)*width]
			mean, rstd := moments(row, epsilon)
			vec.Norm(y[i*width:(i+1)*width], row, gain, bias, mean, rstd)
		}
	})
}

// LayerNormGrad is compute.LayerNormGrad for x [n,width].
func (k Kernels) LayerNormGrad(dx, dy, x, gain []float32, n, width int, epsilon float64) {
	k.rows(n, width, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			row, grad := x[i*width:(i+1)*width], dy[i*width:(i+1)*width]
			mean, rstd := moments(row, epsilon)
			sum, dot := vec.NormGradSums(grad, row, gain, mean, rstd)
			vec.NormGrad(dx[i*width:(i+1)*width], grad, row, gain, mean, rstd, float32(sum/float64(width)), float32(dot/float64(width)))
		}
	})
}

// LayerNormGainGradWork returns the scratch of LayerNormGainGrad.
func LayerNormGainGradWork(n int) int { return 2 * n }

// LayerNormGainGrad is compute.LayerNormGainGrad for x [n,width].
func (k Kernels) LayerNormGainGrad(dgain, dy, x []float32, n, width int, epsilon float64, work []float32) {
	stats := work[:2*n]
	k.rows(n, width, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			stats[2*i], stats[2*i+1] = moments(x[i*width:(i+1)*width], epsilon)
		}
	})
	k.columnSums(dgain, n, width, func(acc []float32, i, lo, hi int) {
		vec.AddNormProduct(acc, dy[i*width+lo:i*width+hi], x[i*width+lo:i*width+hi], stats[2*i], stats[2*i+1])
	})
}

// BiasGrad is compute.BiasGrad for dy [n,width].
func (k Kernels) BiasGrad(db, dy []float32, n, width int) {
	k.columnSums(db, n, width, func(acc []float32, i, lo, hi int) {
		vec.Add(acc, acc, dy[i*width+lo:i*width+hi])
	})
}

// columnSums adds to sums [width] what add adds to acc for the columns lo..hi of each of n rows, in row order. Runs of 64 rows
// are summed in float32 and the runs in float64.
func (k Kernels) columnSums(sums []float32, n, width int, add func(acc []float32, i, lo, hi int)) {
	const columns, run = 128, 64
	k.pool.Run((width+columns-1)/columns, func(c int) {
		lo, hi := c*columns, min(width, (c+1)*columns)
		var total [columns]float64
		for i := 0; i < n; i += run {
			var acc [columns]float32
			for j := i; j < min(n, i+run); j++ {
				add(acc[:hi-lo], j, lo, hi)
			}
			for j, v := range acc[:hi-lo] {
				total[j] += float64(v)
			}
		}
		for j := range hi - lo {
			sums[lo+j] += float32(total[j])
		}
	})
}
