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
	if n*width <= span {
		layerNorm(y, x, gain, bias, 0, n, width, epsilon) // a few tokens: without the function that threads need
		return
	}
	k.rows(n, width, func(lo, hi int) { layerNorm(y, x, gain, bias, lo, hi, width, epsilon) })
}

// layerNorm is LayerNorm of the rows lo..hi.
func layerNorm(y, x, gain, bias []float32, lo, hi, width int, epsilon float64) {
	for i := lo; i < hi; i++ {
		LayerNormRow(y[i*width:(i+1)*width], x[i*width:(i+1)*width], gain, bias, epsilon)
	}
}

// LayerNormRow is compute.LayerNorm for a row x.
func LayerNormRow(y, x, gain, bias []float32, epsilon float64) {
	mean, rstd := moments(x, epsilon)
	vec.Norm(y, x, gain, bias, mean, rstd)
}

// LayerNormGrad is compute.LayerNormGrad for x [n,width] without base and the parameters' gradients.
func (k Kernels) LayerNormGrad(dx, dy, x, gain []float32, n, width int, epsilon float64) {
	k.LayerNormGrads(dx, nil, nil, dy, x, gain, nil, n, width, epsilon, nil)
}

// LayerNormGradsWork returns the scratch of LayerNormGrads that adds to a parameter's gradient.
func LayerNormGradsWork(n, width int) int { return columnSumsWork(n, 2*width) }

// LayerNormGrads is compute.LayerNormGrad for x [n,width]: a row's statistics, gradient and contributions to those of gain and
// bias are computed while it is in cache. base, dgain and dbias may be nil; work may be when both gradients are.
func (k Kernels) LayerNormGrads(dx, dgain, dbias, dy, x, gain, base []float32, n, width int, epsilon float64, work []float32) {
	row := func(i int, gains, biases []float32) {
		in, out, grad := x[i*width:(i+1)*width], dx[i*width:(i+1)*width], dy[i*width:(i+1)*width]
		mean, rstd := moments(in, epsilon)
		if gains != nil {
			vec.AddNormProduct(gains, grad, in, mean, rstd)
		}
		if biases != nil {
			vec.Add(biases, biases, grad)
		}
		sum, dot := vec.NormGradSums(grad, in, gain, mean, rstd)
		a, b := float32(sum/float64(width)), float32(dot/float64(width))
		if base != nil {
			vec.NormGradAdd(out, base[i*width:(i+1)*width], grad, in, gain, mean, rstd, a, b)
		} else {
			vec.NormGrad(out, grad, in, gain, mean, rstd, a, b)
		}
	}
	if dgain == nil && dbias == nil {
		k.rows(n, width, func(lo, hi int) {
			for i := lo; i < hi; i++ {
				row(i, nil, nil)
			}
		})
		return
	}
	k.columnSums([][]float32{dgain, dbias}, n, width, work, func(i int, acc [][]float32) { row(i, acc[0], acc[1]) })
}

// LayerNormGainGradWork returns the scratch of LayerNormGainGrad.
func LayerNormGainGradWork(n, width int) int { return columnSumsWork(n, width) }

// LayerNormGainGrad is compute.LayerNormGainGrad for x [n,width].
func (k Kernels) LayerNormGainGrad(dgain, dy, x []float32, n, width int, epsilon float64, work []float32) {
	k.columnSums([][]float32{dgain}, n, width, work, func(i int, acc [][]float32) {
		row := x[i*width : (i+1)*width]
		mean, rstd := moments(row, epsilon)
		vec.AddNormProduct(acc[0], dy[i*width:(i+1)*width], row, mean, rstd)
	})
}

// BiasGradWork returns the scratch of BiasGrad.
func BiasGradWork(n, width int) int { return columnSumsWork(n, width) }

// BiasGrad is compute.BiasGrad for dy [n,width].
func (k Kernels) BiasGrad(db, dy []float32, n, width int, work []float32) {
	k.columnSums([][]float32{db}, n, width, work, func(i int, acc [][]float32) {
		vec.Add(acc[0], acc[0], dy[i*width:(i+1)*width])
	})
}

// sumRows is the number of rows that are summed in float32; their sums are summed in float64.
const sumRows = 64

func columnSumsWork(n, width int) int { return (n + sumRows - 1) / sumRows * width }

// columnSums adds to each of sums ([width] or nil) what add adds to its accumulator for each of n rows. Rows are read in order,
// as memory likes it, in runs of sumRows that have accumulators of their own; these are added up in order.
func (k Kernels) columnSums(sums [][]float32, n, width int, work []float32, add func(i int, acc [][]float32)) {
	runs, across := (n+sumRows-1)/sumRows, len(sums)*width
	k.pool.Run(runs, func(r int) {
		var parts [2][]float32
		for s, sum := range sums {
			if sum != nil {
				parts[s] = work[r*across+s*width:][:width]
				clear(parts[s])
			}
		}
		for i := r * sumRows; i < min(n, (r+1)*sumRows); i++ {
			add(i, parts[:len(sums)])
		}
	})
	for s, sum := range sums {
		if sum == nil {
			continue
		}
		k.spans(width, span/runs+1, func(lo, hi int) {
			for j := lo; j < hi; j++ {
				total := 0.0
				for r := range runs {
					total += float64(work[r*across+s*width+j])
				}
				sum[j] += float32(total)
			}
		})
	}
}
