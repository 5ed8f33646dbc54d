//go:build unix

package cpu

import "golang.org/x/sys/unix"

// allocate maps n bytes of zeroed, page-aligned memory outside Go's heap: a size that the machine refuses is an error and not
// the end of the process, the collector need not know of it, and it goes back to the system when released.
func allocate(n int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err == nil {
		advise(b)
	}
	return b, err
}

func release(b []byte) error { return unix.Munmap(b) }
