package dynlib

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"unsafe"
)

// ErrUnsupported says that this build cannot load libraries.
var ErrUnsupported = errors.New("this build of AutoDev carries no CUDA (" + runtime.GOOS + "/" + runtime.GOARCH + "; it needs linux on amd64 or arm64, built without the tag nocuda)")

// Library is a loaded library. It is never unloaded.
type Library struct {
	Path   string // what was given to the loader
	handle uintptr
}

// Symbols sets each address to that of the function named, and reports all that the library lacks.
func (l *Library) Symbols(functions map[string]*uintptr) error {
	var missing []string
	for name, to := range functions {
		p, err := symbol(l.handle, name)
		if err != nil {
			missing = append(missing, name)
			continue
		}
		*to = p
	}
	if missing != nil {
		return fmt.Errorf("%s lacks %s: it is too old", l.Path, strings.Join(missing, ", "))
	}
	return nil
}

// String returns the text at the C string p, of at most 4096 bytes.
func String(p uintptr) string {
	if p == 0 {
		return ""
	}
	// The address is C memory: the conversion below is the one that vet accepts.
	start := *(*unsafe.Pointer)(unsafe.Pointer(&p))
	n := 0
	for n < 4096 && *(*byte)(unsafe.Add(start, n)) != 0 {
		n++
	}
	return string(unsafe.Slice((*byte)(start), n))
}
