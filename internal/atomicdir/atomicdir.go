// Package atomicdir makes folders appear whole or not at all.
// Single files are internal/atomicfile's; this package is only for folders of files that belong together.
package atomicdir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Write calls fill with an empty temporary folder beside path, makes every file in it durable and renames the folder to
// path. A folder already at path is replaced; between the two renames the old one stays as path+".old", which Recover
// puts back after a crash. When fill or any step fails, path is left as it was and the temporary folder is removed.
func Write(path string, fill func(dir string) error) (err error) {
	parent := filepath.Dir(path)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return fmt.Errorf("create %s: %w", parent, err)
	}
	if err := Recover(path); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(parent, "."+filepath.Base(path)+".tmp-")
	if err != nil {
		return fmt.Errorf("create a temporary folder for %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	if err := os.Chmod(tmp, 0o755); err != nil {
		return fmt.Errorf("set mode of %s: %w", tmp, err)
	}
	if err := fill(tmp); err != nil {
		return err
	}
	if err := syncTree(tmp); err != nil {
		return err
	}
	old := path + ".old"
	replaced := false
	if _, err := os.Lstat(path); err == nil {
		if err := os.Rename(path, old); err != nil {
			return fmt.Errorf("move %s aside: %w", path, err)
		}
		replaced = true
	}
	if err := os.Rename(tmp, path); err != nil {
		if replaced {
			return errors.Join(fmt.Errorf("put %s in place: %w", path, err), os.Rename(old, path))
		}
		return fmt.Errorf("put %s in place: %w", path, err)
	}
	if err := syncPath(parent); err != nil {
		return err
	}
	if replaced {
		if err := os.RemoveAll(old); err != nil {
			return fmt.Errorf("remove the replaced folder: %w", err)
		}
	}
	return nil
}

// Recover finishes or undoes a Write to path that a crash interrupted: it removes temporary folders left beside path and
// restores path+".old" when path itself is missing.
func Recover(path string) error {
	old := path + ".old"
	if _, err := os.Lstat(old); err == nil {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			if err := os.Rename(old, path); err != nil {
				return fmt.Errorf("restore %s: %w", path, err)
			}
		} else if err := os.RemoveAll(old); err != nil {
			return fmt.Errorf("remove %s: %w", old, err)
		}
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp-*"))
	if err != nil {
		return fmt.Errorf("look for leftovers of %s: %w", path, err)
	}
	for _, dir := range left {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove %s: %w", dir, err)
		}
	}
	return nil
}

func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return syncPath(p)
	})
}
