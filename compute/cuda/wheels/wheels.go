// Package wheels finds what NVIDIA distributes as Python wheels (PyTorch installs them) and compares constants with its headers. It is for tests
// only.
package wheels

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const missing = "AUTODEV_PYTHON names no Python with NVIDIA's wheels"

// Library returns the path of a library of the wheels by a pattern of its name ("libcublasLt.so.*"). The test is skipped where there is none.
func Library(t testing.TB, name string) string {
	t.Helper()
	path := find("*/lib/" + name)
	if path == "" {
		t.Skipf("SKIPPED: no %s of NVIDIA's: %s", name, missing)
	}
	return path
}

// find returns the first file whose path below the package nvidia fits the pattern, or nothing.
func find(pattern string) string {
	python := os.Getenv("AUTODEV_PYTHON")
	if python == "" {
		return ""
	}
	// The package has no file of its own: its path is every folder that wheels have put something into.
	folders, err := exec.Command(python, "-c", "import nvidia; print(*nvidia.__path__, sep='\\n')").Output()
	if err != nil {
		return ""
	}
	for folder := range strings.Lines(string(folders)) {
		if files, _ := filepath.Glob(filepath.Join(strings.TrimSpace(folder), pattern)); len(files) > 0 {
			return files[0]
		}
	}
	return ""
}
