//go:build !linux || !(amd64 || arm64) || nocuda

package dynlib

func open(string) (*Library, error) { return nil, ErrUnsupported }

func symbol(uintptr, string) (uintptr, error) { return 0, ErrUnsupported }

// Call cannot be reached: no library can be opened.
func Call(uintptr, ...uintptr) uintptr { panic(ErrUnsupported) }
