package numpyrng

import "math"

// RandomState is numpy.random.RandomState, the legacy generator.
type RandomState struct{ mt mt19937 }

// NewRandomState is numpy.random.RandomState(seed).
func NewRandomState(seed uint32) *RandomState {
	r := &RandomState{}
	r.mt.seedInt(seed)
	return r
}

// Uint32 returns the next raw word.
func (r *RandomState) Uint32() uint32 { return r.mt.uint32() }

// RandomSample returns the next number in [0, 1).
func (r *RandomState) RandomSample() float64 { return r.mt.double() }

// Bernoulli is binomial(1, p): 0 or 1. Like numpy it consumes one double whatever p is, also for 0 and 1. p outside
// [0, 1] counts as the nearer end.
func (r *RandomState) Bernoulli(p float64) int {
	p = min(max(p, 0), 1)
	if p <= 0.5 {
		return r.binomialInversion(p)
	}
	return 1 - r.binomialInversion(1-p)
}

// binomialInversion is numpy's legacy random_binomial_inversion for n = 1 and p ≤ 0.5.
func (r *RandomState) binomialInversion(p float64) int {
	q := 1 - p
	qn := math.Exp(math.Log(q))
	bound := int(min(1, p+10*math.Sqrt(p*q+1)))
	x, px, u := 0, qn, r.mt.double()
	for u > px {
		x++
		if x > bound {
			x, px, u = 0, qn, r.mt.double()
			continue
		}
		u -= px
		px = (float64(1-x+1) * p * px) / (float64(x) * q)
	}
	return x
}

// Randint is randint(0, high): a number in [0, high). High must be at least 1 and at most 2^32; for 1 nothing is drawn.
func (r *RandomState) Randint(high int) int {
	limit := uint32(high - 1)
	if limit == 0 {
		return 0
	}
	mask := fill(limit)
	for {
		if v := r.mt.uint32() & mask; v <= limit {
			return int(v)
		}
	}
}

// fill returns the smallest 2^k - 1 that is at least x.
func fill(x uint32) uint32 {
	x |= x >> 1
	x |= x >> 2
	x |= x >> 4
	x |= x >> 8
	return x | x>>16
}
