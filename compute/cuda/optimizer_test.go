package cuda

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"autodev/compute/cuda/cudatest"
	"autodev/compute/cudaplan"
	"autodev/compute/ref"
)

var nan, inf = float32(math.NaN()), float32(math.Inf(1))

func TestSumSquares(t *testing.T) {
	bits := map[int]float64{}
	onBench(t, func(b workbench) {
		for _, n := range []int{1, 3, 1000, 200_003} {
			x := random(uint64(n), n, F32)
			x[n/2] = 1e30 // its square is no float32
			sum, px, work := b.empty(8), put(b, x), b.empty(8*cudaplan.SumParts)
			b.run(func(q *Queue) (Op, error) { return sumSquares(q, sum, px, work, int64(n)) })
			got, want := get[float64](b, sum, 1)[0], ref.SumSquares(x)
			if math.Abs(got-want) > 1e-13*want {
				b.t.Errorf("%d: %v, expected %v", n, got, want)
			}
			if old, ok := bits[n]; ok && old != got {
				b.t.Errorf("%d: %v under one schedule, %v under another", n, old, got)
			}
			bits[n] = got
		}
	})
}

// What is infinite or a NaN in float32 shows in the sum, wherever it is: steps that overflow float16 are found so.
func TestSumSquaresOfNoNumbers(t *testing.T) {
	const n = 5003
	onBench(t, func(b workbench) {
		for _, at := range []int{0, 1700, n - 1} {
			for _, v := range []float32{inf, -inf, nan} {
				x := random(1, n, F32)
				x[at] = v
				sum, px, work := b.empty(8), put(b, x), b.empty(8*cudaplan.SumParts)
				b.run(func(q *Queue) (Op, error) { return sumSquares(q, sum, px, work, n) })
				if got := get[float64](b, sum, 1)[0]; !math.IsInf(got, 1) && !math.IsNaN(got) {
					b.t.Errorf("%v at %d: %v", v, at, got)
				}
			}
		}
	})
}

// adamState is what AdamW changes.
type adamState struct{ param, m, v, copied []float32 }

// adamStep makes a step from random state on the device and by the reference.
func adamStep(b workbench, n int, copied bool, s Store) (got, want adamState) {
	h := ref.Hyper[float32]{LearningRate: 1e-3, Beta1: 0.9, Beta2: 0.95, Epsilon: 1e-8, Decay: 0.1, Correction1: 0.19, Correction2: 0.0975, Multiplier: 0.5}
	grad := random(1, n, F32)
	want = adamState{param: random(2, n, F32), m: random(3, n, F32), v: random(4, n, F32), copied: random(5, n, s)}
	for i := range want.v {
		want.v[i] *= want.v[i]
	}
	grad[0], want.m[0], want.v[0] = 0, 0, 0 // what never had a gradient
	p, m, v, c, g := put(b, want.param), put(b, want.m), put(b, want.v), b.floats(want.copied, s), put(b, grad)
	hyper := put(b, []float32{h.LearningRate, h.Beta1, h.Beta2, h.Epsilon, h.Decay, h.Correction1, h.Correction2, h.Multiplier})
	ref.AdamW(want.param, want.m, want.v, grad, h)
	if copied {
		want.copied = slices.Clone(want.param)
	}
	to := c
	if !copied {
		to = 0
	}
	b.run(func(q *Queue) (Op, error) { return adamW(q, p, m, v, to, g, hyper, int64(n), s) })
	return adamState{get[float32](b, p, n), get[float32](b, m, n), get[float32](b, v, n), b.read(c, n, s)}, want
}

func TestAdamW(t *testing.T) {
	onBench(t, func(b workbench) {
		for _, s := range stores {
			for _, n := range lengths {
				for _, copied := range []bool{true, false} {
					got, want := adamStep(b, n, copied, s.store)
					what := fmt.Sprint(s.store, n, " copy ", copied)
					cudatest.Close(b.t, what+" param", got.param, want.param, 1e-9, 2e-7)
					cudatest.Close(b.t, what+" m", got.m, want.m, 1e-8, 2e-7)
					cudatest.Close(b.t, what+" v", got.v, want.v, 1e-9, 3e-7)
					cudatest.Close(b.t, what+" copy", got.copied, want.copied, 1e-9, 1.01*s.unit+2e-7)
				}
			}
		}
	})
}

func TestAdamWWithoutRestIsCaught(t *testing.T) {
	planted(t, "optimizer.cu:adamw_rest", 5, func(b workbench) bool {
		got, want := adamStep(b, 7, true, BF16)
		_, differs := cudatest.Differs(got.m, want.m, 1e-5, 1e-5)
		return differs
	})
}
