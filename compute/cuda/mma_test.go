package cuda

import (
	"errors"
	"testing"

	"autodev/compute/cuda/cudatest"
)

// runMMA multiplies a [m,k] by b [n,k]ᵀ on the tensor cores and in float64.
func runMMA(t testing.TB, d *Device, m, n, k int, s Store) (got, want []float32, err error) {
	t.Helper()
	a, b := random(6, m*k, s), random(7, n*k, s)
	want = make([]float32, m*n)
	for i := range m {
		for j := range n {
			var sum float64
			for l := range k {
				sum += float64(a[i*k+l]) * float64(b[j*k+l])
			}
			want[i*n+j] = float32(sum)
		}
	}
	err = d.Do(func(q *Queue) error {
		c := alloc[float32](t, q, m*n)
		l, err := q.Prepare("mma_check_"+s.String(), Grid{Blocks: Dim{m / 16, n / 8}, Threads: Dim{32}}, c, upload(t, q, encode(a, s)), upload(t, q, encode(b, s)), n, k)
		if err != nil {
			return err
		}
		if err := errors.Join(l.Enqueue(q), q.Sync()); err != nil {
			return err
		}
		got = download[float32](t, q, c, m*n)
		return nil
	})
	return got, want, err
}

func TestTensorCores(t *testing.T) {
	eachSeed(t, func(t *testing.T, d *Device) {
		if d.properties.Capability < 80 {
			t.Skip("the device has no bf16 tensor cores")
		}
		for _, s := range []Store{BF16, F16} {
			for _, shape := range [][3]int{{16, 8, 16}, {48, 24, 80}} {
				got, want, err := runMMA(t, d, shape[0], shape[1], shape[2], s)
				if err != nil {
					t.Fatal(err)
				}
				cudatest.Close(t, s.String(), got, want, 2e-5, 1e-6)
			}
		}
	})
}

// A wait for asynchronous copies that is taken out must show.
func TestTensorCoresWithoutWaitIsCaught(t *testing.T) {
	d, _ := onStandin(t, "mma_check.cu:mma_wait", nil)
	got, want, err := runMMA(t, d, 16, 8, 48, BF16)
	if err != nil {
		t.Fatal(err)
	}
	if _, differs := cudatest.Differs(got, want, 1e-3, 1e-3); !differs {
		t.Error("a missing wait was not caught")
	}
}
