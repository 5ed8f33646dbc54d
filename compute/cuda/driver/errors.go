package driver

import (
	"fmt"
	"unsafe"

	"autodev/compute/cuda/dynlib"
)

// Error is a call that failed.
type Error struct {
	Call   string // the driver's function
	Result Result
	Name   string // CUDA_ERROR_..., from the driver
	Text   string // the driver's description
	Detail string // what was asked, or the compiler's log; may be empty
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%s: %s (%d): %s", e.Call, e.Name, e.Result, e.Text)
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

// Is makes errors.Is(err, driver.OutOfMemory) and the like work.
func (e *Error) Is(target error) bool {
	r, ok := target.(Result)
	return ok && r == e.Result
}

// Error makes a Result a target of errors.Is; the driver's text is in *Error.
func (r Result) Error() string { return fmt.Sprintf("CUDA result %d", int32(r)) }

// check turns a result into an error.
func (a *API) check(call string, r uintptr, detail ...any) error {
	if int32(r) == 0 {
		return nil
	}
	e := &Error{Call: call, Result: Result(int32(r))}
	e.Name, e.Text = a.describe(e.Result)
	if len(detail) > 0 {
		e.Detail = fmt.Sprintf(detail[0].(string), detail[1:]...)
	}
	return e
}

func (a *API) describe(r Result) (name, text string) {
	name, text = "unnamed error", "the driver has no description"
	p := new(uintptr)
	if int32(dynlib.Call(a.getErrorName, uintptr(r), uintptr(unsafe.Pointer(p)))) == 0 {
		name = dynlib.String(*p)
	}
	*p = 0
	if int32(dynlib.Call(a.getErrorString, uintptr(r), uintptr(unsafe.Pointer(p)))) == 0 {
		text = dynlib.String(*p)
	}
	return name, text
}
