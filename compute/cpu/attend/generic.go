package attend

import (
	"math"
	"unsafe"

	"autodev/compute/cpu/vec"
)

var genericRows = rowKernels{transpose: transposeGeneric, round: roundGeneric, interleave: interleaveGeneric, widen: widenGeneric, merge: mergeGeneric, exponentials: exponentialsGeneric}

// genericKernels are the portable forms.
func genericKernels() *kernels {
	return &kernels{level: "generic", floats: genericTiles(floats2x4), pairs: genericTiles(pairs2x4), rows: genericRows}
}

// genericTiles makes tiles of eight rows and four columns of f, which adds to s the products of two rows of A, a0 and a1 on with
// their words along apart, and four columns of b.
func genericTiles[W word](f func(kc int, a []W, a0, a1, along int, b []W, s *[2][4]float32)) tiles[W] {
	const rows, width = 8, 4
	tile := func(rows, across, along, kc int, a, b *W, c *float32, ldc, add int) {
		as := unsafe.Slice(a, (rows-1)*across+(kc-1)*along+1)
		bs := unsafe.Slice(b, (kc-1)*Panel+width)
		cs := unsafe.Slice(c, (rows-1)*ldc+width)
		for i := 0; i < rows; i += 2 {
			// In a tile of an odd number of rows the last stands for both.
			i1 := min(i+1, rows-1)
			var s [2][4]float32
			if add != 0 {
				copy(s[0][:], cs[i*ldc:])
				copy(s[1][:], cs[i1*ldc:])
			}
			f(kc, as, i*across, i1*across, along, bs, &s)
			copy(cs[i*ldc:][:width], s[0][:])
			copy(cs[i1*ldc:][:width], s[1][:])
		}
	}
	t := tiles[W]{width: width, row: make([]tileFunc[W], rows)}
	for r := range rows {
		t.row[r] = func(kc int, a *W, lda int, b *W, c *float32, ldc, add int) { tile(r+1, lda, 1, kc, a, b, c, ldc, add) }
	}
	t.down = func(kc int, a *W, lda int, b *W, c *float32, ldc, add int) { tile(rows, 1, lda, kc, a, b, c, ldc, add) }
	return t
}

// The conversions keep compilers from fusing multiplication and addition, which would make the bits depend on the machine.

func floats2x4(kc int, a []float32, a0, a1, along int, b []float32, s *[2][4]float32) {
	s00, s01, s02, s03 := s[0][0], s[0][1], s[0][2], s[0][3]
	s10, s11, s12, s13 := s[1][0], s[1][1], s[1][2], s[1][3]
	for k := range kc {
		x, y, r := a[a0], a[a1], b[k*Panel:][:4:4]
		s00 += float32(x * r[0])
		s01 += float32(x * r[1])
		s02 += float32(x * r[2])
		s03 += float32(x * r[3])
		s10 += float32(y * r[0])
		s11 += float32(y * r[1])
		s12 += float32(y * r[2])
		s13 += float32(y * r[3])
		a0, a1 = a0+along, a1+along
	}
	*s = [2][4]float32{{s00, s01, s02, s03}, {s10, s11, s12, s13}}
}

// lowerHalf and upperHalf are the numbers of a pair.
func lowerHalf(w uint32) float32 { return math.Float32frombits(w << 16) }
func upperHalf(w uint32) float32 { return math.Float32frombits(w &^ 0xffff) }

func pairs2x4(kc int, a []uint32, a0, a1, along int, b []uint32, s *[2][4]float32) {
	s00, s01, s02, s03 := s[0][0], s[0][1], s[0][2], s[0][3]
	s10, s11, s12, s13 := s[1][0], s[1][1], s[1][2], s[1][3]
	for k := range kc {
		r := b[k*Panel:][:4:4]
		x, y := upperHalf(a[a0]), upperHalf(a[a1])
		b0, b1, b2, b3 := upperHalf(r[0]), upperHalf(r[1]), upperHalf(r[2]), upperHalf(r[3])
		s00 += float32(x * b0)
		s01 += float32(x * b1)
		s02 += float32(x * b2)
		s03 += float32(x * b3)
		s10 += float32(y * b0)
		s11 += float32(y * b1)
		s12 += float32(y * b2)
		s13 += float32(y * b3)
		x, y = lowerHalf(a[a0]), lowerHalf(a[a1])
		b0, b1, b2, b3 = lowerHalf(r[0]), lowerHalf(r[1]), lowerHalf(r[2]), lowerHalf(r[3])
		s00 += float32(x * b0)
		s01 += float32(x * b1)
		s02 += float32(x * b2)
		s03 += float32(x * b3)
		s10 += float32(y * b0)
		s11 += float32(y * b1)
		s12 += float32(y * b2)
		s13 += float32(y * b3)
		a0, a1 = a0+along, a1+along
	}
	*s = [2][4]float32{{s00, s01, s02, s03}, {s10, s11, s12, s13}}
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

func exponentialsGeneric(pairs []uint32, s, columns []float32, scale, largest float32) float32 {
	vec.Scale(s, s, scale)
	sum := vec.ExpSum(s, scale*largest)
	if columns != nil {
		vec.Mul(s, s, columns)
	}
	roundGeneric(pairs, s)
	return sum
}
