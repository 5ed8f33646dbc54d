package source

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress"
	"github.com/parquet-go/parquet-go/encoding/delta"
	"github.com/parquet-go/parquet-go/format"

	"autodev/data"
)

// hostile is a codec that writes what change makes of a page and of its compressed form.
type hostile struct {
	compress.Codec
	change func(page, compressed []byte) []byte
}

func (h hostile) Encode(dst, src []byte) ([]byte, error) {
	b, err := h.Codec.Encode(nil, src)
	if err != nil {
		return nil, err
	}
	return append(dst[:0], h.change(src, b)...), nil
}

// zeros returns the compressed form of 64 MiB of zeros, as a stream, which does not say how long it will be.
func zeros(t *testing.T, to func(w io.Writer) (io.WriteCloser, error)) func(_, _ []byte) []byte {
	var b bytes.Buffer
	w, err := to(&b)
	if err != nil {
		t.Fatal(err)
	}
	for range 64 {
		if _, err := w.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return func(_, _ []byte) []byte { return b.Bytes() }
}

// run is a run of 2^31−1 values, each of them 0.
var run = append(binary.AppendUvarint(nil, math.MaxInt32<<1), 0)

// A small file must not take any amount of memory, nor a damaged one.
func TestPagesThatGrow(t *testing.T) {
	type required struct {
		Content string `parquet:"content,plain"`
	}
	type optional struct {
		Content *string `parquet:"content,optional,plain"`
	}
	type repeated struct {
		Content string `parquet:"content,dict"`
	}
	text := strings.Repeat("x = 1\n", 1000)
	var several []any
	for i := range 200 {
		several = append(several, repeated{fmt.Sprint(text, i*i%7)})
	}
	zstdZeros := zeros(t, func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) })
	for _, c := range []struct {
		name  string
		rows  []any
		codec compress.Codec
		// change makes the page that is written.
		change func(page, compressed []byte) []byte
		want   string
	}{
		{"zstd", []any{required{text}}, &parquet.Zstd, zstdZeros, "ZSTD: more bytes when uncompressed than the "},
		{"zstd, the second frame", []any{required{text}}, &parquet.Zstd, func(p, c []byte) []byte { return append(c, zstdZeros(p, c)...) }, "ZSTD: more bytes when uncompressed than the "},
		{"gzip", []any{required{text}}, &parquet.Gzip, zeros(t, func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }), "GZIP: more bytes when uncompressed than the "},
		{"brotli", []any{required{text}}, &parquet.Brotli, zeros(t, func(w io.Writer) (io.WriteCloser, error) { return brotli.NewWriter(w), nil }), "BROTLI: more bytes when uncompressed than the "},
		{"snappy", []any{required{text}}, &parquet.Snappy, func(_, c []byte) []byte { return append(binary.AppendUvarint(nil, 1<<30), c...) }, "SNAPPY: more bytes when uncompressed than the "},
		{"damaged LZ4", []any{required{text}}, &parquet.Lz4Raw, func(_, c []byte) []byte { return c[:len(c)-1] }, "LZ4_RAW: damaged, or more bytes when uncompressed than the "},
		{"LZ4", []any{required{text}}, &parquet.Lz4Raw, func(_, c []byte) []byte {
			// A byte, repeated 64 Ki times 255 times.
			return append(append([]byte{0x1f, 'x', 1, 0}, bytes.Repeat([]byte{255}, 1<<16)...), 0, 0)
		}, "LZ4_RAW: damaged, or more bytes when uncompressed than the "},
		{"a run of levels", []any{optional{&text}}, &parquet.Snappy, func(p, _ []byte) []byte {
			return snappy.Encode(nil, append(append(binary.LittleEndian.AppendUint32(nil, uint32(len(run))), run...), p[4+len(run):]...))
		}, "levels: a run of 2147483647 values, and the page has 1"},
		{"a run of indexes", several, &parquet.Snappy, func(p, c []byte) []byte {
			if len(p) > 1000 {
				return c // the dictionary
			}
			return snappy.Encode(nil, append([]byte{1}, run...))
		}, "dictionary indexes: a run of 2147483647 values, and the page has 200"},
	} {
		for version := 1; version <= 2; version++ {
			if version == 2 && strings.HasPrefix(c.name, "a run of") {
				continue // the levels are not compressed then
			}
			t.Run(fmt.Sprintf("%s, version %d", c.name, version), func(t *testing.T) {
				name := filepath.Join(t.TempDir(), "a.parquet")
				f, err := os.Create(name)
				if err != nil {
					t.Fatal(err)
				}
				w := parquet.NewWriter(f, parquet.SchemaOf(c.rows[0]), parquet.Compression(hostile{c.codec, c.change}), parquet.DataPageVersion(version), parquet.DataPageStatistics(false))
				for _, row := range c.rows {
					if err := w.Write(row); err != nil {
						t.Fatal(err)
					}
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				if err := f.Close(); err != nil {
					t.Fatal(err)
				}
				err = nil
				for _, err = range data.Documents(t.Context(), open(t, Options{}, name)) {
					if err != nil {
						break
					}
				}
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("error %v, expected %s", err, c.want)
				}
			})
		}
	}
}

