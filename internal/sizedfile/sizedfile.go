// Package sizedfile opens and reads files that have a size: those on a disk. A pipe, whose reader may wait for ever, and a device,
// which may have no end, are refused before they are opened, for a folder from elsewhere may hold a link to anything. Formats
// must not live here.
package sizedfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Open opens the file at path and returns what parse makes of it, and the function that closes the file, which stays open for
// later reads. When parse fails the file is closed.
func Open[T any](path string, parse func(r io.ReaderAt, size int64, name string) (T, error)) (T, func() error, error) {
	var none T
	st, err := os.Stat(path)
	if err == nil {
		err = check(path, st)
	}
	if err != nil {
		return none, nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return none, nil, err
	}
	if st, err = f.Stat(); err != nil {
		return none, nil, errors.Join(err, f.Close())
	}
	parsed, err := parse(f, st.Size(), path)
	if err != nil {
		return none, nil, errors.Join(err, f.Close())
	}
	return parsed, f.Close, nil
}

// OpenFS opens a file of fsys and returns its size too.
func OpenFS(fsys fs.FS, name string) (fs.File, int64, error) {
	st, err := fs.Stat(fsys, name)
	if err == nil {
		err = check(name, st)
	}
	if err != nil {
		return nil, 0, err
	}
	f, err := fsys.Open(name)
	if err != nil {
		return nil, 0, err
	}
	return f, st.Size(), nil
}

// ReadFS reads a file of fsys of at most limit bytes; shown stands for it in errors.
func ReadFS(fsys fs.FS, name, shown string, limit int64) ([]byte, error) {
	b, err := readFS(fsys, name, limit)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", shown, Cause(err))
	}
	return b, nil
}

func readFS(fsys fs.FS, name string, limit int64) ([]byte, error) {
	f, size, err := OpenFS(fsys, name)
	if err != nil {
		return nil, err
	}
	defer f.Close() // it is only read
	var b bytes.Buffer
	if size <= limit {
		b.Grow(int(size) + bytes.MinRead)
		// No more than the limit, should the file grow meanwhile.
		if size, err = b.ReadFrom(io.LimitReader(f, limit+1)); err != nil {
			return nil, err
		}
	}
	if size > limit {
		return nil, fmt.Errorf("%d bytes, expected at most %d", size, limit)
	}
	return b.Bytes(), nil
}

// Cause drops the operation and the path of a file error, for messages that name the file better.
func Cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// check refuses what is no ordinary file.
func check(name string, st fs.FileInfo) error {
	switch mode := st.Mode(); {
	case mode.IsDir():
		return &fs.PathError{Op: "open", Path: name, Err: errors.New("a folder, expected a file")}
	case !mode.IsRegular():
		return &fs.PathError{Op: "open", Path: name, Err: fmt.Errorf("mode %v, expected a file", mode)}
	}
	return nil
}
