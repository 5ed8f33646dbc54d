// Package guard gives tests memory between unreadable pages: a stray access of assembly ends the test process. Only tests import it.
package guard

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Slice returns n zero elements with an unreadable page right behind them or, with front, right before them.
func Slice[T any](t *testing.T, n int, front bool) []T {
	t.Helper()
	page := unix.Getpagesize()
	bytes := n * int(unsafe.Sizeof(*new(T)))
	size := (bytes + page - 1) / page * page
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
	at := page
	if !front {
		at += size - bytes
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&mem[at])), n)
}

// Copy returns a copy of x in memory as Slice's.
func Copy[T any](t *testing.T, x []T, front bool) []T {
	t.Helper()
	out := Slice[T](t, len(x), front)
	copy(out, x)
	return out
}
