package gemm

import (
	"math/rand/v2"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// guarded returns n floats with an unreadable page right behind them (or, with front, right before them).
func guarded(t *testing.T, n int, front bool) []float32 {
	t.Helper()
	page := unix.Getpagesize()
	size := (4*n + page - 1) / page * page
	mem, err := unix.Mmap(-1, 0, size+2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(mem); err != nil {
			t.Error(err)
		}
	})
	for _, guard := range [][]byte{mem[:page], mem[page+size:]} {
		if err := unix.Mprotect(guard, unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	at := page + size - 4*n
	if front {
		at = page
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(&mem[at])), n)
}

// TestNothingOutsideIsTouched puts every operand against unreadable pages: a stray access ends the test process.
func TestNothingOutsideIsTouched(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	eachKernel(t, func(t *testing.T, k *kernel) {
		for _, front := range []bool{false, true} {
			for _, s := range [][3]int{{1, 1, 1}, {1, k.nr + 1, 3}, {k.mr - 1, k.nr - 1, 5}, {k.mr + 1, k.width + k.nr + 3, 17}, {2 * k.mr, k.nr, 16}, {3, 70, KC + 1}, {37, 2, 30}} {
				for flags := range 8 {
					guard := func(m Mat) Mat {
						d := guarded(t, len(m.Data), front)
						copy(d, m.Data)
						m.Data = d
						return m
					}
					pad := flags >> 2
					p := product{
						a:     guard(matrix(r, s[0], s[2], pad, flags&1 != 0)),
						b:     guard(matrix(r, s[2], s[1], pad, flags&2 != 0)),
						c:     guard(matrix(r, s[0], s[1], pad, false)),
						alpha: 1,
					}
					if flags&4 != 0 {
						p.o.Base = guard(matrix(r, s[0], s[1], pad, false))
					} else {
						p.o.Bias = guard(matrix(r, 1, s[1], 0, false)).Data
					}
					p.o.Work = guarded(t, WorkFloats(s[0], s[1], s[2]), front)
					got := guard(p.c)
					k.mul(nil, got, 1, p.a, p.b, nil, p.o)
					p.checkReference(t, k, got)
					b := k.packed(nil, p.b)
					b.data = guard(Mat{Data: b.data}).Data
					k.mul(nil, got, 1, p.a, Mat{Rows: b.Rows, Cols: b.Cols}, b.data, p.o)
					p.checkReference(t, k, got)
				}
			}
		}
	})
}
