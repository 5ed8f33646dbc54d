package gemm

import "unsafe"

// The portable kernel computes two rows by four columns at a time in registers.
const genericMR, genericNR = 4, 8

func genericKernel() *kernel {
	k := &kernel{level: "generic", mr: genericMR, nr: genericNR, transpose: transposeGeneric, copyRows: copyRowsGeneric}
	for r := 1; r <= genericMR; r++ {
		k.tile[r] = genericTile(r)
	}
	return k
}

func genericTile(rows int) tileFunc {
	return func(kc int, a, b *float32, ldb int, c *float32, ldc int, init *float32, ldinit, n int, alpha float32) {
		as := unsafe.Slice(a, kc*rows)
		bs := unsafe.Slice(b, (kc-1)*ldb+genericNR)
		cs := unsafe.Slice(c, (rows-1)*ldc+n)
		var is []float32
		if init != nil {
			is = unsafe.Slice(init, (rows-1)*ldinit+n)
		}
		for j := 0; j < n; j += 4 {
			for i := 0; i < rows; i += 2 {
				sum := dot2x4(kc, as, bs, rows, ldb, i, j)
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

// dot2x4 returns the sums of rows i, i+1 and columns j … j+3. In a tile of an odd number of rows the last stands for both.
// The conversions keep compilers from fusing multiplication and addition, which would make the bits depend on the machine.
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
