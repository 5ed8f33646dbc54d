// Package rng is the project's source of random numbers: counter-based, so that every draw is a pure function of
// (seed, purpose, indexes) and never of what was drawn before, by whom, or on which thread.
//
// The generator is Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3; SC 2011),
// which a GPU kernel can reproduce bit for bit. The numpy-compatible generators of the original protocol live in
// data/numpyrng, not here.
package rng

import (
	"math/bits"
	"math/rand/v2"
)

// Key selects a stream.
type Key [2]uint32

// Counter is a position in a stream.
type Counter [4]uint32

// Philox returns the block of four random words at counter c of the stream k.
func Philox(k Key, c Counter) [4]uint32 {
	const m0, m1, w0, w1 = 0xD2511F53, 0xCD9E8D57, 0x9E3779B9, 0xBB67AE85
	for range 10 {
		h0, l0 := bits.Mul32(m0, c[0])
		h1, l1 := bits.Mul32(m1, c[2])
		c = Counter{h1 ^ c[1] ^ k[0], l1, h0 ^ c[3] ^ k[1], l0}
		k[0] += w0
		k[1] += w1
	}
	return c
}

// KeyOf derives the key of the stream that belongs to seed and purpose ("fim", "dropout", …). Distinct purposes give
// unrelated streams.
func KeyOf(seed uint64, purpose string) Key {
	h := mix(seed ^ 0x6175746f64657621)
	for _, b := range []byte(purpose) {
		h = mix(h ^ uint64(b))
	}
	return Key{uint32(h), uint32(h >> 32)}
}

// mix is the finaliser of SplitMix64.
func mix(x uint64) uint64 {
	x += 0x9E3779B97F4A7C15
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}

// New returns the generator of (seed, purpose, indexes): the same arguments always start the same sequence.
func New(seed uint64, purpose string, indexes ...uint64) *rand.Rand {
	return rand.New(NewSource(seed, purpose, indexes...))
}

// Source is a math/rand/v2 source over one Philox stream. It holds 2^32 blocks of two values.
type Source struct {
	key   Key
	ctr   Counter
	block [4]uint32
	left  int
}

// NewSource returns the source behind New.
func NewSource(seed uint64, purpose string, indexes ...uint64) *Source {
	k := KeyOf(seed, purpose)
	var sub uint64
	for _, i := range indexes {
		sub = mix(sub ^ mix(i))
	}
	return &Source{key: k, ctr: Counter{0, uint32(len(indexes)), uint32(sub), uint32(sub >> 32)}}
}

// Uint64 implements rand.Source.
func (s *Source) Uint64() uint64 {
	if s.left == 0 {
		s.block = Philox(s.key, s.ctr)
		s.ctr[0]++
		s.left = 2
	}
	i := 4 - 2*s.left
	s.left--
	return uint64(s.block[i]) | uint64(s.block[i+1])<<32
}
