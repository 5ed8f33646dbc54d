// Package atomicfile makes single files appear whole or not at all: renameio where it exists, the same steps by hand on Windows.
//
//	atomicfile.go      what callers use
//	create_unix.go     over github.com/google/renameio/v2
//	create_windows.go  for Windows, which renameio does not support
//
// What must not live here: folders of files that belong together (internal/atomicdir).
package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
)

// Mode is that of a new file, before the umask. A file that is replaced keeps its own.
const Mode fs.FileMode = 0o644

// Pending is a file in the making, beside the path it is to have. The methods are renameio's.
type Pending interface {
	io.Writer
	// CloseAtomicallyReplace makes what was written durable and puts it at the path, in place of what was there.
	CloseAtomicallyReplace() error
	// Cleanup removes a file that was not put in place; after CloseAtomicallyReplace has succeeded it does nothing.
	Cleanup() error
}

// Create begins a file that is to appear at path. The error names path, not the temporary file.
func Create(path string) (Pending, error) {
	f, err := create(filepath.Dir(path), path)
	if err != nil {
		var at *fs.PathError
		if errors.As(err, &at) {
			err = at.Err
		}
		return nil, fmt.Errorf("create %s: %w", path, err)
	}
	return f, nil
}

// WriteFile makes path a file of the given content. When a step fails, what was at path stays as it was.
func WriteFile(path string, content []byte) error {
	f, err := Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.CloseAtomicallyReplace()
	}
	if err := errors.Join(err, f.Cleanup()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
