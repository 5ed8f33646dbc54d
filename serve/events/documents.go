package events

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// maxLineBytes bounds a line: its texts stand in it twice, and JSON may write a byte as six.
const maxLineBytes = 16 << 20

// ReadLines calls each with the lines of r, in order. name is for errors.
func ReadLines(r io.Reader, name string, each func(Line) error) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 64<<10), maxLineBytes)
	for n := 1; s.Scan(); n++ {
		if len(bytes.TrimSpace(s.Bytes())) == 0 {
			continue
		}
		var l Line
		if err := json.Unmarshal(s.Bytes(), &l); err != nil {
			return fmt.Errorf("%s: line %d: expected an event: %w", name, n, err)
		}
		if err := each(l); err != nil {
			return err
		}
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// Documents chooses from lines, oldest first, those to learn from: what was taken, as text, unless one of the next lines of the same file
// has it too, with what stood before it. The order stays.
type Documents struct {
	pending map[place][]*entry
	order   []*entry
}

type place struct{ client, model, path, language string }

type entry struct {
	line Line
	mark string
	held bool // by a later one
}

const (
	markBytes = 200 // of what stood before, by which a place in a file is known again
	nextLines = 32  // that are looked at
)

// Add takes the next line.
func (d *Documents) Add(l Line) {
	if l.Type != Select || l.Content == nil || strings.TrimSpace(l.Taken) == "" {
		return
	}
	if d.pending == nil {
		d.pending = map[place][]*entry{}
	}
	key := place{l.Client, l.Model, l.Path, l.Language}
	before := d.pending[key]
	for _, e := range before {
		e.held = e.held || strings.Contains(*l.Content, e.mark)
	}
	e := &entry{line: l, mark: tail(l.Prefix, markBytes) + l.Taken}
	if len(before) == nextLines {
		before = before[1:]
	}
	d.pending[key] = append(before, e)
	d.order = append(d.order, e)
}

// All calls each with the lines that were chosen.
func (d *Documents) All(each func(Line) error) error {
	for _, e := range d.order {
		if e.held {
			continue
		}
		if err := each(e.line); err != nil {
			return err
		}
	}
	return nil
}
