//go:build !noasm

package vec

import (
	"math"

	"golang.org/x/sys/cpu"
)

const (
	avx2 level = iota + 1
	avx512
)

// levels returns what this machine can run, best first.
func levels() []level {
	ls := []level{generic}
	x := &cpu.X86
	if x.HasAVX2 {
		ls = append([]level{avx2}, ls...)
	}
	if x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL && x.HasBMI2 {
		ls = append([]level{avx512}, ls...)
	}
	return ls
}

// The functions below check lengths and hand over to assembly, which handles slices of any length but zero.

func (l level) add(y, a, b []float32) {
	if l == generic || len(y) == 0 {
		addGeneric(y, a, b)
		return
	}
	a, b = a[:len(y)], b[:len(y)]
	if l == avx512 {
		addAVX512(len(y), &y[0], &a[0], &b[0])
	} else {
		addAVX2(len(y), &y[0], &a[0], &b[0])
	}
}

func (l level) mul(y, a, b []float32) {
	if l == generic || len(y) == 0 {
		mulGeneric(y, a, b)
		return
	}
	a, b = a[:len(y)], b[:len(y)]
	if l == avx512 {
		mulAVX512(len(y), &y[0], &a[0], &b[0])
	} else {
		mulAVX2(len(y), &y[0], &a[0], &b[0])
	}
}

func (l level) scale(y, x []float32, s float32) {
	if l == generic || len(y) == 0 {
		scaleGeneric(y, x, s)
		return
	}
	x = x[:len(y)]
	if l == avx512 {
		scaleAVX512(len(y), &y[0], &x[0], s)
	} else {
		scaleAVX2(len(y), &y[0], &x[0], s)
	}
}

func (l level) exp(y, x []float32) {
	if l == generic || len(y) == 0 {
		expGeneric(y, x)
		return
	}
	x = x[:len(y)]
	if l == avx512 {
		expAVX512(len(y), &y[0], &x[0])
	} else {
		expAVX2(len(y), &y[0], &x[0])
	}
}

func (l level) norm(y, x, gain, bias []float32, mean, rstd float32) {
	if l == generic || len(y) == 0 {
		normGeneric(y, x, gain, bias, mean, rstd)
		return
	}
	x, gain, bias = x[:len(y)], gain[:len(y)], bias[:len(y)]
	if l == avx512 {
		normAVX512(len(y), &y[0], &x[0], &gain[0], &bias[0], mean, rstd)
	} else {
		normAVX2(len(y), &y[0], &x[0], &gain[0], &bias[0], mean, rstd)
	}
}

func (l level) normGrad(dx, dy, x, gain []float32, mean, rstd, a, b float32) {
	if l == generic || len(dx) == 0 {
		normGradGeneric(dx, dy, x, gain, mean, rstd, a, b)
		return
	}
	dy, x, gain = dy[:len(dx)], x[:len(dx)], gain[:len(dx)]
	if l == avx512 {
		normGradAVX512(len(dx), &dx[0], &dy[0], &x[0], &gain[0], mean, rstd, a, b)
	} else {
		normGradAVX2(len(dx), &dx[0], &dy[0], &x[0], &gain[0], mean, rstd, a, b)
	}
}

func (l level) normGradAdd(dx, base, dy, x, gain []float32, mean, rstd, a, b float32) {
	if l == generic || len(dx) == 0 {
		normGradAddGeneric(dx, base, dy, x, gain, mean, rstd, a, b)
		return
	}
	base, dy, x, gain = base[:len(dx)], dy[:len(dx)], x[:len(dx)], gain[:len(dx)]
	if l == avx512 {
		normGradAddAVX512(len(dx), &dx[0], &base[0], &dy[0], &x[0], &gain[0], mean, rstd, a, b)
	} else {
		normGradAddAVX2(len(dx), &dx[0], &base[0], &dy[0], &x[0], &gain[0], mean, rstd, a, b)
	}
}

func (l level) addNormProduct(acc, dy, x []float32, mean, rstd float32) {
	if l == generic || len(acc) == 0 {
		addNormProductGeneric(acc, dy, x, mean, rstd)
		return
	}
	dy, x = dy[:len(acc)], x[:len(acc)]
	if l == avx512 {
		addNormProductAVX512(len(acc), &acc[0], &dy[0], &x[0], mean, rstd)
	} else {
		addNormProductAVX2(len(acc), &acc[0], &dy[0], &x[0], mean, rstd)
	}
}

func (l level) softmaxGrad(ds, p, dp []float32, mean float32) {
	if l == generic || len(ds) == 0 {
		softmaxGradGeneric(ds, p, dp, mean)
		return
	}
	p, dp = p[:len(ds)], dp[:len(ds)]
	if l == avx512 {
		softmaxGradAVX512(len(ds), &ds[0], &p[0], &dp[0], mean)
	} else {
		softmaxGradAVX2(len(ds), &ds[0], &p[0], &dp[0], mean)
	}
}

func (l level) geluTanh(y, x []float32) {
	if l == generic || len(y) == 0 {
		geluTanhGeneric(y, x)
		return
	}
	x = x[:len(y)]
	if l == avx512 {
		geluTanhAVX512(len(y), &y[0], &x[0])
	} else {
		geluTanhAVX2(len(y), &y[0], &x[0])
	}
}

func (l level) geluTanhGrad(dx, dy, x []float32) {
	if l == generic || len(dx) == 0 {
		geluTanhGradGeneric(dx, dy, x)
		return
	}
	dy, x = dy[:len(dx)], x[:len(dx)]
	if l == avx512 {
		geluTanhGradAVX512(len(dx), &dx[0], &dy[0], &x[0])
	} else {
		geluTanhGradAVX2(len(dx), &dx[0], &dy[0], &x[0])
	}
}

