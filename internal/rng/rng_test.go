package rng

import (
	"math"
	"testing"
)

// The vectors are Random123's kat_vectors for philox4x32 with 10 rounds.
func TestPhiloxKnownAnswers(t *testing.T) {
	for _, c := range []struct {
		ctr  Counter
		key  Key
		want [4]uint32
	}{
		{Counter{}, Key{}, [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{Counter{^uint32(0), ^uint32(0), ^uint32(0), ^uint32(0)}, Key{^uint32(0), ^uint32(0)}, [4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{Counter{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, Key{0xa4093822, 0x299f31d0}, [4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	} {
		if got := Philox(c.key, c.ctr); got != c.want {
			t.Errorf("Philox(%x, %x) = %x, expected %x", c.key, c.ctr, got, c.want)
		}
	}
}

func TestStreamsAreKeyedByEveryArgument(t *testing.T) {
	seen := map[uint64]string{}
	for name, s := range map[string]*Source{
		"base": NewSource(1, "fim", 2, 3), "seed": NewSource(2, "fim", 2, 3), "purpose": NewSource(1, "fin", 2, 3),
		"index": NewSource(1, "fim", 2, 4), "order": NewSource(1, "fim", 3, 2), "fewer": NewSource(1, "fim", 2), "none": NewSource(1, "fim"),
	} {
		v := s.Uint64()
		if other, ok := seen[v]; ok {
			t.Errorf("%s and %s start with the same value", name, other)
		}
		seen[v] = name
	}
	a, b := New(7, "x", 1), New(7, "x", 1)
	for i := range 100 {
		if x, y := a.Uint64(), b.Uint64(); x != y {
			t.Fatalf("draw %d differs: %x, %x", i, x, y)
		}
	}
}

func TestUniform(t *testing.T) {
	r := New(0, "uniform")
	const n = 1 << 16
	var sum, sq float64
	for range n {
		x := r.Float64()
		sum += x
		sq += x * x
	}
	if m := sum / n; math.Abs(m-.5) > .005 {
		t.Errorf("mean %v", m)
	}
	if v := sq/n - (sum/n)*(sum/n); math.Abs(v-1./12) > .002 {
		t.Errorf("variance %v", v)
	}
}
