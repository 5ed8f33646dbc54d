package cuda

import (
	"fmt"
	"slices"
	"testing"

	"autodev/compute"
	"autodev/compute/cuda/cudatest"
	"autodev/compute/ref"
)

// lengths are of arrays: less than a vector, vectors and a rest, several blocks.
var lengths = []int{1, 7, 8, 29, 5003}

func TestActivation(t *testing.T) {
	onBench(t, func(b workbench) {
		for _, s := range stores {
			for act := range actKernels {
				for _, n := range lengths {
					x, dy := random(uint64(n), n, s.store), random(uint64(n)+1, n, s.store)
					for i, v := range []float32{-30, 60, -0.001, 0, -5, 4, 1e4, -1e4} {
						if i*3 < n {
							x[i*3] = round(v, s.store)
						}
					}
					what := fmt.Sprint(s.store, act, n)
					y, dx := make([]float32, n), make([]float32, n)
					ref.Activation(y, x, act)
					ref.ActivationGrad(dx, dy, x, act)
					px, pdy, to := b.floats(x, s.store), b.floats(dy, s.store), b.empty(n*s.store.Size())
					b.run(func(q *Queue) (Op, error) { return activation(q, to, px, int64(n), act, s.store) })
					cudatest.Close(b.t, what, b.read(to, n, s.store), y, 3e-7, 1.01*s.unit+3e-6)
					b.run(func(q *Queue) (Op, error) { return activationGrad(q, to, pdy, px, int64(n), act, s.store) })
					want := b.read(to, n, s.store)
					cudatest.Close(b.t, what+" gradient", want, dx, 2e-6, 1.01*s.unit+3e-6)
					b.run(func(q *Queue) (Op, error) { return activationGrad(q, pdy, pdy, px, int64(n), act, s.store) })
					sameBits(b.t, what+" gradient in dy's place", b.read(pdy, n, s.store), want)
				}
			}
		}
	})
}

func TestActivationWithoutRestIsCaught(t *testing.T) {
	planted(t, "elementwise.cu:elementwise_rest", 5, func(b workbench) bool {
		x := random(1, 13, F32)
		want := make([]float32, len(x))
		ref.Activation(want, x, compute.ReLU)
		px, y := b.floats(x, F32), b.empty(4*len(x))
		b.run(func(q *Queue) (Op, error) { return activation(q, y, px, int64(len(x)), compute.ReLU, F32) })
		return !slices.Equal(b.read(y, len(x), F32), want)
	})
}

func TestAdd(t *testing.T) {
	onBench(t, func(b workbench) {
		for _, s := range stores {
			for _, n := range lengths {
				x, y := random(1, n, s.store), random(2, n, s.store)
				want := make([]float32, n)
				for i := range want {
					want[i] = round(x[i]+y[i], s.store)
				}
				px, py := b.floats(x, s.store), b.floats(y, s.store)
				b.run(func(q *Queue) (Op, error) { return add(q, py, px, py, int64(n), s.store) })
				sameBits(b.t, fmt.Sprint(s.store, n), b.read(py, n, s.store), want)
			}
		}
	})
}
