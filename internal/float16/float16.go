// Package float16 converts between float32 and the bits of IEEE 754 binary16 numbers.
package float16

import "math"

// Max is the largest finite number.
const Max = 65504

// From widens a number; exact.
func From(h uint16) float32 {
	b := uint32(h&0x7fff)<<13 + 0x38000000 // exponent bias 15 -> 127
	switch h & 0x7c00 {
	case 0x7c00:
		b += 0x38000000 // infinity and NaN have the largest exponent in both
	case 0:
		// Zero and subnormal numbers are h·2^-24: with an exponent in front they are 2^-14 too large.
		b = math.Float32bits(math.Float32frombits(b+0x800000) - 0x1p-14)
	}
	return math.Float32frombits(b | uint32(h&0x8000)<<16)
}

// To rounds to the nearest number, ties to even. Numbers of 65520 and more become infinite; the payload of a NaN keeps its upper bits.
func To(f float32) uint16 {
	b := math.Float32bits(f)
	sign := uint16(b >> 16 & 0x8000)
	b &= 0x7fffffff
	switch {
	case b > 0x7f800000:
		m := uint16(b >> 13 & 0x3ff)
		if m == 0 {
			m = 0x200
		}
		return sign | 0x7c00 | m
	case b >= 0x47800000: // 65536 and up
		return sign | 0x7c00
	case b < 0x38800000: // below 2^-14: adding 0.5 leaves multiples of 2^-24, rounded to even by the addition itself
		return sign | uint16(math.Float32bits(math.Float32frombits(b)+0.5)-0x3f000000)
	}
	b += 0xc8000000 // exponent bias 127 -> 15
	b += 0xfff + b>>13&1
	return sign | uint16(b>>13)
}
