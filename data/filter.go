package data

import (
	"context"
	"fmt"
	"io"
)

// Filter returns the documents of src for which keep is true, with the cursors of src. The name goes into the fingerprint,
// and keep must be a pure function of the document and of what name says.
func Filter(src Source, name string, keep func(Document) bool) Source {
	return &filtered{Source: src, name: name, keep: keep}
}

type filtered struct {
	Source
	name string
	keep func(Document) bool
}

func (f *filtered) Fingerprint() string { return f.Source.Fingerprint() + "|" + f.name }

func (f *filtered) OpenUnit(ctx context.Context, unit int, row int64) (Reader, error) {
	r, err := f.Source.OpenUnit(ctx, unit, row)
	if err != nil {
		return nil, err
	}
	return &filterReader{Reader: r, keep: f.keep}, nil
}

type filterReader struct {
	Reader
	keep func(Document) bool
}

func (r *filterReader) Next() (Document, Cursor, error) {
	for {
		doc, at, err := r.Reader.Next()
		if err != nil || r.keep(doc) {
			return doc, at, err
		}
	}
}

// Limit returns the first n documents of src. It reads that many documents once to find where they end.
func Limit(ctx context.Context, src Source, n int) (Source, error) {
	if n <= 0 {
		return nil, fmt.Errorf("limit of %d documents: want at least 1", n)
	}
	r := Open(ctx, src, Cursor{})
	last := Cursor{}
	for range n {
		_, at, err := r.Next()
		if err == io.EOF {
			return src, r.Close()
		}
		if err != nil {
			return nil, err
		}
		last = at
	}
	if err := r.Close(); err != nil {
		return nil, err
	}
	return &limited{Source: src, last: last}, nil
}

type limited struct {
	Source
	last Cursor // of the last document
}

func (l *limited) Units() int { return l.last.Unit + 1 }

func (l *limited) Fingerprint() string {
	return fmt.Sprintf("%s|to %d/%d", l.Source.Fingerprint(), l.last.Unit, l.last.Row)
}

func (l *limited) OpenUnit(ctx context.Context, unit int, row int64) (Reader, error) {
	if unit > l.last.Unit {
		return nil, fmt.Errorf("unit %d of %d", unit, l.Units())
	}
	r, err := l.Source.OpenUnit(ctx, unit, row)
	if err != nil || unit < l.last.Unit {
		return r, err
	}
	return &limitReader{Reader: r, last: l.last.Row}, nil
}

type limitReader struct {
	Reader
	last int64
	done bool
}

func (r *limitReader) Next() (Document, Cursor, error) {
	if r.done {
		return Document{}, Cursor{}, io.EOF
	}
	doc, at, err := r.Reader.Next()
	if err == nil && at.Row >= r.last {
		r.done = true
		if at.Row > r.last {
			return Document{}, at, io.EOF
		}
	}
	return doc, at, err
}

// Concat returns the documents of several sources one after the other.
func Concat(sources ...Source) Source {
	if len(sources) == 1 {
		return sources[0]
	}
	return concat(sources)
}

type concat []Source

func (c concat) Units() int {
	n := 0
	for _, s := range c {
		n += s.Units()
	}
	return n
}

func (c concat) Fingerprint() string {
	f := ""
	for i, s := range c {
		if i > 0 {
			f += "+"
		}
		f += s.Fingerprint()
	}
	return f
}

func (c concat) OpenUnit(ctx context.Context, unit int, row int64) (Reader, error) {
	if unit < 0 {
		return nil, fmt.Errorf("unit %d", unit)
	}
	first := 0
	for _, s := range c {
		if unit < first+s.Units() {
			r, err := s.OpenUnit(ctx, unit-first, row)
			if err != nil || first == 0 {
				return r, err
			}
			return &offsetReader{Reader: r, first: first}, nil
		}
		first += s.Units()
	}
	return nil, fmt.Errorf("unit %d of %d", unit, first)
}

type offsetReader struct {
	Reader
	first int
}

func (r *offsetReader) Next() (Document, Cursor, error) {
	doc, at, err := r.Reader.Next()
	at.Unit += r.first
	return doc, at, err
}
