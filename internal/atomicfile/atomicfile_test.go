package atomicfile

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func expectFiles(t *testing.T, dir string, n int) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != n {
		t.Errorf("the folder holds %v, expected %d files", entries, n)
	}
}

func TestWriteFileReplacesWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.json")
	for _, text := range []string{"a longer first text", "second"} {
		if err := WriteFile(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got := read(t, path); got != text {
			t.Errorf("found %q, expected %q", got, text)
		}
	}
	expectFiles(t, filepath.Dir(path), 1)
}

func TestPendingFileShowsNothingUntilItIsWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := WriteFile(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	f, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path); got != "old" {
		t.Errorf("while a new file is written, found %q, expected %q", got, "old")
	}
	if err := f.Cleanup(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path); got != "old" {
		t.Errorf("after giving up, found %q, expected %q", got, "old")
	}
	expectFiles(t, filepath.Dir(path), 1)
}

func TestCreateNamesThePath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing", "f")
	_, err := Create(path)
	if !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), "create "+path+": ") {
		t.Errorf("error %v, expected one of %s", err, path)
	}
	if err := WriteFile(path, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, expected %v", err, fs.ErrNotExist)
	}
}

func TestWriteFileThatCannotBePutInPlaceLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.MkdirAll(filepath.Join(path, "below"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(path, []byte("text")); err == nil || !strings.HasPrefix(err.Error(), "write "+path+": ") {
		t.Errorf("a file in place of a folder: error %v", err)
	}
	expectFiles(t, dir, 1)
}

func TestWriteFileFollowsLinks(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	if err := os.WriteFile(target, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("target", link); err != nil {
		t.Skip(err)
	}
	if err := WriteFile(link, []byte("new")); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Lstat(link); err != nil || st.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link is %v (%v), expected a link still", st.Mode(), err)
	}
	if got := read(t, target); got != "new" {
		t.Errorf("found %q behind the link, expected %q", got, "new")
	}
	expectFiles(t, dir, 2)
}

// Run as root, replacing /dev/null by a file would break the system.
func TestWriteFileReplacesNoSocket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Skip(err)
	}
	defer l.Close()
	if err := WriteFile(path, []byte("text")); err == nil || !strings.Contains(err.Error(), path+": found mode S") {
		t.Errorf("error %v", err)
	}
	if st, err := os.Lstat(path); err != nil || st.Mode()&fs.ModeSocket == 0 {
		t.Errorf("the socket is %v (%v)", st, err)
	}
}
