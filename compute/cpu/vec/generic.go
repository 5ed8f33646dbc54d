package vec

import "math"

func addGeneric(y, a, b []float32) {
	a, b = a[:len(y)], b[:len(y)]
	for i := range y {
		y[i] = a[i] + b[i]
	}
}

func mulGeneric(y, a, b []float32) {
	a, b = a[:len(y)], b[:len(y)]
	for i := range y {
		y[i] = a[i] * b[i]
	}
}

func scaleGeneric(y, x []float32, s float32) {
	x = x[:len(y)]
	for i := range y {
		y[i] = s * x[i]
	}
}

func maxGeneric(x []float32) float32 {
	largest := float32(math.Inf(-1))
	for _, v := range x {
		if v > largest {
			largest = v
		}
	}
	return largest
}

// lanes combines partial sums as a binary tree.
func lanes(s *[Lanes]float32) float32 {
	for half := Lanes / 2; half > 0; half /= 2 {
		for i := range half {
			s[i] += s[i+half]
		}
	}
	return s[0]
}

// lanes64 is lanes for float64.
func lanes64(s *[Lanes]float64) float64 {
	for half := Lanes / 2; half > 0; half /= 2 {
		for i := range half {
			s[i] += s[i+half]
		}
	}
	return s[0]
}

func dotGeneric(a, b []float32) float32 {
	b = b[:len(a)]
	var s [Lanes]float32
	i := 0
	for ; i+Lanes <= len(a); i += Lanes {
		x, y := a[i:][:Lanes:Lanes], b[i:][:Lanes:Lanes]
		for l := range s {
			s[l] += float32(x[l] * y[l])
		}
	}
	for l := 0; i < len(a); i, l = i+1, l+1 {
		s[l] += float32(a[i] * b[i])
	}
	return lanes(&s)
}

func sumGeneric(x []float32) float64 {
	total := 0.0
	for start := 0; start < len(x); start += block {
		part := x[start:min(start+block, len(x))]
		var s [Lanes]float32
		for i, v := range part {
			s[i%Lanes] += v
		}
		total += float64(lanes(&s))
	}
	return total
}

func sumSquaresGeneric(x []float32, c float32) float64 {
	total := 0.0
	for start := 0; start < len(x); start += block {
		part := x[start:min(start+block, len(x))]
		var s [Lanes]float32
		for i, v := range part {
			d := v - c
			s[i%Lanes] += float32(d * d)
		}
		total += float64(lanes(&s))
	}
	return total
}

func sumSquares64Generic(x []float32) float64 {
	var s [Lanes]float64
	for i, v := range x {
		s[i%Lanes] += float64(v) * float64(v)
	}
	return lanes64(&s)
}

func normGeneric(y, x, gain, bias []float32, mean, rstd float32) {
	x, gain, bias = x[:len(y)], gain[:len(y)], bias[:len(y)]
	for i := range y {
		y[i] = float32((x[i]-mean)*rstd*gain[i]) + bias[i]
	}
}

func normGradSumsGeneric(dy, x, gain []float32, mean, rstd float32) (sum, dot float64) {
	x, gain = x[:len(dy)], gain[:len(dy)]
	for start := 0; start < len(dy); start += block {
		var s, d [Lanes]float32
		for i := start; i < min(start+block, len(dy)); i++ {
			g := float32(dy[i] * gain[i])
			s[i%Lanes] += g
			d[i%Lanes] += float32(g * ((x[i] - mean) * rstd))
		}
		sum += float64(lanes(&s))
		dot += float64(lanes(&d))
	}
	return sum, dot
}

func normGradGeneric(dx, dy, x, gain []float32, mean, rstd, a, b float32) {
	dy, x, gain = dy[:len(dx)], x[:len(dx)], gain[:len(dx)]
	for i := range dx {
		g := float32(dy[i] * gain[i])
		dx[i] = rstd * (g - a - float32((x[i]-mean)*rstd*b))
	}
}

func normGradAddGeneric(dx, base, dy, x, gain []float32, mean, rstd, a, b float32) {
	base, dy, x, gain = base[:len(dx)], dy[:len(dx)], x[:len(dx)], gain[:len(dx)]
	for i := range dx {
		g := float32(dy[i] * gain[i])
		dx[i] = base[i] + float32(rstd*(g-a-float32((x[i]-mean)*rstd*b)))
	}
}

func addNormProductGeneric(acc, dy, x []float32, mean, rstd float32) {
	dy, x = dy[:len(acc)], x[:len(acc)]
	for i := range acc {
		acc[i] += float32(dy[i] * ((x[i] - mean) * rstd))
	}
}

func softmaxGradGeneric(ds, p, dp []float32, mean float32) {
	p, dp = p[:len(ds)], dp[:len(ds)]
	for i := range ds {
		ds[i] = p[i] * (dp[i] - mean)
	}
}

