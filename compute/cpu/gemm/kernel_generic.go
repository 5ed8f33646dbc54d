package gemm

import "unsafe"

// The portable kernel computes two rows by four columns at a time in registers.
const genericMR, genericNR = 4, 8

func genericKernel() *kernel {
	k := &kernel{level: "generic", unit: 1, mr: genericMR, nr: genericNR, width: genericNR, aWords: 1,
		transpose: transposeGeneric, copyRows: copyRowsGeneric}
	k.bf16 = spreadKernel(k)
	for r := 1; r <= genericMR; r++ {
		k.tile[r] = genericTile(r, 1, dot2x4)
		k.bf16.tile[r] = genericTile(r, 2, dot2x4BF16)
	}
	return k
}

// spreadKernel is a kernel for products of bf16, but for its tiles, with the sizes of a float32 one, which packs its A.
func spreadKernel(k *kernel) *kernel {
	return &kernel{level: k.level, unit: 2, mr: k.mr, nr: k.nr, width: panelBF16, aWords: 2, float32s: k,
		transpose: transposeBF16Generic, copyRows: copyRowsBF16Generic, lines: k.lines}
}

// dotFunc returns the sums of rows i, i+1 and columns j … j+3 of a tile. In a tile of an odd number of rows the last stands for
// both.
type dotFunc func(kc int, a, b []float32, rows, ldb, i, j int) [2][4]float32

func genericTile(rows, aWords int, dot dotFunc) tileFunc {
	return func(kc int, a, b *float32, ldb int, c *float32, ldc int, init *float32, ldinit, n int, _ *walk, alpha float32) {
		as := unsafe.Slice(a, kc*rows*aWords)
		bs := unsafe.Slice(b, (kc-1)*ldb+genericNR)
		cs := unsafe.Slice(c, (rows-1)*ldc+n)
		var is []float32
		if init != nil {
			is = unsafe.Slice(init, (rows-1)*ldinit+n)
		}
		for j := 0; j < n; j += 4 {
			for i := 0; i < rows; i += 2 {
				sum := dot(kc, as, bs, rows, ldb, i, j)
				for ii := i; ii < min(i+2, rows); ii++ {
					for jj := j; jj < min(j+4, n); jj++ {
						v := float32(alpha * sum[ii-i][jj-j])
						if is != nil {
							v += is[ii*ldinit+jj]
						}
						cs[ii*ldc+jj] = v
					}
				}
			}
		}
	}
}

// dot2x4 is dotFunc for float32. The conversions keep compilers from fusing multiplication and addition, which would make the bits depend on the machine.
func dot2x4(kc int, a, b []float32, rows, ldb, i, j int) [2][4]float32 {
	i1 := min(i+1, rows-1)
	var s00, s01, s02, s03, s10, s11, s12, s13 float32
	for x := range kc {
		a0, a1 := a[x*rows+i], a[x*rows+i1]
		r := b[x*ldb+j:][:4:4]
		s00 += float32(a0 * r[0])
		s01 += float32(a0 * r[1])
		s02 += float32(a0 * r[2])
		s03 += float32(a0 * r[3])
		s10 += float32(a1 * r[0])
		s11 += float32(a1 * r[1])
		s12 += float32(a1 * r[2])
		s13 += float32(a1 * r[3])
	}
	return [2][4]float32{{s00, s01, s02, s03}, {s10, s11, s12, s13}}
}

// dot2x4BF16 is dotFunc for A of float32 and B of pairs of bf16. Their products are exact.
func dot2x4BF16(kc int, a, b []float32, rows, ldb, i, j int) (sum [2][4]float32) {
	i1 := min(i+1, rows-1)
	words := halves(b)
	for x := range kc {
		pair := words[2*(x*ldb+j):][:8:8]
		for first := range 2 {
			row := a[(2*x+first)*rows:][:rows]
			for c := range 4 {
				v := fromBF16(pair[2*c+1-first])
				sum[0][c] += float32(row[i] * v)
				sum[1][c] += float32(row[i1] * v)
			}
		}
	}
	return sum
}

func transposeGeneric(dst, src []float32, ld, rows, n, width int) {
	for r := range rows {
		row := src[r*ld:][:n]
		for x, v := range row {
			dst[x*width+r] = v
		}
	}
}

func copyRowsGeneric(dst, src []float32, ld, n, cols, width int) {
	for x := range n {
		copy(dst[x*width:][:cols], src[x*ld:])
	}
}
