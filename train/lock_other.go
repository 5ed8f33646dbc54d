//go:build !unix

package train

// lock does nothing where folders cannot be locked.
func lock(string) (unlock func() error, err error) { return func() error { return nil }, nil }
