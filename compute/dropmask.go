package compute

import (
	"math"

	"autodev/internal/rng"
)

// DropThreshold returns the 32-bit threshold below which an element is dropped with probability p.
func DropThreshold(p float64) uint32 {
	return uint32(math.Min(math.Round(p*(1<<32)), math.MaxUint32))
}

// DropWords returns the four random words of elements 4·block to 4·block+3 at call site salt: element i is dropped when its
// word is below DropThreshold. An attention probability's element index is ((batch·Heads + head)·Seq + t)·Seq + u.
func DropWords(key [2]int32, salt uint32, block uint64) [4]uint32 {
	return rng.Philox(rng.Key{uint32(key[0]), uint32(key[1])}, rng.Counter{uint32(block), uint32(block >> 32), salt, 0})
}
