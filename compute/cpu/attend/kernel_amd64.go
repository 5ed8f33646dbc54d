//go:build !noasm

package attend

import (
	"math"

	"golang.org/x/sys/cpu"
)

// levels returns what this machine can run, best first.
func levels() []*kernels {
	ks := []*kernels{genericKernels()}
	x := &cpu.X86
	if !x.HasAVX2 || !x.HasFMA {
		return ks
	}
	floats2 := tiles[float32]{16, []tileFunc[float32]{tileFloats2x1, tileFloats2x2, tileFloats2x3, tileFloats2x4}, downFloats2}
	pairs2 := tiles[uint32]{16, []tileFunc[uint32]{tilePairs2x1, tilePairs2x2, tilePairs2x3, tilePairs2x4}, downPairs2}
	ks = append([]*kernels{{"avx2", floats2, pairs2, genericRows}}, ks...)
	if !x.HasAVX512F || !x.HasAVX512BW || !x.HasAVX512DQ || !x.HasAVX512VL {
		return ks
	}
	floats512 := tiles[float32]{32, []tileFunc[float32]{tileFloats512x1, tileFloats512x2, tileFloats512x3, tileFloats512x4,
		tileFloats512x5, tileFloats512x6, tileFloats512x7, tileFloats512x8}, downFloats512}
	rows := genericRows
	rows.transpose, rows.merge = transposeWide, mergeWide
	ks = append([]*kernels{{"avx512", floats512, pairs2, rows}}, ks...)
	if !x.HasAVX512BF16 {
		return ks
	}
	pairs512 := tiles[uint32]{32, []tileFunc[uint32]{tilePairs512x1, tilePairs512x2, tilePairs512x3, tilePairs512x4,
		tilePairs512x5, tilePairs512x6, tilePairs512x7, tilePairs512x8}, downPairs512}
	rows.round, rows.interleave, rows.exponentials = roundWide, interleaveWide, exponentialsWide
	if x.HasAVX512VBMI {
		rows.widen = widenWide
	}
	return append([]*kernels{{"avx512bf16", floats512, pairs512, rows}}, ks...)
}

// The functions below hand what is a multiple of the assembly's steps to it and the rest to the portable forms.

func transposeWide(dst, src []uint32, ld, rows, n int) {
	r, whole := 0, n&^3
	for ; r+16 <= rows && whole > 0; r += 16 {
		_, _ = src[(r+15)*ld+n-1], dst[(whole-1)*Panel+r+15]
		transpose512(whole, &src[r*ld], ld, &dst[r])
		if whole < n {
			transposeGeneric(dst[whole*Panel+r:], src[r*ld+whole:], ld, 16, n-whole)
		}
	}
	if r < rows {
		transposeGeneric(dst[r:], src[r*ld:], ld, rows-r, n)
	}
}

func roundWide(dst []uint32, src []float32) {
	n := len(src) &^ 15
	dst = dst[:(len(src)+1)/2]
	if n > 0 {
		round512(n, &dst[0], &src[0])
	}
	if n < len(src) {
		roundGeneric(dst[n/2:], src[n:])
	}
}

func interleaveWide(dst []uint32, a, b []float32) {
	n := len(dst) &^ 15
	a, b = a[:len(dst)], b[:len(dst)]
	if n > 0 {
		interleave512(n, &dst[0], &a[0], &b[0])
	}
	interleaveGeneric(dst[n:], a[n:], b[n:])
}

func widenWide(dst []uint32, src []int8) {
	n := len(src) &^ 63
	dst = dst[:len(src)/2]
	if n > 0 {
		widen512(n, &dst[0], &src[0])
	}
	widenGeneric(dst[n/2:], src[n:])
}

func mergeWide(y, x []float32, a, b float32) {
	n := len(y) &^ 15
	x = x[:len(y)]
	if n > 0 {
		merge512(n, &y[0], &x[0], a, b)
	}
	mergeGeneric(y[n:], x[n:], a, b)
}

func exponentialsWide(pairs []uint32, s, columns []float32, scale, largest float32) float32 {
	if len(s) == 0 {
		return 0
	}
	pairs = pairs[:len(s)/2]
	var at *float32
	if columns != nil {
		at = &columns[:len(s)][0]
	}
	return exponentials512(len(s), &pairs[0], &s[0], at, scale*math.Log2E, largest)
}
