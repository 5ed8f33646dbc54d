//go:build unix

package packed

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// mapFile maps the file into memory, read only. The system is told that all of it will be needed soon.
func mapFile(name string) (data []byte, unmap func() error, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	// A mapping outlives its file descriptor.
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	n := st.Size()
	if !st.Mode().IsRegular() || n == 0 || n != int64(int(n)) {
		return nil, nil, fmt.Errorf("%d bytes, mode %v, expected a file with weights", n, st.Mode())
	}
	data, err = unix.Mmap(int(f.Fd()), 0, int(n), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, fmt.Errorf("map into memory: %w", err)
	}
	// Advice: nothing depends on it.
	_ = unix.Madvise(data, unix.MADV_WILLNEED)
	return data, func() error { return unix.Munmap(data) }, nil
}

// anonymous returns n bytes of memory outside the garbage collector's heap.
func anonymous(n int) (data []byte, free func() error, err error) {
	data, err = unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, nil, err
	}
	hugePages(data)
	return data, func() error { return unix.Munmap(data) }, nil
}

// forget takes mapped pages that will not be read again out of the process's memory; they stay in the system's cache.
func forget(b []byte) { _ = unix.Madvise(b, unix.MADV_DONTNEED) }
