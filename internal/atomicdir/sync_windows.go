package atomicdir

import (
	"errors"
	"fmt"
	"os"
)

// syncPath makes a file's content durable. Windows flushes only files that are open for writing, and cannot flush a folder's list
// of names.
func syncPath(p string) error {
	if st, err := os.Stat(p); err != nil {
		return fmt.Errorf("sync: %w", err)
	} else if st.IsDir() {
		return nil
	}
	f, err := os.OpenFile(p, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open for sync: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", p, err)
	}
	return nil
}
