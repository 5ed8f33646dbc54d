//go:build !unix

package cpu

import (
	"fmt"
	"unsafe"

	"autodev/compute"
)

// allocate returns n bytes of zeroed memory aligned to compute.Align.
func allocate(n int) (b []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			b, err = nil, fmt.Errorf("%v", r)
		}
	}()
	b = make([]byte, n+compute.Align)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (compute.Align - 1)
	return b[skip:][:n:n], nil
}

func release([]byte) error { return nil }
