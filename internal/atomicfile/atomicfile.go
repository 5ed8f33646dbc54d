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
	"os"
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

// Create begins a file that is to appear at path, or, where path is a symbolic link, at what it leads to. The error names path,
// not the temporary file. What is no file, such as /dev/null, is not replaced: it is an error.
func Create(path string) (Pending, error) {
	to := path
	if st, err := os.Stat(path); err == nil {
		if mode := st.Mode(); !mode.IsRegular() && !mode.IsDir() {
			return nil, fmt.Errorf("create %s: found mode %v, expected a file or none", path, mode)
		}
		if to, err = filepath.EvalSymlinks(path); err != nil {
			return nil, fmt.Errorf("create %s: %w", path, err)
		}
	}
	f, err := create(filepath.Dir(to), to)
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
