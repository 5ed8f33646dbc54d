package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func arithmetic(wide bool) {
	function(wide, "add", "sets y = a + b", []string{"y", "a", "b"}, ")", nil, func(m *machine, half int) {
		m.store(m.add(m.load("a", half), m.load("b", half)), "y", half)
	}, nil)
	function(wide, "mul", "sets y = a·b", []string{"y", "a", "b"}, ")", nil, func(m *machine, half int) {
		m.store(m.mul(m.load("a", half), m.load("b", half)), "y", half)
	}, nil)
	var s vec
	function(wide, "scale", "sets y = s·x", []string{"y", "x"}, ", s float32)", func(m *machine) { s = m.broadcast("s") }, func(m *machine, half int) {
		m.store(m.mul(m.load("x", half), s), "y", half)
	}, nil)
}

func sums(wide bool) {
	var acc *accumulators
	zeros := func(m *machine) { acc = m.accumulators(0) }
	total := func(m *machine) { m.combine(acc, VADDPS, 0) }
	function(wide, "max", "returns the largest", []string{"x"}, ") float32",
		func(m *machine) { acc = m.accumulators(float32(math.Inf(-1))) },
		func(m *machine, half int) {
			x := m.load("x", half)
			if m.tail { // zeros could be larger
				if m.wide {
					low := m.value(float32(math.Inf(-1)))
					VMOVAPS(x, reg.K1, low)
					x = low
				} else {
					r := m.reg()
					VBLENDVPS(m.masks[half], x, m.value(float32(math.Inf(-1))), r)
					x = r
				}
			}
			VMAXPS(acc[half], x, acc[half])
		},
		func(m *machine) { m.combine(acc, VMAXPS, 0) })
	function(wide, "dot", "returns Σ a·b", []string{"a", "b"}, ") float32", zeros, func(m *machine, half int) {
		acc.add(m.mul(m.load("a", half), m.load("b", half)), half)
	}, total)
	function(wide, "sum", "returns Σ x", []string{"x"}, ") float32", zeros, func(m *machine, half int) {
		acc.add(m.load("x", half), half)
	}, total)
	var c vec
	function(wide, "sumSquares", "returns Σ (x−c)²", []string{"x"}, ", c float32) float32", func(m *machine) { zeros(m); c = m.broadcast("c") }, func(m *machine, half int) {
		d := m.zeroMissing(m.sub(m.load("x", half), c), half)
		acc.add(m.mul(d, d), half)
	}, total)

	// Sixteen lanes of float64 are two registers of AVX-512 and four of AVX2.
	var acc64 []vec
	function(wide, "sumSquares64", "adds Σ x² to the 16 sums, element i to sum i mod 16,", []string{"x"}, ", sums *float64)",
		func(m *machine) {
			acc64 = nil
			base := Load(Param("sums"), GP64()).(reg.GPVirtual)
			m.ptr["sums"] = base
			for i := range 2 * m.halves() {
				v := m.reg()
				VMOVUPD(operand.Mem{Base: base, Disp: int(v.Size()) * i}, v)
				acc64 = append(acc64, v)
			}
		},
		func(m *machine, half int) {
			x, d := m.load("x", half), m.reg()
			for i := range 2 {
				part := operand.Op(x.AsX())
				if m.wide {
					part = x.AsY()
				}
				if i == 1 {
					if m.wide {
						y := YMM()
						VEXTRACTF64X4(operand.Imm(1), x, y)
						part = y
					} else {
						h := XMM()
						VEXTRACTF128(operand.Imm(1), x, h)
						part = h
					}
				}
				VCVTPS2PD(part, d)
				VMULPD(d, d, d)
				a := acc64[2*half+i]
				VADDPD(d, a, a)
			}
		},
		func(m *machine) {
			for i, v := range acc64 {
				VMOVUPD(v, operand.Mem{Base: m.ptr["sums"], Disp: int(v.Size()) * i})
			}
		})
}

