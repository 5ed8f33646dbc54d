//go:build unix

package packed

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// mapFile maps the file into memory, read only, and returns it open too; unmap closes it. The system is told that all of it will
// be needed soon.
func mapFile(name string) (data []byte, file io.ReaderAt, unmap func() error, err error) {
	// A pipe is not even opened: that would wait for its writer.
	st, err := os.Stat(name)
	if err != nil {
		return nil, nil, nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, nil, nil, fmt.Errorf("mode %v, expected a file with weights", st.Mode())
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if st, err = f.Stat(); err != nil {
		return nil, nil, nil, err
	}
	n := st.Size()
	if n == 0 || n != int64(int(n)) {
		return nil, nil, nil, fmt.Errorf("%d bytes, expected a file with weights", n)
	}
	data, err = unix.Mmap(int(f.Fd()), 0, int(n), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("map into memory: %w", err)
	}
	// Advice: nothing depends on it.
	_ = unix.Madvise(data, unix.MADV_WILLNEED)
	return data, f, func() error { return errors.Join(unix.Munmap(data), f.Close()) }, nil
}