// The pages of the cases that no writer makes.
func TestCheckBody(t *testing.T) {
	packed := func(n int, v int32) []byte {
		values := make([]int32, n)
		for i := range values {
			values[i] = v
		}
		b, err := new(delta.BinaryPackedEncoding).EncodeInt32(nil, values)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	many := binary.AppendUvarint(binary.AppendUvarint(binary.AppendUvarint(nil, 128), 4), math.MaxInt32)
	many = append(many, 0)
	page := func(e format.Encoding) *pageHeader {
		return &pageHeader{kind: int64(format.DataPage), uncompressed: 1 << 20, v1: [8]int64{numValues: 2000, encodingV1: int64(e)}}
	}
	for _, c := range []struct {
		name string
		h    *pageHeader
		body []byte
		want string
	}{
		{"prefixes", page(format.DeltaByteArray), append(packed(2000, 1<<20), packed(2000, 0)...), "prefixes of 2097152000 bytes, limit 1073741824"},
		{"good prefixes", page(format.DeltaByteArray), append(packed(2000, 1<<10), packed(2000, 0)...), ""},
		{"many prefixes", page(format.DeltaByteArray), many, "prefixes: 2147483647 numbers, and the page has 2000 values"},
		{"many suffixes", page(format.DeltaByteArray), append(packed(2000, 1), many...), "suffixes: 2147483647 numbers, and the page has 2000 values"},
		{"many lengths", page(format.DeltaLengthByteArray), many, "lengths: 2147483647 numbers, and the page has 2000 values"},
		{"cut lengths", page(format.DeltaLengthByteArray), packed(2000, 7)[:5], "lengths: ends in the middle of a value"},
		{"bit-packed runs", page(format.RLEDictionary), append([]byte{0}, binary.AppendUvarint(nil, 400<<1|1)...), "dictionary indexes: runs of 3200 values, and the page has 2000"},
		{"levels of version 2", &pageHeader{kind: int64(format.DataPageV2), v2: [8]int64{numValues: 1, definitionBytes: 9}}, []byte{1, 2}, "levels of 0 and 9 bytes in a page of 2"},
		{"negative levels", &pageHeader{kind: int64(format.DataPageV2), v2: [8]int64{numValues: 1, repetitionBytes: -1}}, []byte{1, 2}, "levels of -1 and 0 bytes in a page of 2"},
	} {
		g := pageGuard{optional: false}
		if err := g.checkBody(c.body, c.h); c.want == "" && err != nil || c.want != "" && (err == nil || err.Error() != c.want) {
			t.Errorf("%s: error %v, expected %s", c.name, err, c.want)
		}
	}
}

// A page header may have the parts of several kinds: the one of its own kind counts, as for the library.
func TestPageHeaderOfSeveralKinds(t *testing.T) {
	c := compact{header: true, buf: []byte{0x15, 0, 0x15, 4, 0x15, 6, 0x2c, 0x15, 100, 0x15, 16, 0, 0x3c, 0x15, 2, 0, 0}}
	if err := c.skipStruct(0); err != nil {
		t.Fatal(err)
	}
	if h := c.page; h.values() != 50 || h.encoding() != 8 || h.uncompressed != 2 || h.compressed != 3 {
		t.Errorf("found %d values, encoding %d, in %+v", h.values(), h.encoding(), h)
	}
}

func TestLongNames(t *testing.T) {
	type row struct {
		Content string `parquet:"content"`
		Path    string `parquet:"path,dict"`
	}
	name := filepath.Join(t.TempDir(), "a.parquet")
	if err := parquet.WriteFile(name, []row{{"x", "a.py"}, {"y", strings.Repeat("a", maxName+1)}}); err != nil {
		t.Fatal(err)
	}
	_, err := data.Load(t.Context(), open(t, Options{}, name), 0)
	if want := name + ": row group 0: row 1: column path: 65537 bytes, expected at most 65536"; err == nil || err.Error() != want {
		t.Errorf("error %v, expected %s", err, want)
	}
}

// Writers that put whole texts into the headers of pages write headers of any length.
func TestLongPageHeader(t *testing.T) {
	type row struct {
		Content string `parquet:"content,zstd"`
	}
	name := filepath.Join(t.TempDir(), "a.parquet")
	rows := []row{{strings.Repeat("a", 900_000)}, {strings.Repeat("b", 900_000)}}
	if err := parquet.WriteFile(name, rows, parquet.DataPageStatistics(true)); err != nil {
		t.Fatal(err)
	}
	if docs := readAll(t, open(t, Options{}, name)); len(docs) != 2 || docs[0].Content != rows[0].Content || docs[1].Content != rows[1].Content {
		t.Errorf("read %d documents", len(docs))
	}
}

func FuzzCheckBody(f *testing.F) {
	f.Add(uint8(format.Uncompressed), uint8(format.DataPage), uint8(format.DeltaByteArray), int32(9), []byte{128, 1, 4, 2, 0, 0, 0, 0, 0, 0})
	f.Add(uint8(format.Zstd), uint8(format.DataPageV2), uint8(format.RLEDictionary), int32(9), []byte{0x28, 0xb5, 0x2f, 0xfd, 4, 0, 9, 0, 0, 1, 0})
	f.Fuzz(func(t *testing.T, codec, kind, encoding uint8, values int32, body []byte) {
		part := [8]int64{numValues: int64(uint16(values)), encodingV1: int64(encoding), levelEncoding: int64(format.RLE)}
		h := &pageHeader{kind: int64(kind), uncompressed: 1 << 16, v1: part, dictionary: part, v2: part}
		h.v2[encodingV2], h.v2[definitionBytes] = int64(encoding), int64(values>>16)
		g := pageGuard{codec: format.CompressionCodec(codec), optional: values&1 != 0}
		// What the library does with a page, panics included, is guarded; so is this.
		err := guarded("page", func() error { return g.checkBody(body, h) })
		if n := max(cap(g.scratch), g.plain.Cap()); n > 1<<20 {
			t.Errorf("took %d bytes for a page of %d and %d uncompressed: %v", n, len(body), h.uncompressed, err)
		}
	})
}