func layerNorm(wide bool) {
	var mean, rstd, a, b vec
	statistics := func(m *machine) { mean, rstd = m.broadcast("mean"), m.broadcast("rstd") }
	normal := func(m *machine, half int) vec { return m.mul(m.sub(m.load("x", half), mean), rstd) }
	function(wide, "norm", "sets y = (x − mean)·rstd·gain + bias", []string{"y", "x", "gain", "bias"}, ", mean, rstd float32)", statistics, func(m *machine, half int) {
		m.store(m.add(m.mul(normal(m, half), m.load("gain", half)), m.load("bias", half)), "y", half)
	}, nil)
	var sum, dot *accumulators
	function(wide, "normGradSums", "returns Σ g and Σ g·(x − mean)·rstd with g = dy·gain", []string{"dy", "x", "gain"}, ", mean, rstd float32) (sum, dot float32)",
		func(m *machine) { sum, dot = m.accumulators(0), m.accumulators(0); statistics(m) },
		func(m *machine, half int) {
			g := m.mul(m.load("dy", half), m.load("gain", half))
			sum.add(g, half)
			dot.add(m.zeroMissing(m.mul(g, normal(m, half)), half), half)
		},
		func(m *machine) { m.combine(sum, VADDPS, 0); m.combine(dot, VADDPS, 1) })
	function(wide, "normGrad", "sets dx = rstd·(g − a − (x − mean)·rstd·b) with g = dy·gain", []string{"dx", "dy", "x", "gain"}, ", mean, rstd, a, b float32)",
		func(m *machine) { statistics(m); a, b = m.broadcast("a"), m.broadcast("b") },
		func(m *machine, half int) {
			g := m.mul(m.load("dy", half), m.load("gain", half))
			m.store(m.mul(m.sub(m.sub(g, a), m.mul(normal(m, half), b)), rstd), "dx", half)
		}, nil)
	function(wide, "normGradAdd", "sets dx = base + rstd·(g − a − (x − mean)·rstd·b) with g = dy·gain", []string{"dx", "base", "dy", "x", "gain"}, ", mean, rstd, a, b float32)",
		func(m *machine) { statistics(m); a, b = m.broadcast("a"), m.broadcast("b") },
		func(m *machine, half int) {
			g := m.mul(m.load("dy", half), m.load("gain", half))
			grad := m.mul(m.sub(m.sub(g, a), m.mul(normal(m, half), b)), rstd)
			m.store(m.add(m.load("base", half), grad), "dx", half)
		}, nil)
	function(wide, "addNormProduct", "adds dy·(x − mean)·rstd to acc", []string{"acc", "dy", "x"}, ", mean, rstd float32)", statistics, func(m *machine, half int) {
		m.store(m.add(m.load("acc", half), m.mul(normal(m, half), m.load("dy", half))), "acc", half)
	}, nil)
}

// exp is e^x for arguments whose result is a normal number, as in generic.go.
func (m *machine) exp(x vec) vec {
	c := m.constant
	round := c(3 << 22)
	t := m.add(m.mul(x, c(1.44269504088896341)), round)
	n := m.sub(t, round)
	r := m.sub(x, m.mul(n, c(0.693359375)))
	r = m.sub(r, m.mul(n, c(-2.12194440e-4)))
	p := m.mul(r, c(1.9875691500e-4))
	for _, k := range []float32{1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1} {
		p = m.mul(m.add(p, c(k)), r)
	}
	p = m.add(p, c(5.0000001201e-1))
	p = m.add(m.add(m.mul(p, m.mul(r, r)), r), c(1))
	out := m.reg()
	VPSLLD(operand.Imm(23), t, t)
	VPADDD(t, p, out)
	return out
}

// expAny is e^x for all arguments.
func (m *machine) expAny(x vec) vec {
	y := m.exp(x)
	y = m.where(x, less, m.constant(-87.3365), m.constant(0), y)
	y = m.where(x, greater, m.constant(88.722), m.constant(float32(math.Inf(1))), y)
	return m.where(x, unordered, x, x, y)
}

func softmax(wide bool) {
	function(wide, "exp", "sets y = e^x", []string{"y", "x"}, ")", nil, func(m *machine, half int) {
		m.store(m.expAny(m.load("x", half)), "y", half)
	}, nil)
	var acc *accumulators
	var shift, mean vec
	function(wide, "expSum", "replaces x by e^(x−shift) and returns the sum", []string{"x"}, ", shift float32) float32",
		func(m *machine) { acc = m.accumulators(0); shift = m.broadcast("shift") },
		func(m *machine, half int) {
			e := m.expAny(m.sub(m.load("x", half), shift))
			m.store(e, "x", half)
			acc.add(m.zeroMissing(e, half), half)
		},
		func(m *machine) { m.combine(acc, VADDPS, 0) })
	function(wide, "softmaxGrad", "sets ds = p·(dp − mean)", []string{"ds", "p", "dp"}, ", mean float32)", func(m *machine) { mean = m.broadcast("mean") }, func(m *machine, half int) {
		m.store(m.mul(m.sub(m.load("dp", half), mean), m.load("p", half)), "ds", half)
	}, nil)
}

const (
	root2OverPi = 0.79788456080286536
	cubic       = 0.044715
)

func (m *machine) clamp(x vec) vec { return m.max(m.value(-10), m.min(m.value(10), x)) }

