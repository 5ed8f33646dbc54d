package cuda

import (
	"errors"
	"fmt"
	"testing"

	"autodev/compute"
	"autodev/compute/cuda/cudatest"
	"autodev/compute/ref"
)

func TestBiasGELU(t *testing.T) {
	eachSeed(t, func(t *testing.T, d *Device) {
		for _, s := range stores {
			for _, shape := range [][2]int{{1, 1}, {5, 33}, {70, 300}} {
				for _, biased := range []bool{true, false} {
					n := shape[0] * shape[1]
					x, bias := random(4, n, s.store), random(5, shape[1], F32)
					x[0], x[n/2], x[n-1] = -30, 60, -0.001
					x[n-1] = round(x[n-1], s.store)
					sum := make([]float32, n)
					for i := range sum {
						sum[i] = x[i]
						if biased {
							sum[i] += bias[i%shape[1]]
						}
					}
					want := make([]float32, n)
					ref.Activation(want, sum, compute.GELUTanh)
					if err := d.Do(func(q *Queue) error {
						y := upload(t, q, encode(x, s.store)) // in place
						b := Ptr(0)
						if biased {
							b = upload(t, q, bias)
						}
						l, err := biasGELU(q, y, y, b, shape[0], shape[1], s.store)
						if err != nil {
							return err
						}
						if err := errors.Join(l.Enqueue(q), q.Sync()); err != nil {
							return err
						}
						got := decode(download[uint16](t, q, y, n*s.store.Size()/2), s.store)
						cudatest.Close(t, fmt.Sprint(s.store, shape, biased), got, want, 3e-7, 1.01*s.unit+3e-6)
						return nil
					}); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	})
}
