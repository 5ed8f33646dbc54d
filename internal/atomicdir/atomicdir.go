// Package atomicdir makes folders appear whole or not at all.
// Single files are internal/atomicfile's; this package is only for folders of files that belong together.
package atomicdir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Names beside a folder "out" are hidden and so kept apart from a user's own, such as a copy "out.old": ".out.tmp-123" is not
// whole yet, ".out.old" is about to be replaced.
const (
	tmpMark = ".tmp-"
	oldMark = ".old"
)

func hidden(path, mark string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+mark)
}

// Write calls fill with an empty temporary folder beside path, makes every file in it durable and renames the folder to
// path. A folder already at path is replaced; between the two renames the old one stays beside it, and Recover puts it back
// after a crash. When fill or any step fails, path is left as it was and the temporary folder is removed.
func Write(path string, fill func(dir string) error) (err error) {
	path = filepath.Clean(path) // with a slash at its end, it would be its own parent
	parent := filepath.Dir(path)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return fmt.Errorf("create %s: %w", parent, err)
	}
	if err := Recover(path); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(parent, filepath.Base(hidden(path, tmpMark)))
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
	old := hidden(path, oldMark)
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

// Recover finishes or undoes a Write to path, or a Remove, that a crash interrupted: it removes temporary folders left beside
// path and puts a folder that was to be replaced back when path itself is missing.
func Recover(path string) error {
	path = filepath.Clean(path)
	old := hidden(path, oldMark)
	if _, err := os.Lstat(old); err == nil {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			if err := os.Rename(old, path); err != nil {
				return fmt.Errorf("restore %s: %w", path, err)
			}
		} else if err := os.RemoveAll(old); err != nil {
			return fmt.Errorf("remove %s: %w", old, err)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for leftovers of %s: %w", path, err)
	}
	for _, e := range entries {
		// What follows the mark has no dot, or it is of a folder "out.tmp-…".
		if rest, ok := strings.CutPrefix(e.Name(), filepath.Base(hidden(path, tmpMark))); !ok || strings.Contains(rest, ".") {
			continue
		}
		dir := filepath.Join(filepath.Dir(path), e.Name())
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove %s: %w", dir, err)
		}
	}
	return nil
}

// Remove removes the folder at path. It is renamed first, so that it never looks like a whole one while its files disappear;
// Recover finishes a Remove that was interrupted.
func Remove(path string) error {
	path = filepath.Clean(path)
	away := hidden(path, tmpMark+"removed")
	if err := os.Rename(path, away); err != nil {
		return err
	}
	return os.RemoveAll(away)
}

func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return syncPath(p)
	})
}
