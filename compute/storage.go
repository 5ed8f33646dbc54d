package compute

import (
	"fmt"
	"math"

	"autodev/internal/float16"
)

// Role says what a float of a plan is, which decides the type it is kept in.
type Role uint8

const (
	// Parameter is a weight as kernels read it.
	Parameter Role = iota + 1
	// Flow is what flows through a model, forwards or, as its gradient, backwards.
	Flow
	// Exact is everything that is summed over many steps or tokens: gradients of parameters, the optimiser's moments and
	// masters, losses, the scalars that a caller writes.
	Exact
)

// Storage is the policy that gives every float of a plan the type it is kept in. Sums are float32 or wider with any.
type Storage struct {
	Float DType // exact values; the type of all floats if Short is 0
	Short DType // parameters and activations, if shorter than the exact values
}

// Uniform keeps all floats in one type: F32, which is what the CPU's kernels work on, or F64.
func Uniform(d DType) Storage { return Storage{Float: d} }

// Mixed keeps parameters and activations in the shorter type d (BF16 or F16) and everything else in float32. A trained parameter is kept
// twice then: the float32 master, which the optimiser moves, and the rounded copy of it, which kernels read (Micikevicius et al.
// 2018).
func Mixed(d DType) Storage { return Storage{Float: F32, Short: d} }

// Of returns the type for values of a role.
func (s Storage) Of(r Role) DType {
	if s.Short != 0 && r != Exact {
		return s.Short
	}
	return s.Float
}

// Masters reports whether trained parameters are kept a second time, in Of(Exact).
func (s Storage) Masters() bool { return s.Short != 0 }

// Check reports types that no plan can have.
func (s Storage) Check() error {
	if s.Float != F32 && (s.Float != F64 || s.Short != 0) {
		return fmt.Errorf("floats kept as %v, expected %v, or %v without a shorter type", s, F32, F64)
	}
	if s.Short != 0 && !s.Short.Short() {
		return fmt.Errorf("parameters and activations kept as %v, expected %v or %v", s.Short, BF16, F16)
	}
	return nil
}

func (s Storage) String() string {
	if s.Short == 0 {
		return s.Float.String()
	}
	return fmt.Sprintf("%v with %v", s.Short, s.Float)
}

// ToShort returns the bits of src rounded to the short type d, to the nearest and ties to even; NaN stays NaN, and what F16 cannot hold
// becomes infinite (CheckF16).
func ToShort(d DType, src []float32) []uint16 {
	dst := make([]uint16, len(src))
	if d == F16 {
		for i, x := range src {
			dst[i] = float16.To(x)
		}
		return dst
	}
	for i, x := range src {
		b := math.Float32bits(x)
		if x != x {
			dst[i] = uint16(b>>16) | 0x40 // quiet, so that dropping bits cannot make it infinite
			continue
		}
		dst[i] = uint16((b + 0x7fff + b>>16&1) >> 16)
	}
	return dst
}

// FromShort returns the numbers of the short type d whose bits are given.
func FromShort(d DType, src []uint16) []float32 {
	dst := make([]float32, len(src))
	for i, b := range src {
		if d == F16 {
			dst[i] = float16.From(b)
		} else {
			dst[i] = math.Float32frombits(uint32(b) << 16)
		}
	}
	return dst
}

// CheckF16 reports the first finite number that F16 cannot hold.
func CheckF16(src []float32) error {
	for i, x := range src {
		if a := math.Abs(float64(x)); a >= float16.Max+16 && !math.IsInf(a, 0) { // half a unit beyond the largest
			return fmt.Errorf("element %d is %v, float16 holds numbers up to %d: bfloat16 and float32 hold it", i, x, float16.Max)
		}
	}
	return nil
}
