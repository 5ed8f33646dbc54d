// Package sharedtest finds the real inputs (corpus, tokenizers, golden outputs) that tests use but the repository does not carry.
// It is for tests only.
package sharedtest

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// Path returns the path of name below the shared folder: $AUTODEV_SHARED, or the folder "shared" beside the
// repository. The test is skipped, saying why, when it is not there.
func Path(tb testing.TB, name string) string {
	tb.Helper()
	p := filepath.Join(Root(), filepath.FromSlash(name))
	if _, err := os.Stat(p); err != nil {
		tb.Skipf("real input %s is not here: set AUTODEV_SHARED to the folder that holds it (%v)", name, err)
	}
	return p
}

// Root returns the folder Path looks in; it may not exist.
func Root() string {
	if dir := os.Getenv("AUTODEV_SHARED"); dir != "" {
		return dir
	}
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		return "shared"
	}
	return filepath.Join(filepath.Dir(file), "..", "..", "..", "shared")
}
