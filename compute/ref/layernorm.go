package ref

import "math"

// moments returns the mean of row and 1/√(variance + epsilon).
func moments[T Float](row []T, epsilon float64) (mean, rstd float64) {
	for _, x := range row {
		mean += float64(x)
	}
	mean /= float64(len(row))
	variance := 0.0
	for _, x := range row {
		variance += (float64(x) - mean) * (float64(x) - mean)
	}
	return mean, 1 / math.Sqrt(variance/float64(len(row))+epsilon)
}

// LayerNorm sets each row of y to (x − mean)/√(variance + epsilon)·gain + bias (Ba, Kiros, Hinton 2016).
func LayerNorm[T Float](y, x, gain, bias []T, epsilon float64) {
	width := len(gain)
	for at := 0; at < len(x); at += width {
		mean, rstd := moments(x[at:at+width], epsilon)
		for j := range width {
			y[at+j] = T((float64(x[at+j])-mean)*rstd*float64(gain[j]) + float64(bias[j]))
		}
	}
}

// LayerNormGrad sets dx to the gradient of LayerNorm with respect to x.
func LayerNormGrad[T Float](dx, dy, x, gain []T, epsilon float64) {
	width := len(gain)
	for at := 0; at < len(x); at += width {
		mean, rstd := moments(x[at:at+width], epsilon)
		var sum, dot float64 // means of g and g·x̂ with g = dy·gain
		for j := range width {
			g := float64(dy[at+j]) * float64(gain[j])
			sum += g
			dot += g * (float64(x[at+j]) - mean) * rstd
		}
		sum, dot = sum/float64(width), dot/float64(width)
		for j := range width {
			g := float64(dy[at+j]) * float64(gain[j])
			dx[at+j] = T(rstd * (g - sum - (float64(x[at+j])-mean)*rstd*dot))
		}
	}
}

// LayerNormGainGrad adds Σ dy·x̂ over the rows to dgain.
func LayerNormGainGrad[T Float](dgain, dy, x []T, epsilon float64) {
	width := len(dgain)
	sums := make([]float64, width)
	for at := 0; at < len(x); at += width {
		mean, rstd := moments(x[at:at+width], epsilon)
		for j := range width {
			sums[j] += float64(dy[at+j]) * (float64(x[at+j]) - mean) * rstd
		}
	}
	for j, s := range sums {
		dgain[j] += T(s)
	}
}
