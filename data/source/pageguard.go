package source

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go/format"
)

// The parquet library allocates what a file's lengths say before it looks at what is there, so that a few hostile bytes
// could claim all memory. The checks here bound every length by the bytes that are really there, or by a generous limit,
// before the library sees it.

const (
	maxFooter     = 64 << 20 // bytes
	maxPageHeader = 64 << 20 // bytes; some writers put the first and the last text in order into headers, however long
	maxPage       = 1 << 30  // bytes after decompression
	maxPageValues = 1 << 24  // values in one page
)

// parquetTail is the footer's length and "PAR1", which end a parquet file.
const parquetTail = 8

// footerSize returns the size of the end of a parquet file: metadata, its length and the magic (Apache Parquet, "File Format").
func footerSize(r io.ReaderAt, size int64) (int64, error) {
	if size < 4+parquetTail {
		return 0, fmt.Errorf("%d bytes: too short for a parquet file", size)
	}
	var end [parquetTail]byte
	if _, err := r.ReadAt(end[:], size-parquetTail); err != nil {
		return 0, fmt.Errorf("read the last %d bytes: %w", parquetTail, err)
	}
	switch magic := string(end[4:]); magic {
	case "PAR1":
	case "PARE":
		return 0, errors.New("the file is encrypted, which is not supported")
	default:
		return 0, fmt.Errorf("offset %d: found %q, expected \"PAR1\": not a parquet file, or cut short", size-4, magic)
	}
	n := int64(binary.LittleEndian.Uint32(end[:4]))
	if n > min(maxFooter, size-4-parquetTail) {
		return 0, fmt.Errorf("offset %d: footer of %d bytes in a file of %d (limit %d)", size-parquetTail, n, size, maxFooter)
	}
	return n + parquetTail, nil
}

// checkFooter checks the lengths in a parquet file's metadata.
func checkFooter(r io.ReaderAt, size int64) error {
	n, err := footerSize(r, size)
	if err != nil {
		return err
	}
	footer := make([]byte, n-parquetTail)
	if _, err := r.ReadAt(footer, size-n); err != nil {
		return fmt.Errorf("read the footer: %w", err)
	}
	c := compact{buf: footer}
	if err := c.skipStruct(0); err != nil {
		return fmt.Errorf("footer at offset %d: %w", size-n+int64(c.pos), err)
	}
	return nil
}

// pageGuard walks the pages of one column chunk just ahead of the library.
type pageGuard struct {
	r        io.ReaderAt
	codec    format.CompressionCodec
	optional bool  // values may be null, so that pages have definition levels
	pos      int64 // of the next page header
	end      int64 // of the chunk
	rows     int64 // of the row group: no page may hold more values
	buf      []byte
	values   int64 // seen so far

	body    []byte // of the page checked last
	bodyAt  int64
	plain   bytes.Buffer // it, uncompressed
	scratch []byte       // the same, by codecs that do not stream
	zstd    *zstd.Decoder
}

func newPageGuard(r io.ReaderAt, size int64, meta *format.ColumnMetaData, rows int64, optional bool) (*pageGuard, error) {
	start := meta.DataPageOffset
	if meta.DictionaryPageOffset != 0 {
		start = meta.DictionaryPageOffset
	}
	n := meta.TotalCompressedSize
	if start < 4 || n < 0 || start > size || n > size-start {
		return nil, fmt.Errorf("column chunk of %d bytes at offset %d lies outside the file of %d bytes", n, start, size)
	}
	return &pageGuard{r: r, codec: meta.Codec, pos: start, end: start + n, rows: rows, optional: optional}, nil
}

// ReadAt gives the bytes of the page checked last without reading them again.
func (g *pageGuard) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	if at := off - g.bodyAt; at >= 0 && at < int64(len(g.body)) {
		n = copy(p, g.body[at:])
	}
	if n == len(p) {
		return n, nil
	}
	m, err := g.r.ReadAt(p[n:], off+int64(n))
	return n + m, err
}

