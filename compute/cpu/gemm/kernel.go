package gemm

// kernel is a set of functions for one instruction set and one type of operands.
//
// A packed operand consists of words of 32 bits. A word holds one float32 or, for products of bf16, two elements that follow
// each other in K, the first in the upper half; unit is their number.
type kernel struct {
	level  string
	unit   int // 1 or 2
	mr, nr int // rows and columns of a tile
	width  int // columns of a packed panel of B, a multiple of nr
	aWords int // words of a packed tile of A for each of its rows and units: 2 if its bf16 are stored as float32, else 1
	// tile[r], 1 ≤ r ≤ mr, computes r rows and n ≤ nr columns of C over kc units of K:
	//
	//	c[i·ldc+j] = init[i·ldinit+j] + alpha·Σ_k a[k·r+i]·b[k·ldb+j]
	//
	// without the first term when init is nil. Strides are in words. nr columns of b are read whatever n is; of init and c
	// only what is named is touched. It takes a turn of soon for every four units.
	tile [maxMR + 1]tileFunc
	// stream[r], 1 ≤ r ≤ maxStream, if not nil, is tile[r] for panels that lie one after the other, all their columns, and K as a
	// whole, each panel's sums passing through C after every block units of K:
	//
	//	for each block: c[i·ldc+j] = init[i·ldinit+j] + alpha·Σ_k a[k·r+i]·b[k·width+j mod width], then init = c
	stream [maxStream + 1]streamFunc
	// transpose writes dst[x·width+r] = src[r·ld+x] for x < n and r < rows, and leaves the rest of dst alone. For bf16 the word
	// dst[x·width+r] holds src[r·ld+2x] and src[r·ld+2x+1] for 2x < n, 0 in place of what is beyond n.
	transpose func(dst, src []float32, ld, rows, n, width int)
	// copyRows writes dst[x·width+c] = src[x·ld+c] for x < n, n at least 1, and c < cols, and leaves the rest of dst alone. For
	// bf16 the word dst[x·width+c] holds src[2x·ld+c] and src[(2x+1)·ld+c] for 2x < n.
	copyRows func(dst, src []float32, ld, n, cols, width int)
	// copyPanels, if not nil, is copyRows for panels whole panels beside each other, of which each starts step words after the one
	// before in dst.
	copyPanels func(dst, src []float32, ld, n, panels, step int)
	lines      int     // cache lines that tile asks for in a turn of a walk
	bf16       *kernel // of a float32 kernel: that for products of bf16
	float32s   *kernel // of a bf16 kernel that stores A as float32: the one that packs it
}

type tileFunc func(kc int, a, b *float32, ldb int, c *float32, ldc int, init *float32, ldinit, n int, soon *walk, alpha float32)

type streamFunc func(panels, kc, block int, a, b, c *float32, ldc int, init *float32, ldinit int, alpha float32)

// walk is a way through rows of memory that are wanted soon. Tiles go it while they compute, kernel.lines cache lines a turn, and
// bring what they pass into the second-level cache. Any address will do. The elements are the next address, how many turns are left
// to the end of the row, at least 1, how many a row takes, and how many bytes from there on the next row begins.
type walk = [4]int

const maxMR, maxStream = 14, 4

// Level names the instruction set that Mul uses here: "avx512", "avx2" or "generic".
func Level() string { return best().level }

// LevelBF16 names the instruction set that products of bf16 use here: "avx512_bf16", or Level's where they are emulated.
func LevelBF16() string { return best().bf16.level }

func best() *kernel { return kernels()[0] }

// units is the number of words that n elements along K take.
func (k *kernel) units(n int) int { return ceilDiv(n, k.unit) }

// packTile packs rows row … row+rows-1 and columns k0 … k0+kc-1 of a: dst[x·rows+r] = a[row+r, k0+x].
func (k *kernel) packTile(dst []float32, a Mat, row, rows, k0, kc int) {
	switch {
	case k.float32s != nil:
		k.float32s.packTile(dst, a, row, rows, k0, kc)
		roundBF16(dst[:kc*rows])
		if kc%2 != 0 {
			clear(dst[kc*rows:][:rows])
		}
	case a.T:
		k.copyRows(dst, a.Data[k0*a.Stride+row:], a.Stride, kc, rows, rows)
	default:
		k.transpose(dst, a.Data[row*a.Stride+k0:], a.Stride, rows, kc, rows)
	}
}

// packPanel packs rows k0 … k0+kc-1 and columns col … of b: dst[x·width+c] = b[k0+x, col+c], 0 beyond the last column.
func (k *kernel) packPanel(dst []float32, b Mat, k0, kc, col int) {
	cols := min(k.width, b.Cols-col)
	if cols < k.width {
		clear(dst[:k.units(kc)*k.width])
	}
	if b.T {
		k.transpose(dst, b.Data[col*b.Stride+k0:], b.Stride, cols, kc, k.width)
		return
	}
	k.copyRows(dst, b.Data[k0*b.Stride+col:], b.Stride, kc, cols, k.width)
}

// packPanels packs panels panels from column col on, each step words after the one before in dst.
func (k *kernel) packPanels(dst []float32, step int, b Mat, k0, kc, col, panels int) {
	first := 0
	if whole := min(panels, (b.Cols-col)/k.width); k.copyPanels != nil && !b.T && whole > 1 {
		k.copyPanels(dst, b.Data[k0*b.Stride+col:], b.Stride, kc, whole, step)
		first = whole
	}
	for p := first; p < panels; p++ {
		k.packPanel(dst[p*step:], b, k0, kc, col+p*k.width)
	}
}
