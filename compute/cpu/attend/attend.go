package attend

import (
	"fmt"
	"unsafe"

	"autodev/compute/cpu/vec"
)

// Panel is the number of columns of a panel.
const Panel = 32

// Words views floats as the words of pairs of bfloat16, for memory that holds either.
func Words(x []float32) []uint32 {
	return unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(x))), len(x))
}

// Floats is the inverse of Words.
func Floats(x []uint32) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(x))), len(x))
}

// Product says what is multiplied: C [Rows, Cols] (+)= A·B over K words of inner dimension. Cols is a multiple of Panel; panel p
// of B begins at word p·LDB, row i of C at i·LDC. Element (i, k) of A is word i·LDA+k, or k·LDA+i with Down, when Rows must be a
// multiple of 8.
type Product struct {
	Rows, Cols, K int
	LDA, LDB, LDC int
	Add           bool // to what C holds
	Down          bool
}

// Floats multiplies float32 matrices.
func (p Product) Floats(c, a, b []float32) { product(&best.floats, p, c, a, b) }

// Pairs multiplies matrices of pairs of bfloat16.
func (p Product) Pairs(c []float32, a, b []uint32) { product(&best.pairs, p, c, a, b) }

type word interface{ float32 | uint32 }

// tileFunc computes width columns of some rows of C; see Product. kc is at least 1.
type tileFunc[W word] func(kc int, a *W, lda int, b *W, c *float32, ldc int, add int)

// tiles are the functions of one instruction set: row[r-1] for r rows of A, down for as many rows as row has.
type tiles[W word] struct {
	width int
	row   []tileFunc[W]
	down  tileFunc[W]
}

// kernels are what one instruction set offers.
type kernels struct {
	level  string
	floats tiles[float32]
	pairs  tiles[uint32]
	rows   rowKernels
}

// Level names the instruction set in use: "avx512bf16", "avx512", "avx2" or "generic".
func Level() string { return best.level }

var best = levels()[0]

func product[W word](t *tiles[W], p Product, c []float32, a, b []W) {
	if p.Rows <= 0 || p.Cols <= 0 {
		return
	}
	if p.Cols%Panel != 0 || p.Down && p.Rows%8 != 0 || p.K < 0 {
		panic(fmt.Sprintf("attend: product of %d×%d by %d×%d (Down: %v)", p.Rows, p.K, p.K, p.Cols, p.Down))
	}
	if p.K == 0 {
		if !p.Add {
			for i := range p.Rows {
				clear(c[i*p.LDC:][:p.Cols])
			}
		}
		return
	}
	// The tiles do not check what they touch.
	_, _ = c[(p.Rows-1)*p.LDC+p.Cols-1], b[(p.Cols/Panel-1)*p.LDB+p.K*Panel-1]
	if p.Down {
		_ = a[(p.K-1)*p.LDA+p.Rows-1]
	} else {
		_ = a[(p.Rows-1)*p.LDA+p.K-1]
	}
	add := 0
	if p.Add {
		add = 1
	}
	most := len(t.row)
	if p.Down {
		// Columns of A are far apart in memory and share cache lines with their neighbours: they are used up before the next.
		const line = 16
		for i0 := 0; i0 < p.Rows; i0 += line {
			for col := 0; col < p.Cols; col += t.width {
				for i := i0; i < min(i0+line, p.Rows); i += most {
					t.down(p.K, &a[i], p.LDA, &b[col/Panel*p.LDB+col%Panel], &c[i*p.LDC+col], p.LDC, add)
				}
			}
		}
		return
	}
	for col := 0; col < p.Cols; col += t.width {
		panel := &b[col/Panel*p.LDB+col%Panel]
		for i := 0; i < p.Rows; i += most {
			t.row[min(most, p.Rows-i)-1](p.K, &a[i*p.LDA], p.LDA, panel, &c[i*p.LDC+col], p.LDC, add)
		}
	}
}

// rowKernels bring rows into layouts. Lengths are multiples of 16 except where named.
type rowKernels struct {
	transpose  func(dst, src []uint32, ld, rows, n int)
	round      func(dst []uint32, src []float32)
	interleave func(dst []uint32, a, b []float32)
	widen      func(dst []uint32, src []int8)
	merge      func(y, x []float32, a, b float32)
	// exponentials is Exponentials with the largest score given.
	exponentials func(pairs []uint32, s, columns []float32, scale, largest float32) (sum float32)
}

// Transpose writes dst[x·Panel+r] = src[r·ld+x] for x < n and r < rows ≤ Panel, and leaves the rest of dst alone.
func Transpose(dst, src []uint32, ld, rows, n int) {
	if rows > 0 && n > 0 {
		best.rows.transpose(dst, src, ld, rows, n)
	}
}

// Round sets the halves of dst to the elements of src rounded to bfloat16, the last upper half to 0 when they are odd in number.
func Round(dst []uint32, src []float32) { best.rows.round(dst, src) }

// Interleave sets the lower halves of dst to a and the upper to b, rounded to bfloat16. The three have one length.
func Interleave(dst []uint32, a, b []float32) { best.rows.interleave(dst, a, b) }

// Widen sets the halves of dst to the integers of src, −127 to 127 and even in number, as bfloat16: exactly.
func Widen(dst []uint32, src []int8) { best.rows.widen(dst, src) }

// Merge sets y = a·y + b·x, rounding each product.
func Merge(y, x []float32, a, b float32) { best.rows.merge(y, x, a, b) }

// Exponentials sets pairs to e^(scale·(s − largest))·columns, rounded to bfloat16, for the scores s with their largest; columns
// may be nil for ones. It returns scale·largest and the sum of the exponentials, before they are multiplied and rounded. The sum
// runs in 16 lanes, so that scores of −Inf before (in multiples of 16) and after change nothing. The length of s is a multiple of
// 16, scale is positive, and s holds anything afterwards.
func Exponentials(pairs []uint32, s, columns []float32, scale float32) (largest, sum float32) {
	largest = vec.Max(s)
	return scale * largest, best.rows.exponentials(pairs, s, columns, scale, largest)
}