// logisticOfGELU is 1/(1 + e^(−2u)) with u = √(2/π)·(x + 0.044715·x³).
func (m *machine) logisticOfGELU(x vec) vec {
	p := m.mul(m.add(m.mul(m.mul(x, x), m.constant(-2*root2OverPi*cubic)), m.constant(-2*root2OverPi)), x)
	return m.div(m.value(1), m.add(m.exp(p), m.constant(1)))
}

// normal is the normal distribution function.
func (m *machine) normal(x vec) vec {
	c := m.constant
	z := m.mul(m.and(x, constants.bits(0x7fffffff)), c(0.70710678118654752))
	t := m.div(m.value(1), m.add(m.mul(z, c(0.5)), c(1)))
	p := m.mul(t, c(0.17087277))
	for _, k := range []float32{-0.82215223, 1.48851587, -1.13520398, 0.27886807, -0.18628806, 0.09678418, 0.37409196, 1.00002368} {
		p = m.mul(m.add(p, c(k)), t)
	}
	p = m.add(p, c(-1.26551223))
	tail := m.mul(m.mul(t, c(0.5)), m.exp(m.sub(p, m.mul(z, z))))
	return m.where(x, less, c(0), tail, m.sub(m.value(1), tail))
}

func activations(wide bool) {
	function(wide, "geluTanh", "sets y to the tanh form of GELU at x", []string{"y", "x"}, ")", nil, func(m *machine, half int) {
		x := m.load("x", half)
		m.store(m.mul(m.logisticOfGELU(m.clamp(x)), x), "y", half)
	}, nil)
	function(wide, "geluTanhGrad", "sets dx to dy times the derivative of the tanh form of GELU at x", []string{"dx", "dy", "x"}, ")", nil, func(m *machine, half int) {
		c := m.clamp(m.load("x", half))
		s := m.logisticOfGELU(c)
		slope := m.add(m.mul(m.mul(c, c), m.constant(2*3*root2OverPi*cubic)), m.constant(2*root2OverPi))
		slope = m.mul(m.sub(m.value(1), s), slope)
		m.store(m.mul(m.add(s, m.mul(m.mul(c, s), slope)), m.load("dy", half)), "dx", half)
	}, nil)
	function(wide, "geluErf", "sets y to GELU at x", []string{"y", "x"}, ")", nil, func(m *machine, half int) {
		x := m.load("x", half)
		m.store(m.mul(m.normal(m.clamp(x)), x), "y", half)
	}, nil)
	function(wide, "geluErfGrad", "sets dx to dy times the derivative of GELU at x", []string{"dx", "dy", "x"}, ")", nil, func(m *machine, half int) {
		c := m.clamp(m.load("x", half))
		density := m.mul(m.mul(c, m.constant(0.39894228040143268)), m.exp(m.mul(m.mul(c, m.constant(-0.5)), c)))
		m.store(m.mul(m.add(m.normal(c), density), m.load("dy", half)), "dx", half)
	}, nil)
	function(wide, "relu", "sets y = max(x, 0)", []string{"y", "x"}, ")", nil, func(m *machine, half int) {
		zero := m.zero()
		// Adding zero turns the −0 that the maximum passes on into +0.
		m.store(m.add(m.max(zero, m.load("x", half)), zero), "y", half)
	}, nil)
	function(wide, "reluGrad", "sets dx = dy where x > 0, else 0", []string{"dx", "dy", "x"}, ")", nil, func(m *machine, half int) {
		m.store(m.where(m.load("x", half), greater, m.constant(0), m.load("dy", half), m.zero()), "dx", half)
	}, nil)
}

func adamW(wide bool) {
	var multiplier, beta1, rest1, beta2, rest2, decay, rate, root, epsilon vec
	function(wide, "adamW", "updates param, m, v with the numbers of adamWNumbers", []string{"param", "m", "v", "grad"}, ", numbers *float32)",
		func(m *machine) {
			base := Load(Param("numbers"), GP64()).(reg.GPVirtual)
			for i, v := range []*vec{&multiplier, &beta1, &rest1, &beta2, &rest2, &decay, &rate, &root, &epsilon} {
				*v = m.element(base, i)
			}
		},
		func(m *machine, half int) {
			g := m.mul(m.load("grad", half), multiplier)
			mi := m.add(m.mul(m.load("m", half), beta1), m.mul(g, rest1))
			vi := m.add(m.mul(m.load("v", half), beta2), m.mul(m.mul(g, g), rest2))
			m.store(mi, "m", half)
			m.store(vi, "v", half)
			p := m.load("param", half)
			step := m.div(m.mul(mi, rate), m.add(m.div(m.sqrt(vi), root), epsilon))
			m.store(m.sub(m.sub(p, m.mul(p, decay)), step), "param", half)
		}, nil)
}
