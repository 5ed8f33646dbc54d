package cuda

import (
	"errors"
	"fmt"
	"testing"

	"autodev/compute/cuda/cudatest"
)

// wgmmaVariant is a kernel of wgmma_check.cu.
type wgmmaVariant struct {
	a, b    string // where a is; how b lies
	columns int    // of a product
	store   Store
}

func (v wgmmaVariant) kernel() string {
	return fmt.Sprintf("wgmma_check_%s_%s%d_%v", v.a, v.b, v.columns, v.store)
}

// run multiplies a [m,k] by b [n,k]ᵀ or [k,n] with products of warpgroups and in float64.
func (v wgmmaVariant) run(t testing.TB, d *Device, m, n, k int) (got, want []float32, err error) {
	t.Helper()
	a, b := random(6, m*k, v.store), random(7, n*k, v.store)
	want = make([]float32, m*n)
	for i := range m {
		for j := range n {
			row, step := j*k, 1
			if v.b == "n" {
				row, step = j, n
			}
			var sum float64
			for l := range k {
				sum += float64(a[i*k+l]) * float64(b[row+l*step])
			}
			want[i*n+j] = float32(sum)
		}
	}
	err = d.Do(func(q *Queue) error {
		c := alloc[float32](t, q, m*n)
		grid := Grid{Blocks: Dim{m / 64, n / v.columns}, Threads: Dim{128}, Shared: 1024 + 2*256*(64+v.columns)}
		l, err := q.Prepare(v.kernel(), grid, c, upload(t, q, encode(a, v.store)), upload(t, q, encode(b, v.store)), n, k)
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

// Every kind of product of a warpgroup is that of the operands, whatever runs it.
func TestWarpgroupProducts(t *testing.T) {
	eachSeed(t, func(t *testing.T, d *Device) {
		if d.properties.Capability != 90 {
			t.Skip("the device has no products of warpgroups")
		}
		for _, s := range []Store{BF16, F16} {
			for _, a := range []string{"shared", "registers"} {
				for _, b := range []string{"k", "n"} {
					for _, columns := range []int{64, 128, 256} {
						v := wgmmaVariant{a, b, columns, s}
						got, want, err := v.run(t, d, 128, columns, 256)
						if err != nil {
							t.Fatalf("%s: %v", v.kernel(), err)
						}
						cudatest.Close(t, v.kernel(), got, want, 5e-5, 1e-6)
					}
				}
			}
		}
	})
}

// What orders copies and products must show when it is taken out, and so must a wrong step.
func TestWarpgroupProductBugsAreCaught(t *testing.T) {
	for _, bug := range []string{"wgmma_copies", "wgmma_proxy", "wgmma_barrier", "wgmma_overwrite", "wgmma_wait", "wgmma_step"} {
		planted(t, "wgmma_check.cu:"+bug, 3, func(b workbench) bool {
			got, want, err := wgmmaVariant{"shared", "k", 64, BF16}.run(t, b.d, 256, 128, 512)
			if err != nil {
				return true
			}
			_, differs := cudatest.Differs(got, want, 1e-3, 1e-3)
			return differs
		})
	}
}
