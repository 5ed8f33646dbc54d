package assist

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSource(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f.py")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	write("a\r\nb\r\nc")
	for _, c := range []struct {
		first, last              int
		before, selection, after string
	}{{0, 0, "", "a\r\nb\r\nc", ""}, {1, 1, "", "a\r\n", "b\r\nc"}, {2, 3, "a\r\n", "b\r\nc", ""}, {3, 3, "a\r\nb\r\n", "c", ""}} {
		s, err := OpenSource(path, c.first, c.last)
		if err != nil {
			t.Fatal(err)
		}
		if r := s.Request(); r.Before != c.before || r.Selection != c.selection || r.After != c.after || r.File != filepath.ToSlash(path) {
			t.Errorf("%d:%d: found %+v", c.first, c.last, r)
		}
	}
	var invalid *InvalidError
	for _, c := range [][2]int{{0, 2}, {2, 4}, {3, 1}, {-1, 1}, {5, 5}} {
		if _, err := OpenSource(path, c[0], c[1]); !errors.As(err, &invalid) {
			t.Errorf("%v: found error %v", c, err)
		}
	}
	s, err := OpenSource(path, 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link.py")
	if err := os.Symlink("f.py", link); err != nil {
		t.Fatal(err)
	}
	linked, err := OpenSource(link, 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	if changed, err := linked.Apply(&Edit{Place: Replace, NewText: "B\r\n"}); err != nil || changed != link {
		t.Errorf("found %s (%v)", changed, err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode().IsRegular() {
		t.Errorf("the link became a file (%v)", err)
	}
	content, _ := os.ReadFile(path)
	info, err := os.Stat(path)
	if err != nil || string(content) != "a\r\nB\r\nc" || info.Mode().Perm() != 0o640 {
		t.Errorf("found %q, mode %v (%v)", content, info.Mode(), err)
	}
	if _, err := s.Apply(&Edit{Place: Replace, NewText: "X"}); err == nil || !strings.Contains(err.Error(), "has changed meanwhile") {
		t.Errorf("found error %v", err)
	}
	if content, _ := os.ReadFile(path); string(content) != "a\r\nB\r\nc" {
		t.Errorf("found %q after a refusal", content)
	}
	if s, err = OpenSource(path, 3, 3); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply(&Edit{Place: Below, NewText: "\r\nd\r\n"}); err != nil {
		t.Error(err)
	}
	if content, _ := os.ReadFile(path); string(content) != "a\r\nB\r\nc\r\nd\r\n" {
		t.Errorf("found %q", content)
	}
	test := filepath.Join(dir, "test_f.py")
	for i, want := range []string{"", "the file exists"} {
		_, err := s.Apply(&Edit{Place: New, File: filepath.ToSlash(test), NewText: "t\n"})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%d: found error %v", i, err)
		}
	}
	if _, err := s.Apply(&Edit{Place: New, NewText: "t\n"}); err == nil {
		t.Error("a new file without a name: expected an error")
	}
}
