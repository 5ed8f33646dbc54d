package attend

import (
	"math/rand/v2"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// guarded returns n words with an unreadable page right behind them (or, with front, right before them).
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
	eachLevel(t, func(t *testing.T, k *kernels) {
		for i := range 60 {
			front := i%2 == 0
			p := Product{Rows: 1 + r.IntN(17), Cols: Panel * (1 + r.IntN(2)), K: 1 + r.IntN(9), Add: i%3 == 0, Down: i%5 == 0}
			if p.Down {
				p.Rows = 8 * (1 + r.IntN(3))
			}
			p.LDB, p.LDC, p.LDA = p.K*Panel, p.Cols, p.K
			sizeA := p.Rows * p.K
			if p.Down {
				p.LDA = p.Rows
			}
			a, b, c := guarded(t, sizeA, front), guarded(t, p.LDB*p.Cols/Panel, front), guarded(t, p.Rows*p.Cols, front)
			product(&k.floats, p, c, a, b)
			product(&k.pairs, p, c, Words(a), Words(b))

			rows, n := 1+r.IntN(Panel), 1+r.IntN(40)
			dst := guarded(t, (n-1)*Panel+rows, front)
			k.rows.transpose(Words(dst), Words(guarded(t, rows*n, front)), n, rows, n)
			n = 1 + r.IntN(200)
			x := guarded(t, n, front)
			k.rows.round(Words(guarded(t, (n+1)/2, front)), x)
			k.rows.interleave(Words(guarded(t, n, front)), x, guarded(t, n, front))
			k.rows.merge(guarded(t, n, front), x, 1, 2)
			ints := unsafe.Slice((*int8)(unsafe.Pointer(&x[0])), 4*n)
			k.rows.widen(Words(guarded(t, 2*n, front)), ints)
			n = (n + 15) / 16 * 16
			k.rows.exponentials(Words(guarded(t, n/2, front)), guarded(t, n, front), guarded(t, n, front), 1, 0)
		}
	})
}
