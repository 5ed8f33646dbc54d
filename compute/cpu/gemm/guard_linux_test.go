package gemm

import (
	"math/rand/v2"
	"testing"

	"autodev/internal/guard"
)

// TestNothingOutsideIsTouched puts every operand against unreadable pages: a stray access ends the test process.
func TestNothingOutsideIsTouched(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	eachKernel(t, func(t *testing.T, k *kernel) {
		for _, front := range []bool{false, true} {
			for _, s := range [][3]int{{1, 1, 1}, {1, k.nr + 1, 3}, {k.mr - 1, k.nr - 1, 5}, {k.mr + 1, k.width + k.nr + 3, 17}, {2 * k.mr, k.nr, 16}, {3, 70, KC + 1}, {37, 2, 30}} {
				for flags := range 8 {
					fenced := func(m Mat) Mat {
						d := guard.Slice[float32](t, len(m.Data), front)
						copy(d, m.Data)
						m.Data = d
						return m
					}
					pad := flags >> 2
					p := product{
						a:     fenced(matrix(r, s[0], s[2], pad, flags&1 != 0)),
						b:     fenced(matrix(r, s[2], s[1], pad, flags&2 != 0)),
						c:     fenced(matrix(r, s[0], s[1], pad, false)),
						alpha: 1,
					}
					if flags&4 != 0 {
						p.o.Base = fenced(matrix(r, s[0], s[1], pad, false))
					} else {
						p.o.Bias = fenced(matrix(r, 1, s[1], 0, false)).Data
					}
					p.o.Work = guard.Slice[float32](t, WorkFloats(s[0], s[1], s[2]), front)
					got := fenced(p.c)
					k.mul(nil, got, 1, p.a, p.b, nil, p.o)
					p.checkReference(t, k, got)
					b := k.packed(nil, p.b)
					b.data = fenced(Mat{Data: b.data}).Data
					k.mul(nil, got, 1, p.a, Mat{Rows: b.Rows, Cols: b.Cols}, b.data, p.o)
					p.checkReference(t, k, got)
				}
			}
		}
	})
}
