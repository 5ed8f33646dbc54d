package cuda

import (
	"errors"
	"fmt"

	"autodev/compute/cuda/driver"
)

// OutOfMemoryError says what was asked of the device's memory and what there was.
type OutOfMemoryError struct {
	Device      string
	Asked       int64 // bytes, of all spaces together
	Free, Total int64 // bytes, before anything was allocated
	Fits        string
}

func (e *OutOfMemoryError) Error() string {
	s := fmt.Sprintf("%s: out of device memory: %s asked, %s of %s are free", e.Device, size(e.Asked), size(e.Free), size(e.Total))
	if e.Fits != "" {
		s += "; " + e.Fits
	}
	return s
}

// LostError says that the device can no longer be used by this process. Nothing that was on it can be read.
type LostError struct {
	Device string
	First  error // what ended it
}

func (e *LostError) Error() string {
	return fmt.Sprintf("%s is lost: %v; start again: training goes on from its last checkpoint", e.Device, e.First)
}

func (e *LostError) Unwrap() error { return e.First }

// TooOldError says that the driver cannot load what AutoDev brings.
type TooOldError struct {
	Found, Needed int // CUDA versions, 1000·major + 10·minor
}

func (e *TooOldError) Error() string {
	v := func(n int) string { return fmt.Sprintf("%d.%d", n/1000, n%1000/10) }
	return fmt.Sprintf("the NVIDIA driver supports CUDA %s, expected at least %s: install a newer driver", v(e.Found), v(e.Needed))
}

// sticky returns the driver's error in err that ended the context, or nil.
func sticky(err error) error {
	var e *driver.Error
	if errors.As(err, &e) && e.Result.Sticky() {
		return e
	}
	return nil
}

// size writes bytes for people.
func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d bytes", n)
}
