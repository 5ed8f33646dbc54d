package numpyrng

import "math/bits"

// Python is Python's random.Random as far as shuffle needs it (Python 3.2 to 3.13).
type Python struct{ mt mt19937 }

// NewPython is random.Random(seed) for a seed that is not negative.
func NewPython(seed uint64) *Python {
	key := []uint32{uint32(seed)}
	if seed>>32 != 0 {
		key = append(key, uint32(seed>>32))
	}
	p := &Python{}
	p.mt.seedArray(key)
	return p
}

// below is _randbelow_with_getrandbits: a number in [0, n), 1 ≤ n < 2^32.
func (p *Python) below(n int) int {
	shift := 32 - bits.Len32(uint32(n))
	for {
		if v := int(p.mt.uint32() >> shift); v < n {
			return v
		}
	}
}

// Shuffle is random.shuffle of a list of n elements.
func (p *Python) Shuffle(n int, swap func(i, j int)) {
	for i := n - 1; i > 0; i-- {
		swap(i, p.below(i+1))
	}
}

// MarshalBinary returns the generator's whole state.
func (p *Python) MarshalBinary() ([]byte, error) { return p.mt.marshal(), nil }

// UnmarshalBinary restores a state of MarshalBinary.
func (p *Python) UnmarshalBinary(b []byte) error { return p.mt.unmarshal(b) }
