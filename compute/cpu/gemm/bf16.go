package gemm

import (
	"math"
	"unsafe"
)

// toBF16 rounds x to the nearest bf16, ties to even. Subnormal numbers become zeros of their sign and NaNs quiet, as in the
// instruction VCVTNE2PS2BF16.
func toBF16(x float32) uint16 {
	bits := math.Float32bits(x)
	switch magnitude := bits &^ (1 << 31); {
	case magnitude > 0x7f800000:
		return uint16(bits>>16) | 1<<6
	case magnitude < 0x00800000:
		return uint16(bits>>16) & (1 << 15)
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

func fromBF16(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

// roundBF16 replaces every element by the nearest bf16.
func roundBF16(x []float32) {
	for i, v := range x {
		x[i] = fromBF16(toBF16(v))
	}
}

// halves is the memory of words as pairs of bf16. Of a pair [2]uint16 the second is the one that comes first in K: it stands
// in the upper half of a little-endian word.
func halves(words []float32) []uint16 {
	if len(words) == 0 {
		return nil
	}
	return unsafe.Slice((*uint16)(unsafe.Pointer(&words[0])), 2*len(words))
}

// transposeBF16Generic is kernel.transpose for bf16.
func transposeBF16Generic(dst, src []float32, ld, rows, n, width int) {
	out := halves(dst)
	for r := range rows {
		row := src[r*ld:][:n]
		for x := 0; x < n; x += 2 {
			word := out[2*(x/2*width+r):][:2]
			word[0], word[1] = 0, toBF16(row[x])
			if x+1 < n {
				word[0] = toBF16(row[x+1])
			}
		}
	}
}

// copyRowsBF16Generic is kernel.copyRows for bf16.
func copyRowsBF16Generic(dst, src []float32, ld, n, cols, width int) {
	out := halves(dst)
	for x := 0; x < n; x += 2 {
		words := out[x*width:][:2*cols]
		for c, v := range src[x*ld:][:cols] {
			words[2*c], words[2*c+1] = 0, toBF16(v)
		}
		if x+1 < n {
			for c, v := range src[(x+1)*ld:][:cols] {
				words[2*c] = toBF16(v)
			}
		}
	}
}
