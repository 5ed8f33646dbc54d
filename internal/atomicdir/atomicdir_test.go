package atomicdir

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func entries(t *testing.T, dir string) (names []string) {
	t.Helper()
	es, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range es {
		names = append(names, e.Name())
	}
	return names
}

func TestWriteReplacesWhole(t *testing.T) {
	parent := t.TempDir()
	path := filepath.Join(parent, "out")
	for _, text := range []string{"first", "second"} {
		if err := Write(path, func(dir string) error { put(t, filepath.Join(dir, "f"), text); return nil }); err != nil {
			t.Fatal(err)
		}
		if got := read(t, filepath.Join(path, "f")); got != text {
			t.Fatalf("found %q, expected %q", got, text)
		}
		if n := entries(t, parent); len(n) != 1 {
			t.Fatalf("left beside the folder: %v", n)
		}
	}
}

func TestWriteFailureLeavesTheOldFolder(t *testing.T) {
	parent := t.TempDir()
	path := filepath.Join(parent, "out")
	if err := Write(path, func(dir string) error { put(t, filepath.Join(dir, "f"), "old"); return nil }); err != nil {
		t.Fatal(err)
	}
	full := errors.New("disk full")
	err := Write(path, func(dir string) error { put(t, filepath.Join(dir, "f"), "half"); return full })
	if !errors.Is(err, full) {
		t.Fatalf("error %v, expected it to wrap %v", err, full)
	}
	if got := read(t, filepath.Join(path, "f")); got != "old" {
		t.Fatalf("found %q", got)
	}
	if n := entries(t, parent); len(n) != 1 {
		t.Fatalf("left behind: %v", n)
	}
}

func TestRecoverAfterACrashBetweenTheRenames(t *testing.T) {
	parent := t.TempDir()
	path := filepath.Join(parent, "out")
	for _, d := range []string{path + ".old", filepath.Join(parent, ".out.tmp-123")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(d, "f"), filepath.Base(d))
	}
	if err := Recover(path); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(path, "f")); got != "out.old" {
		t.Fatalf("found %q", got)
	}
	if n := entries(t, parent); len(n) != 1 {
		t.Fatalf("left behind: %v", n)
	}
}
