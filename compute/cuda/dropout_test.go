package cuda

import (
	"fmt"
	"testing"

	"autodev/compute"
	"autodev/compute/cuda/cudatest"
	"autodev/compute/ref"
)

func TestDropout(t *testing.T) {
	key := [2]int32{-5, 1 << 30}
	onBench(t, func(b workbench) {
		for _, s := range stores {
			for _, n := range lengths {
				for _, drop := range []float64{0, 0.1, 0.75} {
					x := random(uint64(n), n, s.store)
					want, what := make([]float32, n), fmt.Sprint(s.store, n, drop)
					ref.Dropout(want, x, key, 9, drop)
					p, k := b.floats(x, s.store), put(b, key[:])
					b.run(func(q *Queue) (Op, error) { return dropout(q, p, p, k, int64(n), 9, drop, s.store) })
					got := b.read(p, n, s.store)
					cudatest.Close(b.t, what, got, want, 0, 1.01*s.unit+2e-7)
					for i := range got { // the mask to the bit
						dropped := drop > 0 && compute.DropWords(key, 9, uint64(i/4))[i%4] < compute.DropThreshold(drop)
						if (got[i] == 0) != (dropped || x[i] == 0) {
							b.t.Fatalf("%s: element %d is %v from %v, dropped %v", what, i, got[i], x[i], dropped)
						}
					}
				}
			}
		}
		if _, err := dropout(nil, 0, 0, 0, 1, 0, 1, F32); err == nil {
			b.t.Error("a probability of 1 is accepted")
		}
	})
}

func TestDropoutOfWrongBlockIsCaught(t *testing.T) {
	planted(t, "dropout.cu:dropout_block", 5, func(b workbench) bool {
		x, want := random(3, 800, BF16), make([]float32, 800)
		key := [2]int32{1, 2}
		ref.Dropout(want, x, key, 0, 0.5)
		p, k := b.floats(x, BF16), put(b, key[:])
		b.run(func(q *Queue) (Op, error) { return dropout(q, p, p, k, int64(len(x)), 0, 0.5, BF16) })
		_, differs := cudatest.Differs(b.read(p, len(x), BF16), want, 0, 0.01)
		return differs
	})
}
