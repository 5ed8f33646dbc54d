package attend

import (
	"math"
	"unsafe"
)

var genericRows = rowKernels{transpose: transposeGeneric, round: roundGeneric, interleave: interleaveGeneric, widen: widenGeneric, merge: mergeGeneric}

// genericKernels are the portable forms. The portable tiles are four rows by eight columns.
func genericKernels() *kernels {
	k := &kernels{level: "generic", rows: genericRows}
	k.floats = genericTiles(func(s *[8]float32, a float32, b []float32) {
		// The conversion keeps compilers from fusing, which would make the bits depend on the machine.
		for j := range s {
			s[j] += float32(a * b[j])
		}
	})
	k.pairs = genericTiles(func(s *[8]float32, a uint32, b []uint32) {
		upper, lower := math.Float32frombits(a&^0xffff), math.Float32frombits(a<<16)
		for j := range s {
			v := s[j] + float32(upper*math.Float32frombits(b[j]&^0xffff))
			s[j] = v + float32(lower*math.Float32frombits(b[j]<<16))
		}
	})
	return k
}

func genericTiles[W word](step func(s *[8]float32, a W, b []W)) tiles[W] {
	const rows, width = 8, 8
	tile := func(rows, across, along int) func(kc int, a *W, b *W, c *float32, ldc, add int) {
		return func(kc int, a *W, b *W, c *float32, ldc, add int) {
			as := unsafe.Slice(a, (rows-1)*across+(kc-1)*along+1)
			bs := unsafe.Slice(b, (kc-1)*Panel+width)
			cs := unsafe.Slice(c, (rows-1)*ldc+width)
			for i := range rows {
				var s [width]float32
				row := cs[i*ldc:][:width]
				if add != 0 {
					copy(s[:], row)
				}
				for k := range kc {
					step(&s, as[i*across+k*along], bs[k*Panel:][:width:width])
				}
				copy(row, s[:])
			}
		}
	}
	t := tiles[W]{width: width, row: make([]tileFunc[W], rows)}
	for r := range rows {
		t.row[r] = func(kc int, a *W, lda int, b *W, c *float32, ldc, add int) { tile(r+1, lda, 1)(kc, a, b, c, ldc, add) }
	}
	t.down = func(kc int, a *W, lda int, b *W, c *float32, ldc, add int) { tile(rows, 1, lda)(kc, a, b, c, ldc, add) }
	return t
}

// bfloat rounds x to bfloat16, in the upper half.
func bfloat(x float32) uint32 {
	b := math.Float32bits(x)
	switch {
	case b&0x7f800000 == 0:
		return b & 0x80000000
	case b&0x7fffffff > 0x7f800000:
		return (b | 0x00400000) &^ 0xffff // quiet
	}
	return (b + 0x7fff + b>>16&1) &^ 0xffff
}

func transposeGeneric(dst, src []uint32, ld, rows, n int) {
	for r := range rows {
		for x, v := range src[r*ld:][:n] {
			dst[x*Panel+r] = v
		}
	}
}

func roundGeneric(dst []uint32, src []float32) {
	for i := range dst[:(len(src)+1)/2] {
		w := bfloat(src[2*i]) >> 16
		if 2*i+1 < len(src) {
			w |= bfloat(src[2*i+1])
		}
		dst[i] = w
	}
}

func interleaveGeneric(dst []uint32, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = bfloat(a[i])>>16 | bfloat(b[i])
	}
}

func widenGeneric(dst []uint32, src []int8) {
	for i := range dst[:len(src)/2] {
		dst[i] = math.Float32bits(float32(src[2*i]))>>16 | math.Float32bits(float32(src[2*i+1]))
	}
}

func mergeGeneric(y, x []float32, a, b float32) {
	x = x[:len(y)]
	for i := range y {
		y[i] = float32(a*y[i]) + float32(b*x[i])
	}
}