// next checks the pages up to and including the next data page. At the end of the chunk it does nothing.
func (g *pageGuard) next() error {
	for g.pos < g.end {
		n := min(g.end-g.pos, 512)
		var c compact
		for {
			if int64(cap(g.buf)) < n {
				g.buf = make([]byte, n)
			}
			g.buf = g.buf[:n]
			if _, err := g.r.ReadAt(g.buf, g.pos); err != nil {
				return fmt.Errorf("page header at offset %d: %w", g.pos, err)
			}
			c = compact{buf: g.buf, header: true}
			err := c.skipStruct(0)
			if err == nil {
				break
			}
			if !errors.Is(err, errShort) || n >= min(g.end-g.pos, maxPageHeader) {
				return fmt.Errorf("page header at offset %d: %w", g.pos, err)
			}
			n = min(4*n, g.end-g.pos, maxPageHeader)
		}
		h := &c.page
		body := g.pos + int64(c.pos)
		if h.compressed < 0 || h.compressed > g.end-body {
			return fmt.Errorf("page header at offset %d: page of %d bytes, and the column chunk has %d left", g.pos, h.compressed, g.end-body)
		}
		if h.uncompressed < 0 || h.uncompressed > maxPage {
			return fmt.Errorf("page header at offset %d: page of %d bytes uncompressed, limit %d", g.pos, h.uncompressed, maxPage)
		}
		if n := h.values(); n < 0 || n > maxPageValues || !h.is(format.DictionaryPage) && n > g.rows-g.values {
			return fmt.Errorf("page header at offset %d: page of %d values, and %d of the row group's %d rows are left", g.pos, n, g.rows-g.values, g.rows)
		}
		g.body, g.bodyAt = grown(g.body, h.compressed), body
		if _, err := g.r.ReadAt(g.body, body); err != nil {
			return fmt.Errorf("page at offset %d: %w", body, err)
		}
		if err := g.checkBody(g.body, h); err != nil {
			return fmt.Errorf("page at offset %d: %w", body, err)
		}
		g.pos = body + h.compressed
		switch format.PageType(h.kind) {
		case format.DataPage, format.DataPageV2:
			g.values += h.values()
			return nil
		}
	}
	return nil
}

// pageHeader is what the guard needs of parquet.thrift's PageHeader.
type pageHeader struct {
	kind                     int64
	uncompressed, compressed int64
	// Numbers of DataPageHeader, DictionaryPageHeader and DataPageHeaderV2 by field. Of these the kind says which counts.
	v1, dictionary, v2 [8]int64
	v2Plain            bool // is_compressed is false
}

// Fields of the headers.
const (
	numValues, encodingV1, encodingV2               = 1, 2, 4
	levelEncoding, definitionBytes, repetitionBytes = 3, 5, 6
)

func (h *pageHeader) is(t format.PageType) bool { return format.PageType(h.kind) == t }

// values returns the number of values.
func (h *pageHeader) values() int64 {
	switch format.PageType(h.kind) {
	case format.DataPage:
		return h.v1[numValues]
	case format.DataPageV2:
		return h.v2[numValues]
	case format.DictionaryPage:
		return h.dictionary[numValues]
	}
	return 0
}

// encoding returns that of the values.
func (h *pageHeader) encoding() int64 {
	switch format.PageType(h.kind) {
	case format.DataPage:
		return h.v1[encodingV1]
	case format.DataPageV2:
		return h.v2[encodingV2]
	}
	return h.dictionary[encodingV1]
}

// compact walks a structure of Thrift's compact protocol without building it, checking that every length fits in the
// bytes that are left.
type compact struct {
	buf    []byte
	pos    int
	header bool // collect a PageHeader
	page   pageHeader
}

var errShort = errors.New("ends in the middle of a value")

// maxNesting is deeper than any structure of parquet.thrift.
const maxNesting = 32

func (c *compact) byte() (byte, error) {
	if c.pos >= len(c.buf) {
		return 0, errShort
	}
	c.pos++
	return c.buf[c.pos-1], nil
}

func (c *compact) uvarint() (uint64, error) {
	v, n := binary.Uvarint(c.buf[c.pos:])
	if n == 0 {
		return 0, errShort
	}
	if n < 0 {
		return 0, errors.New("number longer than 64 bits")
	}
	c.pos += n
	return v, nil
}

