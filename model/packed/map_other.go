//go:build !unix

package packed

import "os"

// mapFile reads the file.
func mapFile(name string) (data []byte, unmap func() error, err error) {
	data, err = os.ReadFile(name)
	return data, func() error { return nil }, err
}

// anonymous returns n bytes of memory.
func anonymous(n int) (data []byte, free func() error, err error) {
	return make([]byte, n), func() error { return nil }, nil
}

func forget([]byte) {}
