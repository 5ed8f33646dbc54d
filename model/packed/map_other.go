//go:build !unix

package packed

import (
	"bytes"
	"io"
	"os"
)

// mapFile reads the file.
func mapFile(name string) (data []byte, file io.ReaderAt, unmap func() error, err error) {
	data, err = os.ReadFile(name)
	return data, bytes.NewReader(data), func() error { return nil }, err
}
