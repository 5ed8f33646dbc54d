package cuda

import (
	"fmt"
	"testing"

	"autodev/compute/cuda/cublaslt"
	"autodev/compute/cuda/cudatest"
)

// Products by each algorithm, and by the fastest that a device was told to keep, are what they should be.
func TestAlgorithms(t *testing.T) {
	p := cublaslt.Product{M: 24, N: 40, K: 56, TransB: true, In: cublaslt.BF16, Out: cublaslt.F32}
	a, b := random(1, p.M*p.K, BF16), random(2, p.K*p.N, BF16)
	want := make([]float32, p.M*p.N)
	for i, v := range product(p, a, b, 1) {
		want[i] = float32(v)
	}
	onBench(t, func(w workbench) {
		compute := func(what string) {
			t.Helper()
			o := cublaslt.Operands{A: w.floats(a, BF16), B: w.floats(b, BF16), D: w.empty(4 * len(want)), Alpha: 1}
			w.run(func(q *Queue) (Op, error) { return q.PrepareMatmul(p, o) })
			cudatest.Close(t, what, w.read(o.D, len(want), F32), want, 1e-5, 2e-6)
		}
		compute("the library's choice")
		w.do(func(q *Queue) error {
			times, err := q.TimeAlgorithms(p, 8, 2)
			if err != nil {
				return err
			}
			if len(times) < 2 {
				t.Errorf("%d algorithms, expected several", len(times))
			}
			for i, x := range times {
				if x.Took < 0 {
					t.Errorf("algorithm %d took %v", i, x.Took)
				}
			}
			return nil
		})
		compute("after timing")
		algorithms := 0
		w.do(func(q *Queue) error {
			all, err := q.d.blas.Algorithms(p, 8)
			algorithms = len(all)
			return err
		})
		for i := range algorithms {
			w.do(func(q *Queue) error {
				all, err := q.d.blas.Algorithms(p, 8)
				if err != nil {
					return err
				}
				return q.d.blas.Use(p, all[i])
			})
			compute(fmt.Sprint("algorithm ", i))
		}
	})
	t.Run("kept", func(t *testing.T) {
		o := Options{Algorithms: 4}
		if !cudatest.GPU() {
			l := cudatest.Library(t, "")
			o.CUDA, o.CublasLt = l.CUDA, l.CublasLt
		}
		w := workbench{t, openDevice(t, o)}
		for range 2 {
			operands := cublaslt.Operands{A: w.floats(a, BF16), B: w.floats(b, BF16), D: w.empty(4 * len(want)), Alpha: 1}
			w.run(func(q *Queue) (Op, error) { return q.PrepareMatmul(p, operands) })
			cudatest.Close(t, "the fastest", w.read(operands.D, len(want), F32), want, 1e-5, 2e-6)
		}
	})
}

// Where there is no memory to time algorithms with, products are computed by the library's choice.
func TestAlgorithmsWithoutMemory(t *testing.T) {
	l := cudatest.Library(t, "")
	if err := l.Set("memory", 6<<20); err != nil {
		t.Fatal(err)
	}
	w := workbench{t, openDevice(t, Options{CUDA: l.CUDA, CublasLt: l.CublasLt, Algorithms: 4})}
	p := cublaslt.Product{M: 512, N: 512, K: 8, TransB: true, In: cublaslt.BF16, Out: cublaslt.F32}
	o := cublaslt.Operands{A: put(w, make([]uint16, p.M*p.K)), B: put(w, make([]uint16, p.N*p.K)), D: w.empty(4 * p.M * p.N), Alpha: 1}
	w.run(func(q *Queue) (Op, error) { return q.PrepareMatmul(p, o) })
	for i, v := range w.read(o.D, p.M*p.N, F32) {
		if v != 0 {
			t.Fatalf("element %d is %v, expected 0", i, v)
		}
	}
}
