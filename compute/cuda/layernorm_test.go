package cuda

import (
	"errors"
	"fmt"
	"testing"

	"autodev/compute/cuda/cudatest"
	"autodev/compute/cuda/driver"
	"autodev/compute/ref"
)

// runLayerNorm runs the kernel on random rows and returns its result and the reference's.
func runLayerNorm(t testing.TB, d *Device, rows, width int, s Store) (got, want []float32, err error) {
	t.Helper()
	const epsilon = 1e-5
	x := random(uint64(rows), rows*width, s)
	gain, bias := random(2, width, s), random(3, width, s)
	want = make([]float32, len(x))
	ref.LayerNorm(want, x, gain, bias, epsilon)
	err = d.Do(func(q *Queue) error {
		y := alloc[uint16](t, q, len(x)*s.Size()/2)
		l, err := layerNorm(q, y, upload(t, q, encode(x, s)), upload(t, q, encode(gain, s)), upload(t, q, encode(bias, s)), rows, width, epsilon, s)
		if err != nil {
			return err
		}
		if err := errors.Join(l.Enqueue(q), q.Sync()); err != nil {
			return err
		}
		got = decode(download[uint16](t, q, y, len(x)*s.Size()/2), s)
		return nil
	})
	return got, want, err
}

func TestLayerNorm(t *testing.T) {
	eachSeed(t, func(t *testing.T, d *Device) {
		for _, s := range stores {
			for _, shape := range [][2]int{{1, 8}, {3, 300}, {9, 257}, {2, 1000}, {19, 72}, {5, 2600}, {3, 4096}, {1, 16392}} {
				got, want, err := runLayerNorm(t, d, shape[0], shape[1], s.store)
				if err != nil {
					t.Fatal(err)
				}
				cudatest.Close(t, fmt.Sprint(s.store, shape), got, want, 4e-6, 1.01*s.unit+2e-6)
			}
		}
	})
}

// A barrier that is taken out must show as wrong results under at least most schedules.
func TestLayerNormWithoutBarrierIsCaught(t *testing.T) {
	for bug, width := range map[string]int{"block_sum_barrier": 301, "layernorm_rows_barrier": 4096} {
		planted(t, "layernorm.cu:"+bug, 4, func(b workbench) bool {
			got, want, err := runLayerNorm(b.t, b.d, 3, width, F32)
			if err != nil {
				b.t.Fatal(err)
			}
			at, differs := cudatest.Differs(got, want, 1e-4, 1e-4)
			if differs {
				b.t.Logf("element %d is %v, expected %v", at, got[at], want[at])
			}
			return differs
		})
	}
}

// Rows at a wrong offset must show as an illegal address, which says where and ends the device.
func TestLayerNormAtWrongOffsetIsCaught(t *testing.T) {
	d, l := onStandin(t, "layernorm.cu:layernorm_offset", nil)
	_, _, err := runLayerNorm(t, d, 4, 1023, F32)
	if !errors.Is(err, driver.IllegalAddress) {
		t.Fatalf("error %v, expected an illegal address", err)
	}
	t.Log(err)
	t.Log(l.Fault())
	if l.Fault() == "" {
		t.Error("the stand-in does not say what happened")
	}
	var lost *LostError
	if err := d.Do(func(*Queue) error { return nil }); !errors.As(err, &lost) {
		t.Errorf("after an illegal address: %v, expected a lost device", err)
	}
}