// length reads a count of items of at least one byte each.
func (c *compact) length() (int, error) {
	v, err := c.uvarint()
	if err != nil {
		return 0, err
	}
	return c.fits(v)
}

func (c *compact) fits(v uint64) (int, error) {
	if v > math.MaxInt32 {
		return 0, fmt.Errorf("length %d is beyond the format's limit", v)
	}
	if v > uint64(len(c.buf)-c.pos) {
		return 0, fmt.Errorf("length %d, and %d bytes are left: %w", v, len(c.buf)-c.pos, errShort)
	}
	return int(v), nil
}

// Types of the compact protocol.
const (
	tTrue, tFalse, tByte, tI16, tI32, tI64, tDouble = 1, 2, 3, 4, 5, 6, 7
	tBinary, tList, tSet, tMap, tStruct, tUUID      = 8, 9, 10, 11, 12, 13
)

// skipStruct skips a structure. Depth 0 is the outermost.
func (c *compact) skipStruct(depth int) error { return c.structure(depth, 0) }

// structure skips a structure that is field parent of the outermost one.
func (c *compact) structure(depth int, parent int64) error {
	if depth > maxNesting {
		return fmt.Errorf("structures nested more than %d deep", maxNesting)
	}
	var id int64
	for {
		b, err := c.byte()
		if err != nil {
			return err
		}
		if b == 0 {
			return nil
		}
		if delta := int64(b >> 4); delta != 0 {
			id += delta
		} else {
			v, err := c.uvarint()
			if err != nil {
				return err
			}
			id = unzigzag(v)
		}
		if err := c.value(b&15, depth, parent, id, false); err != nil {
			return err
		}
	}
}

func unzigzag(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) }

func (c *compact) value(kind byte, depth int, parent, id int64, inList bool) error {
	switch kind {
	case tTrue, tFalse:
		if inList {
			_, err := c.byte()
			return err
		}
		if depth == 1 && parent == 8 && id == 7 {
			c.page.v2Plain = kind == tFalse
		}
		return nil
	case tByte:
		_, err := c.byte()
		return err
	case tI16, tI32, tI64:
		v, err := c.uvarint()
		if err == nil && c.header && !inList {
			c.number(depth, parent, id, unzigzag(v))
		}
		return err
	case tDouble, tUUID:
		n := 8
		if kind == tUUID {
			n = 16
		}
		if len(c.buf)-c.pos < n {
			return errShort
		}
		c.pos += n
		return nil
	case tBinary:
		n, err := c.length()
		c.pos += n
		return err
	case tList, tSet:
		b, err := c.byte()
		if err != nil {
			return err
		}
		n := int(b >> 4)
		if n == 15 {
			if n, err = c.length(); err != nil {
				return err
			}
		} else if n, err = c.fits(uint64(n)); err != nil {
			return err
		}
		for range n {
			if err := c.value(b&15, depth+1, -1, 0, true); err != nil {
				return err
			}
		}
		return nil
	case tMap:
		n, err := c.length()
		if err != nil || n == 0 {
			return err
		}
		b, err := c.byte()
		if err != nil {
			return err
		}
		for range n {
			if err := c.value(b>>4, depth+1, -1, 0, true); err != nil {
				return err
			}
			if err := c.value(b&15, depth+1, -1, 0, true); err != nil {
				return err
			}
		}
		return nil
	case tStruct:
		of := id
		if depth > 0 || inList {
			of = -1
		}
		return c.structure(depth+1, of)
	}
	return fmt.Errorf("unknown type %d of field %d", kind, id)
}

// number notes the fields of a PageHeader: type 1, uncompressed_page_size 2, compressed_page_size 3, and those of
// data_page_header 5, dictionary_page_header 7 and data_page_header_v2 8.
func (c *compact) number(depth int, parent, id, v int64) {
	switch {
	case depth == 0 && id == 1:
		c.page.kind = v
	case depth == 0 && id == 2:
		c.page.uncompressed = v
	case depth == 0 && id == 3:
		c.page.compressed = v
	case depth != 1 || id < 0 || id >= int64(len(c.page.v1)):
	case parent == 5:
		c.page.v1[id] = v
	case parent == 7:
		c.page.dictionary[id] = v
	case parent == 8:
		c.page.v2[id] = v
	}
}
