package attend

import (
	"math/rand/v2"
	"testing"
	"unsafe"

	"autodev/internal/guard"
)

// TestNothingOutsideIsTouched puts every operand against unreadable pages: a stray access ends the test process.
func TestNothingOutsideIsTouched(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	eachLevel(t, func(t *testing.T, k *kernels) {
		for i := range 60 {
			front := i%2 == 0
			p := Product{Rows: 1 + r.IntN(17), Cols: Panel * (1 + r.IntN(2)), K: 1 + r.IntN(9), Add: i%3 == 0, Down: i%5 == 0}
			if p.Down {
				p.Rows = 8 * (1 + r.IntN(3))
			}
			p.LDB, p.LDC, p.LDA = p.K*Panel, p.Cols, p.K
			sizeA := p.Rows * p.K
			if p.Down {
				p.LDA = p.Rows
			}
			a, b, c := guard.Slice[float32](t, sizeA, front), guard.Slice[float32](t, p.LDB*p.Cols/Panel, front), guard.Slice[float32](t, p.Rows*p.Cols, front)
			product(&k.floats, p, c, a, b)
			product(&k.pairs, p, c, Words(a), Words(b))

			rows, n := 1+r.IntN(Panel), 1+r.IntN(40)
			dst := guard.Slice[float32](t, (n-1)*Panel+rows, front)
			k.rows.transpose(Words(dst), Words(guard.Slice[float32](t, rows*n, front)), n, rows, n)
			n = 1 + r.IntN(200)
			x := guard.Slice[float32](t, n, front)
			k.rows.round(Words(guard.Slice[float32](t, (n+1)/2, front)), x)
			k.rows.interleave(Words(guard.Slice[float32](t, n, front)), x, guard.Slice[float32](t, n, front))
			k.rows.merge(guard.Slice[float32](t, n, front), x, 1, 2)
			ints := unsafe.Slice((*int8)(unsafe.Pointer(&x[0])), 4*n)
			k.rows.widen(Words(guard.Slice[float32](t, 2*n, front)), ints)
			n = (n + 15) / 16 * 16
			k.rows.exponentials(Words(guard.Slice[float32](t, n/2, front)), guard.Slice[float32](t, n, front), guard.Slice[float32](t, n, front), 1, 0)
		}
	})
}
