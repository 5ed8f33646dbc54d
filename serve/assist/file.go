package assist

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"autodev/internal/atomicfile"
)

// Source is a file on disk, of which lines are selected.
type Source struct {
	path     string
	content  []byte
	from, to int // bytes of the selection
	first    int // its lines, from 0
	last     int // the line after it
}

// maxSource bounds files, in bytes: what people select is in far smaller ones.
const maxSource = 64 << 20

// OpenSource reads a file and selects its lines first to last, counted from 1; 0 and 0 select all.
func OpenSource(path string, first, last int) (*Source, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxSource {
		return nil, fmt.Errorf("%s: expected a file of at most %d MiB", path, maxSource>>20)
	}
	s := &Source{path: path}
	if s.content, err = os.ReadFile(path); err != nil {
		return nil, err
	}
	lines := bytes.SplitAfter(s.content, []byte("\n"))
	if n := len(lines); len(lines[n-1]) == 0 {
		lines = lines[:n-1]
	}
	if first == 0 && last == 0 {
		first, last = 1, len(lines)
	}
	if first < 1 || last < first-1 || last > len(lines) {
		return nil, &InvalidError{"lines", fmt.Sprintf("found %d:%d, expected lines of %s, which has %d", first, last, path, len(lines))}
	}
	s.first, s.last = first-1, last
	for i, l := range lines {
		if i < s.first {
			s.from += len(l)
		}
		if i < s.last {
			s.to += len(l)
		}
	}
	return s, nil
}

// Request returns the request for the selection.
func (s *Source) Request() Request {
	return Request{
		File: filepath.ToSlash(s.path), Selection: string(s.content[s.from:s.to]), Before: string(s.content[:s.from]), After: string(s.content[s.to:]),
		Range: &Range{Position{s.first, 0}, Position{s.last, 0}},
	}
}

// Apply makes an edit's change on disk, whole or not at all, and returns the file that it changed or made. It refuses when the file is no longer what was
// read, or when a file that is to be new exists.
func (s *Source) Apply(e *Edit) (string, error) {
	if e.Place == New {
		path := filepath.FromSlash(e.File)
		if path == "" {
			return "", errors.New("there is no custom for where this language's tests are: nothing was written")
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("%s: the file exists, expected none: nothing was written", path)
		}
		return path, atomicfile.WriteFile(path, []byte(e.NewText))
	}
	// A link stays one: what it leads to changes.
	path, err := filepath.EvalSymlinks(s.path)
	if err != nil {
		return "", err
	}
	now, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if !bytes.Equal(now, s.content) {
		return "", fmt.Errorf("%s: the file has changed meanwhile: nothing was written", s.path)
	}
	from := s.from
	if e.Place == Below {
		from = s.to
	}
	text := make([]byte, 0, len(now)+len(e.NewText))
	text = append(append(append(text, now[:from]...), e.NewText...), now[s.to:]...)
	return s.path, atomicfile.WriteFile(path, text)
}
