package data

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
)

// Document is one text to learn from or to score.
type Document struct {
	Content    string  // the text, UTF-8
	Repository string  // "owner/name" or package; "" when unknown
	Path       string  // path within the repository, or below the folder that was opened; "" when unknown
	Language   string  // the-stack's folder name of the language: "python", "c-sharp", …; "" when unknown
	IDs        []int32 // ready token ids; nil unless the source carries input_ids, and then Content may be empty
	Origin     Origin  // where the document was read, for messages
}

// Origin says where a document came from.
type Origin struct {
	File string // path or URL
	Row  int64  // row within the file, from 0; line - 1 for JSON lines; 0 for a source file
}

func (o Origin) String() string { return fmt.Sprintf("%s: row %d", o.File, o.Row) }

// Cursor is a place in a Source: the next row to read. The zero value is the beginning.
type Cursor struct {
	Unit int   `json:"unit"`
	Row  int64 `json:"row"`
}

// Source yields documents in a fixed order. Implementations are safe for concurrent use; Readers are not.
type Source interface {
	// Units returns the number of units.
	Units() int
	// OpenUnit returns a Reader over the rows of one unit, beginning at the given row. A row beyond the end gives a
	// Reader that is at its end.
	OpenUnit(ctx context.Context, unit int, row int64) (Reader, error)
	// Fingerprint identifies the content to the extent that is known without reading it all (file names, sizes, row
	// counts, filters). A cursor is only meaningful for a Source with the same fingerprint.
	Fingerprint() string
}

// Reader reads documents in order.
type Reader interface {
	// Next returns the next document and the place it was read from, or io.EOF after the last.
	Next() (Document, Cursor, error)
	// Close releases what the Reader holds.
	Close() error
}

// Open returns a Reader over all of src in its fixed order, beginning at a cursor.
func Open(ctx context.Context, src Source, at Cursor) Reader {
	return OpenOrder(ctx, src, nil, at)
}

// OpenOrder is Open with the units visited in the given order (nil: ascending). The cursor's Unit then counts positions in
// order, and so do the returned cursors of the Reader: use order[c.Unit] for the unit itself.
func OpenOrder(ctx context.Context, src Source, order []int, at Cursor) Reader {
	n := src.Units()
	if order != nil {
		n = len(order)
	}
	return &sequence{ctx: ctx, src: src, order: order, n: n, next: at}
}

type sequence struct {
	ctx   context.Context
	src   Source
	order []int
	n     int
	next  Cursor // unit is a position in order
	cur   Reader
	err   error
}

func (s *sequence) Next() (Document, Cursor, error) {
	if s.err != nil {
		return Document{}, s.next, s.err
	}
	doc, at, err := s.step()
	if err != nil {
		s.err = err
		if err != io.EOF {
			s.err = errors.Join(err, s.Close())
		}
		return Document{}, s.next, s.err
	}
	return doc, at, nil
}

func (s *sequence) step() (Document, Cursor, error) {
	for {
		if err := s.ctx.Err(); err != nil {
			return Document{}, Cursor{}, err
		}
		if s.next.Unit >= s.n {
			return Document{}, Cursor{}, io.EOF
		}
		if s.next.Unit < 0 || s.next.Row < 0 {
			return Document{}, Cursor{}, fmt.Errorf("cursor %+v: negative", s.next)
		}
		if s.cur == nil {
			u := s.next.Unit
			if s.order != nil {
				u = s.order[u]
			}
			r, err := s.src.OpenUnit(s.ctx, u, s.next.Row)
			if err != nil {
				return Document{}, Cursor{}, err
			}
			s.cur = r
		}
		doc, at, err := s.cur.Next()
		if err == nil {
			at.Unit = s.next.Unit
			s.next.Row = at.Row + 1
			return doc, at, nil
		}
		if err != io.EOF {
			return Document{}, Cursor{}, err
		}
		if err := s.Close(); err != nil {
			return Document{}, Cursor{}, err
		}
		s.next = Cursor{Unit: s.next.Unit + 1}
	}
}

func (s *sequence) Close() error {
	if s.cur == nil {
		return nil
	}
	r := s.cur
	s.cur = nil
	return r.Close()
}

// Documents iterates over all documents of src in its fixed order. It stops after the first error.
func Documents(ctx context.Context, src Source) iter.Seq2[Document, error] {
	return func(yield func(Document, error) bool) {
		r := Open(ctx, src, Cursor{})
		for {
			doc, _, err := r.Next()
			if err == io.EOF {
				return
			}
			if err != nil {
				yield(Document{}, err)
				return
			}
			if !yield(doc, nil) {
				// Nothing more is read, so an error of Close has no document to spoil.
				_ = r.Close()
				return
			}
		}
	}
}

// Load reads all documents of src into memory. It fails when their text takes more than maxBytes (0: no limit).
func Load(ctx context.Context, src Source, maxBytes int64) (Slice, error) {
	var docs Slice
	var size int64
	for doc, err := range Documents(ctx, src) {
		if err != nil {
			return nil, err
		}
		size += int64(len(doc.Content)) + 4*int64(len(doc.IDs))
		if maxBytes > 0 && size > maxBytes {
			return nil, fmt.Errorf("%s: the documents up to here take %d bytes, and at most %d may be held in memory", doc.Origin, size, maxBytes)
		}
		docs = append(docs, doc)
	}
	return docs, nil
}
