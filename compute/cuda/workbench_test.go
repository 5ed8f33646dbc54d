package cuda

import (
	"errors"
	"fmt"
	"math"
	"testing"
	"unsafe"

	"autodev/compute/cuda/cudatest"
)

// workbench runs operations on a device with operands of their own allocations, so that what is read or written beside one shows.
type workbench struct {
	t testing.TB
	d *Device
}

func (b workbench) do(f func(q *Queue) error) {
	b.t.Helper()
	if err := b.d.Do(f); err != nil {
		b.t.Fatal(err)
	}
}

// run prepares an operation, runs it and waits for it.
func (b workbench) run(prepare func(q *Queue) (Op, error)) {
	b.t.Helper()
	b.do(func(q *Queue) error {
		op, err := prepare(q)
		if err != nil {
			return err
		}
		return errors.Join(op.Enqueue(q), q.Sync())
	})
}

// empty returns uninitialised memory, which is freed at the end of the test: then the stand-in sees what was written beside it.
func (b workbench) empty(bytes int) (p Ptr) {
	b.t.Helper()
	b.do(func(q *Queue) (err error) {
		p, err = q.Alloc(int64(bytes))
		return err
	})
	b.t.Cleanup(func() {
		if err := b.d.Do(func(q *Queue) error { return q.Free(p) }); err != nil && !errors.As(err, new(*LostError)) && !b.t.Failed() {
			b.t.Errorf("free: %v", err)
		}
	})
	return p
}

func put[T Number](b workbench, x []T) Ptr {
	b.t.Helper()
	p := b.empty(len(x) * int(unsafe.Sizeof(*new(T))))
	b.do(func(q *Queue) error { return Write(q, p, x) })
	return p
}

func get[T Number](b workbench, p Ptr, n int) []T {
	b.t.Helper()
	x := make([]T, n)
	b.do(func(q *Queue) error { return Read(q, x, p) })
	return x
}

// floats puts x as the store holds it; read gets n elements back.
func (b workbench) floats(x []float32, s Store) Ptr { return put(b, encode(x, s)) }

func (b workbench) read(p Ptr, n int, s Store) []float32 {
	b.t.Helper()
	return decode(get[uint16](b, p, n*s.Size()/2), s)
}

// onBench runs f under each schedule on an own device.
func onBench(t *testing.T, f func(b workbench)) {
	t.Helper()
	eachSeed(t, func(t *testing.T, d *Device) { f(workbench{t, d}) })
}

// sameBits fails the test unless got and want are the same, element by element.
func sameBits(t testing.TB, what string, got, want []float32) {
	t.Helper()
	for i := range want {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			t.Fatalf("%s: element %d is %v, expected %v to the bit", what, i, got[i], want[i])
		}
	}
}

// planted fails the test unless f says that results differ from what they should be on stand-ins with the bug, under at least `least` of
// five schedules.
func planted(t *testing.T, bug string, least int, f func(b workbench) (differs bool)) {
	t.Helper()
	cudatest.Library(t, bug) // skips where there is no stand-in
	caught := 0
	for seed := range int64(5) {
		t.Run(fmt.Sprint(bug, " seed ", seed), func(t *testing.T) {
			d, _ := onStandin(t, bug, map[string]int64{"seed": seed})
			if f(workbench{t, d}) {
				caught++
			}
		})
	}
	if caught < least {
		t.Errorf("%s: %d of 5 schedules show it, expected at least %d", bug, caught, least)
	}
}
