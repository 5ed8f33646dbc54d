package cublaslt

import (
	"errors"
	"fmt"
	"unsafe"

	"autodev/compute/cuda/dynlib"
)

// Library is the loaded library.
type Library struct {
	Path string

	version, create, destroy, statusName, statusString,
	descCreate, descDestroy, descSet, layoutCreate, layoutDestroy, layoutSet,
	prefCreate, prefDestroy, prefSet, heuristic, matmul uintptr
}

// Load loads the library from path, or from where dynlib.CublasLt looks for versions up to newest when path is empty. The driver must have been
// loaded.
func Load(path string, newest int) (*Library, error) {
	lib, err := dynlib.CublasLt(newest).Open(path)
	if err != nil {
		return nil, err
	}
	l := &Library{Path: lib.Path}
	const p = "cublasLt"
	return l, lib.Symbols(map[string]*uintptr{
		p + "GetVersion": &l.version, p + "Create": &l.create, p + "Destroy": &l.destroy, p + "GetStatusName": &l.statusName, p + "GetStatusString": &l.statusString,
		p + "MatmulDescCreate": &l.descCreate, p + "MatmulDescDestroy": &l.descDestroy, p + "MatmulDescSetAttribute": &l.descSet,
		p + "MatrixLayoutCreate": &l.layoutCreate, p + "MatrixLayoutDestroy": &l.layoutDestroy, p + "MatrixLayoutSetAttribute": &l.layoutSet,
		p + "MatmulPreferenceCreate": &l.prefCreate, p + "MatmulPreferenceDestroy": &l.prefDestroy, p + "MatmulPreferenceSetAttribute": &l.prefSet,
		p + "MatmulAlgoGetHeuristic": &l.heuristic, p + "Matmul": &l.matmul,
	})
}

// Version returns the library's version, 10000·major + 100·minor + patch.
func (l *Library) Version() int { return int(dynlib.Call(l.version)) }

// Error is a call that failed.
type Error struct {
	Call       string
	Status     int
	Name, Text string // from the library
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s: %s (%d): %s", e.Call, e.Name, e.Status, e.Text)
}

// ErrNoAlgorithm says that the library has no way to compute a product.
var ErrNoAlgorithm = errors.New("cuBLASLt has no algorithm for it")

// Unsupported reports whether the library cannot compute a product, which it may without its epilogue.
func Unsupported(err error) bool {
	var refused *Error
	return errors.Is(err, ErrNoAlgorithm) || errors.As(err, &refused) && (refused.Status == statusInvalid || refused.Status == statusNotSupported)
}

func (l *Library) check(call string, r uintptr) error {
	if int32(r) == 0 {
		return nil
	}
	return &Error{call, int(int32(r)), dynlib.String(dynlib.Call(l.statusName, r)), dynlib.String(dynlib.Call(l.statusString, r))}
}

// setter returns a function that sets attributes of object by f until one fails.
func (l *Library) setter(call string, f, object uintptr, err *error) func(attribute int, v any) {
	return func(attribute int, v any) {
		if *err != nil {
			return
		}
		var r uintptr
		switch v := v.(type) {
		case int32:
			p := &v
			r = dynlib.Call(f, object, uintptr(attribute), uintptr(unsafe.Pointer(p)), 4)
		case uint64:
			p := &v
			r = dynlib.Call(f, object, uintptr(attribute), uintptr(unsafe.Pointer(p)), 8)
		}
		*err = l.check(call, r)
	}
}