// exp returns e^x: x = n·ln 2 + r with |r| ≤ ln 2/2, e^r by the polynomial of Moshier's Cephes library (expf), and 2^n added
// to the exponent.
func exp(x float32) float32 {
	const (
		log2e = 1.44269504088896341
		round = 3 << 22 // adding it leaves the nearest integer in the low bits of the mantissa
		ln2Hi = 0.693359375
		ln2Lo = -2.12194440e-4
	)
	switch {
	case x < -87.3365:
		return 0
	case x > 88.722:
		return float32(math.Inf(1))
	case x != x:
		return x
	}
	t := float32(x*log2e) + round
	n := t - round
	r := x - float32(n*ln2Hi)
	r -= float32(n * ln2Lo)
	p := float32(1.9875691500e-4)
	p = float32(p*r) + 1.3981999507e-3
	p = float32(p*r) + 8.3334519073e-3
	p = float32(p*r) + 4.1665795894e-2
	p = float32(p*r) + 1.6666665459e-1
	p = float32(p*r) + 5.0000001201e-1
	p = float32(p*float32(r*r)) + r + 1
	return math.Float32frombits(math.Float32bits(p) + math.Float32bits(t)<<23)
}

func expGeneric(y, x []float32) {
	x = x[:len(y)]
	for i := range y {
		y[i] = exp(x[i])
	}
}

func expSumGeneric(x []float32, shift float32) float32 {
	var s [Lanes]float32
	for i, v := range x {
		e := exp(v - shift)
		x[i] = e
		s[i%Lanes] += e
	}
	return lanes(&s)
}

// geluLimit bounds |x| inside the activation functions' exponentials: beyond it they are x or 0 to float32 precision.
const geluLimit = 10

func clamp(x float32) float32 {
	if x > geluLimit {
		return geluLimit
	}
	if x < -geluLimit {
		return -geluLimit
	}
	return x
}

// logisticOfGELU returns 1/(1 + e^(−2u)) = (1 + tanh u)/2 with u = √(2/π)·(x + 0.044715·x³).
func logisticOfGELU(x float32) float32 {
	const a, b = -2 * 0.79788456080286536, -2 * 0.79788456080286536 * 0.044715
	return 1 / (1 + exp(x*(a+float32(b*float32(x*x)))))
}

func geluTanhGeneric(y, x []float32) {
	x = x[:len(y)]
	for i := range y {
		y[i] = x[i] * logisticOfGELU(clamp(x[i]))
	}
}

func geluTanhGradGeneric(dx, dy, x []float32) {
	const a, b = 2 * 0.79788456080286536, 2 * 3 * 0.79788456080286536 * 0.044715
	dy, x = dy[:len(dx)], x[:len(dx)]
	for i := range dx {
		c := clamp(x[i])
		s := logisticOfGELU(c)
		dx[i] = dy[i] * (s + float32(float32(c*s)*float32((1-s)*(a+float32(b*float32(c*c))))))
	}
}

// normalTail returns 1 − Φ(z) for z ≥ 0: half of erfc(z/√2) by the rational Chebyshev fit of Press et al., Numerical Recipes
// (erfcc), whose relative error is below 1.2e-7.
func normalTail(z float32) float32 {
	z *= 0.70710678118654752
	t := 1 / (1 + float32(0.5*z))
	p := float32(0.17087277)
	p = float32(p*t) - 0.82215223
	p = float32(p*t) + 1.48851587
	p = float32(p*t) - 1.13520398
	p = float32(p*t) + 0.27886807
	p = float32(p*t) - 0.18628806
	p = float32(p*t) + 0.09678418
	p = float32(p*t) + 0.37409196
	p = float32(p*t) + 1.00002368
	p = float32(p*t) - 1.26551223
	return 0.5 * t * exp(p-float32(z*z))
}

// normal returns Φ(x).
func normal(x float32) float32 {
	if x < 0 {
		return normalTail(-x)
	}
	return 1 - normalTail(x)
}

func geluErfGeneric(y, x []float32) {
	x = x[:len(y)]
	for i := range y {
		y[i] = x[i] * normal(clamp(x[i]))
	}
}

func geluErfGradGeneric(dx, dy, x []float32) {
	dy, x = dy[:len(dx)], x[:len(dx)]
	for i := range dx {
		c := clamp(x[i])
		dx[i] = dy[i] * (normal(c) + float32(c*0.39894228040143268*exp(-0.5*c*c)))
	}
}

func reluGeneric(y, x []float32) {
	x = x[:len(y)]
	for i := range y {
		y[i] = max(x[i], 0)
	}
}

func reluGradGeneric(dx, dy, x []float32) {
	dy, x = dy[:len(dx)], x[:len(dx)]
	for i := range dx {
		if x[i] > 0 {
			dx[i] = dy[i]
		} else {
			dx[i] = 0
		}
	}
}

func adamWGeneric(param, m, v, grad []float32, h *AdamWStep) {
	m, v, grad = m[:len(param)], v[:len(param)], grad[:len(param)]
	c1, c2 := 1-h.Beta1, 1-h.Beta2
	decay := h.LearningRate * h.Decay
	rate, root := h.LearningRate/h.Correction1, float32(math.Sqrt(float64(h.Correction2)))
	for i := range param {
		g := grad[i] * h.Multiplier
		mi := float32(h.Beta1*m[i]) + float32(c1*g)
		vi := float32(h.Beta2*v[i]) + float32(c2*float32(g*g))
		m[i], v[i] = mi, vi
		p := param[i]
		param[i] = p - float32(decay*p) - float32(rate*mi)/(float32(math.Sqrt(float64(vi)))/root+h.Epsilon)
	}
}
