package gemm

// kernel is a set of functions for one instruction set.
type kernel struct {
	level  string
	mr, nr int
	// tile[r], 1 ≤ r ≤ mr, computes r rows and n ≤ nr columns of C over kc of K:
	//
	//	c[i·ldc+j] = init[i·ldinit+j] + alpha·Σ_k a[k·r+i]·b[k·ldb+j]
	//
	// without the first term when init is nil. Strides are in elements. nr columns of b are read whatever n is; of init and c
	// only what is named is touched.
	tile [maxMR + 1]tileFunc
	// transpose writes dst[x·width+r] = src[r·ld+x] for x < n and r < rows, and leaves the rest of dst alone.
	transpose func(dst, src []float32, ld, rows, n, width int)
	// copyRows writes dst[x·width+c] = src[x·ld+c] for x < n, n at least 1, and c < cols, and leaves the rest of dst alone.
	copyRows func(dst, src []float32, ld, n, cols, width int)
}

type tileFunc func(kc int, a, b *float32, ldb int, c *float32, ldc int, init *float32, ldinit, n int, alpha float32)

const maxMR = 14

// Level names the instruction set that Mul uses here: "avx512", "avx2" or "generic".
func Level() string { return best().level }

func best() *kernel { return kernels()[0] }

// packTile packs rows row … row+rows-1 and columns k0 … k0+kc-1 of a: dst[x·rows+r] = a[row+r, k0+x].
func (k *kernel) packTile(dst []float32, a Mat, row, rows, k0, kc int) {
	if a.T {
		k.copyRows(dst, a.Data[k0*a.Stride+row:], a.Stride, kc, rows, rows)
		return
	}
	k.transpose(dst, a.Data[row*a.Stride+k0:], a.Stride, rows, kc, rows)
}

// packPanel packs rows k0 … k0+kc-1 and columns col … of b: dst[x·nr+c] = b[k0+x, col+c], 0 beyond the last column.
func (k *kernel) packPanel(dst []float32, b Mat, k0, kc, col int) {
	cols := min(k.nr, b.Cols-col)
	if cols < k.nr {
		clear(dst[:kc*k.nr])
	}
	if b.T {
		k.transpose(dst, b.Data[col*b.Stride+k0:], b.Stride, cols, kc, k.nr)
		return
	}
	k.copyRows(dst, b.Data[k0*b.Stride+col:], b.Stride, kc, cols, k.nr)
}
