//go:build linux && (amd64 || arm64) && !nocuda

package dynlib

import "github.com/ebitengine/purego"

// open keeps the library's symbols its own: were they global, a library loaded later would call the functions of one loaded before that has
// the same names instead of those that it is linked with. libcublasLt is linked with the C library alone and opens libcuda.so.1 by that name: the
// loader gives it the library of this name that has been opened, wherever that was found.
func open(path string) (*Library, error) {
	h, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, err
	}
	return &Library{path, h}, nil
}

func symbol(handle uintptr, name string) (uintptr, error) { return purego.Dlsym(handle, name) }

// Call calls the C function at fn, whose arguments are integers and pointers, and returns its result. Memory that args point to is kept by
// the conversions in the call expression, as with syscall.Syscall.
//
//go:uintptrescapes
func Call(fn uintptr, args ...uintptr) uintptr {
	r, _, _ := purego.SyscallN(fn, args...)
	return r
}
