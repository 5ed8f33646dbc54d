package source

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go/encoding/delta"
	"github.com/parquet-go/parquet-go/format"
	"github.com/pierrec/lz4/v4"
)

// Uncompressing and decoding a page can take any amount of memory, whatever its header says: compressed data may go on without
// end (and of damaged LZ4 blocks the library takes twice as much memory again and again), runs repeat a value 2^31 times, and
// prefixes repeat a text. So each page is uncompressed and its counts are looked at here first.

// inflate returns the bytes that body is the compressed form of, which must not be more than limit. They are valid until the next
// call.
func (g *pageGuard) inflate(body []byte, limit int64) ([]byte, error) {
	tooMany := fmt.Errorf("more bytes when uncompressed than the %d that the page header says", limit)
	var r io.Reader
	switch g.codec {
	case format.Uncompressed:
		return body, nil
	case format.Snappy:
		n, err := snappy.DecodedLen(body)
		if err != nil {
			return nil, err
		}
		if int64(n) > limit {
			return nil, tooMany
		}
		g.scratch = grown(g.scratch, int64(n))
		return snappy.Decode(g.scratch, body)
	case format.Lz4Raw:
		g.scratch = grown(g.scratch, limit)
		n, err := lz4.UncompressBlock(body, g.scratch)
		if err != nil {
			return nil, fmt.Errorf("damaged, or %w", tooMany)
		}
		return g.scratch[:n], nil
	case format.Zstd:
		if g.zstd == nil {
			var err error
			if g.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true)); err != nil {
				return nil, err
			}
		}
		if err := g.zstd.Reset(bytes.NewReader(body)); err != nil {
			return nil, err
		}
		r = g.zstd
	case format.Gzip:
		z, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		r = z
	case format.Brotli:
		r = brotli.NewReader(bytes.NewReader(body))
	default:
		return nil, nil // the library has no such codec either
	}
	g.plain.Reset()
	if _, err := g.plain.ReadFrom(io.LimitReader(r, limit+1)); err != nil {
		return nil, err
	}
	if int64(g.plain.Len()) > limit {
		return nil, tooMany
	}
	return g.plain.Bytes(), nil
}

// grown returns a slice of n bytes, b's own memory if it is enough.
func grown(b []byte, n int64) []byte {
	if int64(cap(b)) < n {
		return make([]byte, n)
	}
	return b[:n]
}

// plainDictionary is what older writers call format.RLEDictionary.
const plainDictionary format.Encoding = 2

