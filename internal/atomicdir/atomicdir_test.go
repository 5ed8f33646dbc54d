package atomicdir

import (
	"errors"
	"io/fs"
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
	for _, d := range []string{filepath.Join(parent, ".out.old"), filepath.Join(parent, ".out.tmp-123"), filepath.Join(parent, ".out.tmp-removed")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(d, "f"), filepath.Base(d))
	}
	if err := Recover(path); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(path, "f")); got != ".out.old" {
		t.Fatalf("found %q", got)
	}
	if n := entries(t, parent); len(n) != 1 {
		t.Fatalf("left behind: %v", n)
	}
}

// What a user put beside the folder is none of ours, whatever it is called.
func TestWriteLeavesNeighboursAlone(t *testing.T) {
	parent := filepath.Join(t.TempDir(), "[odd")
	path := filepath.Join(parent, "out[1]")
	theirs := []string{"out[1].old", ".out1.tmp-123", ".out[1].tmp-7.tmp-123", ".out[1].tmp-7.old"}
	for _, name := range theirs {
		if err := os.MkdirAll(filepath.Join(parent, name), 0o755); err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(parent, name, "f"), "theirs")
	}
	put(t, filepath.Join(parent, ".out[1].tmp-123"), "ours")
	for _, text := range []string{"first", "second"} {
		if err := Write(path, func(dir string) error { put(t, filepath.Join(dir, "f"), text); return nil }); err != nil {
			t.Fatal(err)
		}
		if got := read(t, filepath.Join(path, "f")); got != text {
			t.Errorf("found %q, expected %q", got, text)
		}
	}
	for _, name := range theirs {
		if got := read(t, filepath.Join(parent, name, "f")); got != "theirs" {
			t.Errorf("%s: found %q", name, got)
		}
	}
	if n := entries(t, parent); len(n) != len(theirs)+1 {
		t.Errorf("beside the folder: %v", n)
	}
}

func TestWriteToANameThatEndsInASlash(t *testing.T) {
	parent := t.TempDir()
	for range 2 {
		if err := Write(filepath.Join(parent, "out")+"/", func(dir string) error { put(t, filepath.Join(dir, "f"), "x"); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if n := entries(t, parent); len(n) != 1 || read(t, filepath.Join(parent, "out", "f")) != "x" {
		t.Errorf("found %v", n)
	}
}

func TestRemove(t *testing.T) {
	parent := t.TempDir()
	path := filepath.Join(parent, "out")
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(path, "f"), "x")
	if err := Remove(path); err != nil {
		t.Fatal(err)
	}
	if n := entries(t, parent); len(n) > 0 {
		t.Errorf("left: %v", n)
	}
	if err := Remove(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a folder that is not there: %v", err)
	}
}
