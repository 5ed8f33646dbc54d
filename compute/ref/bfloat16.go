package ref

import "math"

// BFloat16 rounds x to the nearest bfloat16, ties to even mantissas; infinities and NaNs stay what they are. A float64 is
// rounded to float32 first, as values that live in float32 memory are.
func BFloat16[T Float](x T) T {
	bits := math.Float32bits(float32(x))
	if bits&0x7f800000 == 0x7f800000 {
		if bits&0x007fffff != 0 {
			bits |= 0x00400000 // so that the upper half is a NaN too
		}
		return T(math.Float32frombits(bits &^ 0xffff))
	}
	bits += 0x7fff + bits>>16&1
	return T(math.Float32frombits(bits &^ 0xffff))
}

// rounding returns what a matrix product does to the elements of its operands.
func rounding(bf16 bool) func(float64) float64 {
	if bf16 {
		return BFloat16[float64]
	}
	return func(x float64) float64 { return x }
}

// operandsOf returns x as a matrix product sees it: a rounded copy, or x itself.
func operandsOf[T Float](x []T, bf16 bool) []T {
	if !bf16 {
		return x
	}
	y := make([]T, len(x))
	for i, v := range x {
		y[i] = BFloat16(v)
	}
	return y
}
