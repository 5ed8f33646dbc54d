package sizedfile

import (
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

func parse(io.ReaderAt, int64, string) (int, error) { return 1, nil }

// What is no file of a size is refused without being opened: opening a pipe waits for its writer, and reading a device may never end.
func TestOnlyFilesOfASize(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "socket"))
	if err != nil {
		t.Skip(err)
	}
	defer l.Close()
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/zero", filepath.Join(dir, "zero")); err != nil {
		t.Skip(err)
	}
	for name, want := range map[string]string{"socket": "mode S", "folder": "a folder", "zero": "mode D"} {
		if _, _, err := Open(filepath.Join(dir, name), parse); err == nil || !strings.Contains(err.Error(), name+": "+want) {
			t.Errorf("Open(%s): %v", name, err)
		}
		if _, err := ReadFS(os.DirFS(dir), name, "shown", 10); err == nil || !strings.HasPrefix(err.Error(), "shown: "+want) {
			t.Errorf("ReadFS(%s): %v", name, err)
		}
	}
}

// growing says that it is smaller than it is.
type growing struct{ fs.FS }

func (g growing) Stat(name string) (fs.FileInfo, error) { return fs.Stat(g.FS, "small") }

func TestReadFSLimit(t *testing.T) {
	files := fstest.MapFS{"small": {Data: []byte("1234")}, "large": {Data: []byte("12345678")}}
	for _, c := range []struct {
		fsys  fs.FS
		name  string
		limit int64
		want  string
	}{
		{files, "small", 4, ""},
		{files, "small", 3, "shown: 4 bytes, expected at most 3"},
		{growing{files}, "large", 5, "shown: 6 bytes, expected at most 5"},
		{files, "none", 5, "shown: file does not exist"},
	} {
		b, err := ReadFS(c.fsys, c.name, "shown", c.limit)
		if c.want == "" {
			if err != nil || string(b) != "1234" {
				t.Errorf("%s: %q, %v", c.name, b, err)
			}
		} else if err == nil || err.Error() != c.want {
			t.Errorf("%s within %d: %v, expected %s", c.name, c.limit, err, c.want)
		}
	}
}
