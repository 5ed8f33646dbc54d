package data

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
)

// Slice is a Source of documents in memory. Every document is a unit of its own, so that any order of them can be read.
type Slice []Document

// Units returns the number of documents.
func (s Slice) Units() int { return len(s) }

// OpenUnit returns a Reader over document number unit.
func (s Slice) OpenUnit(_ context.Context, unit int, row int64) (Reader, error) {
	if unit < 0 || unit >= len(s) {
		return nil, fmt.Errorf("document %d of %d", unit, len(s))
	}
	return &sliceReader{doc: s[unit], at: Cursor{Unit: unit, Row: row}}, nil
}

// Fingerprint is a hash over all documents.
func (s Slice) Fingerprint() string {
	h := sha256.New()
	var n [8]byte
	for _, d := range s {
		for _, f := range []string{d.Content, d.Repository, d.Path, d.Language} {
			binary.LittleEndian.PutUint64(n[:], uint64(len(f)))
			h.Write(n[:])
			io.WriteString(h, f)
		}
		binary.LittleEndian.PutUint64(n[:], uint64(len(d.IDs)))
		h.Write(n[:])
		for _, id := range d.IDs {
			binary.LittleEndian.PutUint32(n[:4], uint32(id))
			h.Write(n[:4])
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

type sliceReader struct {
	doc Document
	at  Cursor
}

func (r *sliceReader) Next() (Document, Cursor, error) {
	if r.at.Row != 0 {
		return Document{}, r.at, io.EOF
	}
	at := r.at
	r.at.Row++
	return r.doc, at, nil
}

func (r *sliceReader) Close() error { return nil }
