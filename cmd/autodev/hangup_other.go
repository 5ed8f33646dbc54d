//go:build !unix

package main

import "os"

// hangups catches nothing: there is no such signal.
func hangups() (signals <-chan os.Signal, stop func()) { return nil, func() {} }
