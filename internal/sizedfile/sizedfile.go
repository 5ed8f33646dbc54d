// Package sizedfile opens files for readers of a format that work on an io.ReaderAt and its size. Formats must not live here.
package sizedfile

import (
	"errors"
	"io"
	"os"
)

// Open opens the file at path and returns what parse makes of it, and the function that closes the file, which stays open for
// later reads. When parse fails the file is closed.
func Open[T any](path string, parse func(r io.ReaderAt, size int64, name string) (T, error)) (T, func() error, error) {
	var none T
	f, err := os.Open(path)
	if err != nil {
		return none, nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return none, nil, errors.Join(err, f.Close())
	}
	parsed, err := parse(f, st.Size(), path)
	if err != nil {
		return none, nil, errors.Join(err, f.Close())
	}
	return parsed, f.Close, nil
}
