package vec

import (
	"os"
	"testing"

	"autodev/internal/guard"
)

// TestNothingOutsideIsTouched runs the element-wise functions on slices that end at an unreadable page or start behind one.
func TestNothingOutsideIsTouched(t *testing.T) {
	page := os.Getpagesize()
	operand := func() (first, last func(n int) []float32) {
		x := guard.Slice[float32](t, page/4, false) // a whole page: guarded on both sides
		return func(n int) []float32 { return x[:n] }, func(n int) []float32 { return x[len(x)-n:] }
	}
	var ends [5][2]func(n int) []float32
	for i := range ends {
		ends[i][0], ends[i][1] = operand()
	}
	h := &AdamWStep{0.01, 0.9, 0.95, 1e-8, 0.1, 0.1, 0.05, 1}
	for _, l := range levels() {
		for n := 1; n < 70; n++ {
			for end := range 2 {
				var x [5][]float32
				for i := range x {
					x[i] = ends[i][end](n)
				}
				l.add(x[0], x[1], x[2])
				l.mul(x[0], x[1], x[2])
				l.scale(x[0], x[1], 2)
				l.max(x[0])
				l.dot(x[0], x[1])
				l.sum(x[0])
				l.sumSquares(x[0], 1)
				l.sumSquares64(x[0])
				l.norm(x[0], x[1], x[2], x[3], 1, 2)
				l.normGradSums(x[0], x[1], x[2], 1, 2)
				l.normGrad(x[0], x[1], x[2], x[3], 1, 2, 3, 4)
				l.normGradAdd(x[0], x[0], x[1], x[2], x[3], 1, 2, 3, 4)
				l.addNormProduct(x[0], x[1], x[2], 1, 2)
				l.exp(x[0], x[1])
				l.expSum(x[0], 1)
				l.softmaxGrad(x[0], x[1], x[2], 1)
				l.geluTanh(x[0], x[1])
				l.geluTanhGrad(x[0], x[1], x[2])
				l.geluErf(x[0], x[1])
				l.geluErfGrad(x[0], x[1], x[2])
				l.relu(x[0], x[1])
				l.reluGrad(x[0], x[1], x[2])
				l.adamW(x[0], x[1], x[2], x[3], h)
			}
		}
	}
}
