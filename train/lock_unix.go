//go:build unix

package train

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// lock keeps other processes from training into the same folder, whose unfinished files each would take for its own
// leftovers. The lock is the kernel's, so that it ends with the process however that ends.
func lock(dir string) (unlock func() error, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("out: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case err == nil:
		return f.Close, nil
	case errors.Is(err, unix.EWOULDBLOCK):
		return nil, errors.Join(fmt.Errorf("out: another run is writing to %s, expected a folder of its own", dir), f.Close())
	case errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.ENOLCK):
		// Some network file systems have no locks; that is no reason not to train there.
		return f.Close, nil
	}
	return nil, errors.Join(fmt.Errorf("out: lock %s: %w", dir, err), f.Close())
}