// checkBody checks what a page with the header h holds.
func (g *pageGuard) checkBody(body []byte, h *pageHeader) error {
	levels, inflated := int64(0), true
	if h.is(format.DataPageV2) {
		if h.v2[repetitionBytes] < 0 || h.v2[definitionBytes] < 0 || h.v2[repetitionBytes] > int64(len(body)) || h.v2[definitionBytes] > int64(len(body))-h.v2[repetitionBytes] {
			return fmt.Errorf("levels of %d and %d bytes in a page of %d", h.v2[repetitionBytes], h.v2[definitionBytes], len(body))
		}
		levels, inflated = h.v2[repetitionBytes]+h.v2[definitionBytes], !h.v2Plain
		if err := g.runs(body[h.v2[repetitionBytes]:levels], 1, h.values()); err != nil && g.optional {
			return fmt.Errorf("levels: %w", err)
		}
		body = body[levels:]
	}
	if inflated {
		if h.uncompressed < levels {
			return fmt.Errorf("page of %d bytes uncompressed with levels of %d", h.uncompressed, levels)
		}
		var err error
		if body, err = g.inflate(body, h.uncompressed-levels); err != nil {
			return fmt.Errorf("%v: %w", g.codec, err)
		}
	}
	if h.is(format.DataPage) && g.optional && format.Encoding(h.v1[levelEncoding]) == format.RLE {
		if len(body) < 4 || int64(binary.LittleEndian.Uint32(body)) > int64(len(body)-4) {
			return fmt.Errorf("levels: %w", errShort)
		}
		end := 4 + int(binary.LittleEndian.Uint32(body))
		if err := g.runs(body[4:end], 1, h.values()); err != nil {
			return fmt.Errorf("levels: %w", err)
		}
		body = body[end:]
	}
	switch format.Encoding(h.encoding()) {
	case plainDictionary, format.RLEDictionary:
		if h.is(format.DictionaryPage) || len(body) == 0 {
			return nil
		}
		if err := g.runs(body[1:], int64(body[0]), h.values()); err != nil {
			return fmt.Errorf("dictionary indexes: %w", err)
		}
	case format.DeltaLengthByteArray:
		if _, err := skipDeltas(body, h.values()); err != nil {
			return fmt.Errorf("lengths: %w", err)
		}
	case format.DeltaByteArray:
		rest, err := skipDeltas(body, h.values())
		if err != nil {
			return fmt.Errorf("prefixes: %w", err)
		}
		if _, err := skipDeltas(rest, h.values()); err != nil {
			return fmt.Errorf("suffixes: %w", err)
		}
		prefixes, err := new(delta.BinaryPackedEncoding).DecodeInt32(nil, body)
		if err != nil {
			return fmt.Errorf("prefixes: %w", err)
		}
		n := int64(0)
		for _, p := range prefixes {
			n += int64(p)
		}
		if n > maxPage {
			return fmt.Errorf("prefixes of %d bytes, limit %d", n, maxPage)
		}
	}
	return nil
}

// padding is how many values more than there are a bit-packed run may hold.
const padding = 512

// runs checks that runs of numbers of the given bits (Apache Parquet, "Run Length Encoding / Bit-Packing Hybrid") hold no more
// than n.
func (g *pageGuard) runs(b []byte, bits, n int64) error {
	if bits > 32 {
		return fmt.Errorf("numbers of %d bits, expected at most 32", bits)
	}
	for total := int64(0); len(b) > 0; {
		u, k := binary.Uvarint(b)
		if k <= 0 {
			return errShort
		}
		b = b[k:]
		count, size := u>>1, uint64(bits+7)/8
		if count > uint64(n+padding) {
			return fmt.Errorf("a run of %d values, and the page has %d", count, n)
		}
		switch {
		case u&1 != 0:
			count, size = 8*count, count*uint64(bits)
		case count == 0:
			continue
		}
		if total += int64(count); total > n+padding {
			return fmt.Errorf("runs of %d values, and the page has %d", total, n)
		}
		if size > uint64(len(b)) {
			return errShort
		}
		b = b[size:]
	}
	return nil
}

// skipDeltas returns what follows delta-packed numbers ("Delta Encoding"), which must be no more than n.
func skipDeltas(b []byte, n int64) (rest []byte, err error) {
	var head [4]uint64 // values in a block, parts of a block, values, the first
	for i := range head {
		v, k := binary.Uvarint(b)
		if k <= 0 {
			return nil, errShort
		}
		head[i], b = v, b[k:]
	}
	if head[2] > uint64(n) {
		return nil, fmt.Errorf("%d numbers, and the page has %d values", head[2], n)
	}
	if head[0] > 1<<20 || head[1] < 1 || head[1] > head[0] {
		return nil, fmt.Errorf("blocks of %d numbers in %d parts", head[0], head[1])
	}
	part := int64(head[0] / head[1])
	for left := int64(head[2]) - 1; left > 0; {
		_, k := binary.Uvarint(b) // the smallest difference
		if k <= 0 || len(b)-k < int(head[1]) {
			return nil, errShort
		}
		bits := b[k : k+int(head[1])]
		b = b[k+int(head[1]):]
		for _, w := range bits {
			if left <= 0 {
				break
			}
			left -= part
			size := part * int64(w) / 8
			if size > int64(len(b)) {
				return nil, errShort
			}
			b = b[size:]
		}
	}
	return b, nil
}