func (l level) geluErf(y, x []float32) {
	if l == generic || len(y) == 0 {
		geluErfGeneric(y, x)
		return
	}
	x = x[:len(y)]
	if l == avx512 {
		geluErfAVX512(len(y), &y[0], &x[0])
	} else {
		geluErfAVX2(len(y), &y[0], &x[0])
	}
}

func (l level) geluErfGrad(dx, dy, x []float32) {
	if l == generic || len(dx) == 0 {
		geluErfGradGeneric(dx, dy, x)
		return
	}
	dy, x = dy[:len(dx)], x[:len(dx)]
	if l == avx512 {
		geluErfGradAVX512(len(dx), &dx[0], &dy[0], &x[0])
	} else {
		geluErfGradAVX2(len(dx), &dx[0], &dy[0], &x[0])
	}
}

func (l level) relu(y, x []float32) {
	if l == generic || len(y) == 0 {
		reluGeneric(y, x)
		return
	}
	x = x[:len(y)]
	if l == avx512 {
		reluAVX512(len(y), &y[0], &x[0])
	} else {
		reluAVX2(len(y), &y[0], &x[0])
	}
}

func (l level) reluGrad(dx, dy, x []float32) {
	if l == generic || len(dx) == 0 {
		reluGradGeneric(dx, dy, x)
		return
	}
	dy, x = dy[:len(dx)], x[:len(dx)]
	if l == avx512 {
		reluGradAVX512(len(dx), &dx[0], &dy[0], &x[0])
	} else {
		reluGradAVX2(len(dx), &dx[0], &dy[0], &x[0])
	}
}

func (l level) max(x []float32) float32 {
	switch {
	case l == generic || len(x) == 0:
		return maxGeneric(x)
	case l == avx512:
		return maxAVX512(len(x), &x[0])
	}
	return maxAVX2(len(x), &x[0])
}

func (l level) expSum(x []float32, shift float32) float32 {
	switch {
	case l == generic || len(x) == 0:
		return expSumGeneric(x, shift)
	case l == avx512:
		return expSumAVX512(len(x), &x[0], shift)
	}
	return expSumAVX2(len(x), &x[0], shift)
}

func (l level) dot(a, b []float32) float32 {
	if l == generic || len(a) == 0 {
		return dotGeneric(a, b)
	}
	b = b[:len(a)]
	if l == avx512 {
		return dotAVX512(len(a), &a[0], &b[0])
	}
	return dotAVX2(len(a), &a[0], &b[0])
}

func (l level) sum(x []float32) float64 {
	if l == generic {
		return sumGeneric(x)
	}
	total := 0.0
	for len(x) > 0 {
		n := min(block, len(x))
		if l == avx512 {
			total += float64(sumAVX512(n, &x[0]))
		} else {
			total += float64(sumAVX2(n, &x[0]))
		}
		x = x[n:]
	}
	return total
}

func (l level) sumSquares(x []float32, c float32) float64 {
	if l == generic {
		return sumSquaresGeneric(x, c)
	}
	total := 0.0
	for len(x) > 0 {
		n := min(block, len(x))
		if l == avx512 {
			total += float64(sumSquaresAVX512(n, &x[0], c))
		} else {
			total += float64(sumSquaresAVX2(n, &x[0], c))
		}
		x = x[n:]
	}
	return total
}

func (l level) sumSquares64(x []float32) float64 {
	if l == generic {
		return sumSquares64Generic(x)
	}
	var s [Lanes]float64
	// The scheduler cannot interrupt assembly: long slices go in parts.
	const part = 1 << 16
	for len(x) > 0 {
		n := min(part, len(x))
		if l == avx512 {
			sumSquares64AVX512(n, &x[0], &s[0])
		} else {
			sumSquares64AVX2(n, &x[0], &s[0])
		}
		x = x[n:]
	}
	return lanes64(&s)
}

func (l level) normGradSums(dy, x, gain []float32, mean, rstd float32) (sum, dot float64) {
	if l == generic {
		return normGradSumsGeneric(dy, x, gain, mean, rstd)
	}
	x, gain = x[:len(dy)], gain[:len(dy)]
	for len(dy) > 0 {
		n := min(block, len(dy))
		var s, d float32
		if l == avx512 {
			s, d = normGradSumsAVX512(n, &dy[0], &x[0], &gain[0], mean, rstd)
		} else {
			s, d = normGradSumsAVX2(n, &dy[0], &x[0], &gain[0], mean, rstd)
		}
		sum += float64(s)
		dot += float64(d)
		dy, x, gain = dy[n:], x[n:], gain[n:]
	}
	return sum, dot
}

func (l level) adamW(param, m, v, grad []float32, h *AdamWStep) {
	if l == generic || len(param) == 0 {
		adamWGeneric(param, m, v, grad, h)
		return
	}
	m, v, grad = m[:len(param)], v[:len(param)], grad[:len(param)]
	numbers := [...]float32{
		h.Multiplier, h.Beta1, 1 - h.Beta1, h.Beta2, 1 - h.Beta2,
		h.LearningRate * h.Decay, h.LearningRate / h.Correction1, float32(math.Sqrt(float64(h.Correction2))), h.Epsilon,
	}
	if l == avx512 {
		adamWAVX512(len(param), &param[0], &m[0], &v[0], &grad[0], &numbers[0])
	} else {
		adamWAVX2(len(param), &param[0], &m[0], &v[0], &grad[0], &numbers[0])
	}
}
