package numpyrng

import "math/bits"

// Generator is numpy.random.default_rng: PCG64 (XSL-RR 128/64; O'Neill, PCG: A Family of Simple Fast Space-Efficient
// Statistically Good Algorithms, 2014) seeded through SeedSequence.
type Generator struct {
	hi, lo       uint64 // state
	incHi, incLo uint64
	half         uint32 // buffered high half of a 64-bit draw
	hasHalf      bool
}

const (
	pcgMulHi = 0x2360ED051FC65DA4
	pcgMulLo = 0x4385DF649FCCF645
)

// NewGenerator is numpy.random.default_rng(seed).
func NewGenerator(seed uint64) *Generator {
	var q [4]uint64
	words := seedSequence(seed, 8)
	for i := range q {
		q[i] = uint64(words[2*i]) | uint64(words[2*i+1])<<32
	}
	g := &Generator{incHi: q[2]<<1 | q[3]>>63, incLo: q[3]<<1 | 1}
	g.step()
	var c uint64
	g.lo, c = bits.Add64(g.lo, q[1], 0)
	g.hi, _ = bits.Add64(g.hi, q[0], c)
	g.step()
	return g
}

func (g *Generator) step() {
	hi, lo := bits.Mul64(g.lo, pcgMulLo)
	hi += g.hi*pcgMulLo + g.lo*pcgMulHi
	var c uint64
	g.lo, c = bits.Add64(lo, g.incLo, 0)
	g.hi, _ = bits.Add64(hi, g.incHi, c)
}

// Uint64 returns the next raw word.
func (g *Generator) Uint64() uint64 {
	g.step()
	return bits.RotateLeft64(g.hi^g.lo, -int(g.hi>>58))
}

// uint32 returns the low half of a new word, then its high half.
func (g *Generator) uint32() uint32 {
	if g.hasHalf {
		g.hasHalf = false
		return g.half
	}
	v := g.Uint64()
	g.half, g.hasHalf = uint32(v>>32), true
	return uint32(v)
}

// interval is numpy's random_interval: a number in [0, limit], by masked rejection.
func (g *Generator) interval(limit uint64) uint64 {
	switch {
	case limit == 0:
		return 0
	case limit <= 0xffffffff:
		mask := fill(uint32(limit))
		for {
			if v := g.uint32() & mask; uint64(v) <= limit {
				return uint64(v)
			}
		}
	default:
		mask := uint64(1)<<bits.Len64(limit) - 1
		for {
			if v := g.Uint64() & mask; v <= limit {
				return v
			}
		}
	}
}

// Permutation is permutation(n): 0 … n-1 in random order.
func (g *Generator) Permutation(n int) []int {
	p := make([]int, n)
	for i := range p {
		p[i] = i
	}
	g.Shuffle(n, func(i, j int) { p[i], p[j] = p[j], p[i] })
	return p
}

// Shuffle is shuffle of a sequence of n elements.
func (g *Generator) Shuffle(n int, swap func(i, j int)) {
	for i := n - 1; i > 0; i-- {
		swap(i, int(g.interval(uint64(i))))
	}
}

// Integers is integers(0, high, size=n): n numbers in [0, high), by Lemire's method (Fast Random Integer Generation in an
// Interval, 2019) on 32-bit draws. High must be at least 1 and at most 2^32.
func (g *Generator) Integers(high, n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = int(g.lemire(uint64(high)))
	}
	return out
}

func (g *Generator) lemire(high uint64) uint32 {
	switch high {
	case 1:
		return 0
	case 1 << 32:
		return g.uint32()
	}
	m := uint64(g.uint32()) * high
	if left := uint32(m); uint64(left) < high {
		threshold := uint32((1<<32 - high) % high)
		for left < threshold {
			m = uint64(g.uint32()) * high
			left = uint32(m)
		}
	}
	return uint32(m >> 32)
}

// seedSequence is SeedSequence(seed).generate_state(n): numpy/random/bit_generator.pyx.
func seedSequence(seed uint64, n int) []uint32 {
	const (
		initA, multA = 0x43b0d7e5, 0x931e8875
		initB, multB = 0x8b51f9dd, 0x58f38ded
		mixL, mixR   = 0xca01f9dd, 0x4973f715
	)
	a := uint32(initA)
	hash := func(x uint32) uint32 {
		x ^= a
		a *= multA
		x *= a
		return x ^ x>>16
	}
	// Short entropy is padded with zero words, so two words serve every 64-bit seed.
	pool := [4]uint32{uint32(seed), uint32(seed >> 32)}
	for i := range pool {
		pool[i] = hash(pool[i])
	}
	for s := range pool {
		for d := range pool {
			if s != d {
				r := mixL*pool[d] - mixR*hash(pool[s])
				pool[d] = r ^ r>>16
			}
		}
	}
	out := make([]uint32, n)
	b := uint32(initB)
	for i := range out {
		x := pool[i%len(pool)] ^ b
		b *= multB
		x *= b
		out[i] = x ^ x>>16
	}
	return out
}
