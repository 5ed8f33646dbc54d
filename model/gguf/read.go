package gguf

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"autodev/internal/sizedfile"
	"autodev/model/dtype"
)

const (
	alignmentKey = "general.alignment"
	// maxHeader bounds metadata and tensor list in bytes: a vocabulary of a million tokens needs a tenth of it.
	maxHeader = 256 << 20
)

// Info describes one tensor of a file.
type Info struct {
	Name   string `json:"name"`
	Type   Type   `json:"type"`
	Shape  []int  `json:"shape"`  // outermost dimension first; the last one is the length of a row
	Offset int64  `json:"offset"` // of the first byte in the file
	Size   int64  `json:"size"`   // in bytes
}

// Len returns the number of elements.
func (i Info) Len() int {
	n := 1
	for _, d := range i.Shape {
		n *= d
	}
	return n
}

// MarshalText writes the type's name.
func (t Type) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// File is an open GGUF file. Its methods may be called from several goroutines at once.
type File struct {
	Version  int // 2 or 3
	Metadata Metadata
	Tensors  []Info // in the file's order
	Size     int64  // of the file, bytes

	name   string
	r      io.ReaderAt
	close  func() error
	byName map[string]int
}

// Open opens the file at path. Metadata and tensor list are read and checked before it returns; no tensor is read yet.
func Open(path string) (*File, error) {
	f, close, err := sizedfile.Open(path, NewFile)
	if err != nil {
		return nil, err
	}
	f.close = close
	return f, nil
}

// NewFile reads metadata and tensor list of the size bytes behind r; name stands for them in errors. Versions 2 and 3,
// little-endian, are read. Its memory is a small multiple of the bytes that really are in the header.
func NewFile(r io.ReaderAt, size int64, name string) (*File, error) {
	f := &File{Size: size, name: name, r: r, byName: map[string]int{}}
	h := &header{r: bufio.NewReaderSize(io.NewSectionReader(r, 0, size), 1<<16), left: min(size, maxHeader)}
	if err := f.read(h); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return f, nil
}

// Close closes the file when Open opened it.
func (f *File) Close() error {
	if f.close == nil {
		return nil
	}
	return f.close()
}

// Lookup returns the tensor of that name.
func (f *File) Lookup(name string) (Info, bool) {
	i, ok := f.byName[name]
	if !ok {
		return Info{}, false
	}
	return f.Tensors[i], true
}

// ReadFloat32 fills dst, whose length must be the tensor's, with the tensor's elements as float32 (row major). Types other
// than F32, F16, BF16, Q8_0 and Q4_0 are refused.
func (f *File) ReadFloat32(name string, dst []float32) error {
	t, ok := f.Lookup(name)
	switch {
	case !ok:
		return fmt.Errorf("%s: tensor %s: missing", f.name, name)
	case !t.Type.converts():
		return fmt.Errorf("%s: tensor %s: element type %v, expected F32, F16, BF16, Q8_0 or Q4_0", f.name, name, t.Type)
	case len(dst) != t.Len():
		return fmt.Errorf("%s: tensor %s: %d elements, expected %d", f.name, name, t.Len(), len(dst))
	}
	x := types[t.Type]
	buf := make([]byte, min(chunkLen/x.block*x.bytes, int(t.Size)))
	for at := t.Offset; len(dst) > 0; {
		n := min(len(dst), chunkLen)
		b := buf[:n/x.block*x.bytes]
		if err := dtype.ReadFull(b, f.r, at); err != nil {
			return fmt.Errorf("%s: tensor %s: %w", f.name, name, err)
		}
		if err := decode(dst[:n], b, t.Type); err != nil {
			return fmt.Errorf("%s: tensor %s: %w", f.name, name, err)
		}
		dst, at = dst[n:], at+int64(len(b))
	}
	return nil
}

func (f *File) read(h *header) error {
	if b := h.bytes(4); string(b) != magic && h.err == nil {
		return fmt.Errorf("offset 0: found %q, expected %q: not a GGUF file", b, magic)
	}
	v := h.uint32()
	switch {
	case h.err != nil:
		return h.err
	case v&0xffff == 0 && v != 0:
		return errors.New("offset 4: a big-endian file, expected a little-endian one")
	case v != 2 && v != 3:
		return fmt.Errorf("offset 4: version %d, expected 2 or 3", v)
	}
	f.Version = int(v)
	// A tensor needs 24 bytes of its own at least, a pair 13.
	tensors, pairs := h.count("tensors", 24), h.count("metadata pairs", 13)
	if err := f.readMetadata(h, pairs); err != nil {
		return err
	}
	align := int64(alignment)
	if v, ok := f.Metadata.Get(alignmentKey); ok {
		a, ok := v.(uint32)
		if !ok || a == 0 || a&(a-1) != 0 || a > 1<<20 {
			return fmt.Errorf("%s: %v, expected a power of 2 as uint32", alignmentKey, v)
		}
		align = int64(a)
	}
	for i := range tensors {
		t, err := readInfo(h)
		switch {
		case h.err != nil:
			return fmt.Errorf("tensor %d: %w", i, h.err)
		case err != nil:
			return fmt.Errorf("tensor %d (%q): %w", i, t.Name, err)
		case t.Offset%align != 0:
			return fmt.Errorf("tensor %s: data offset %d, expected a multiple of %d", t.Name, t.Offset, align)
		}
		if _, ok := f.byName[t.Name]; ok {
			return fmt.Errorf("tensor %s: given twice", t.Name)
		}
		f.byName[t.Name] = len(f.Tensors)
		f.Tensors = append(f.Tensors, t)
	}
	return f.place((h.at + align - 1) / align * align)
}

// place turns offsets into the data, which begins at base, into offsets of the file, and checks that tensors lie in it and do
// not overlap.
func (f *File) place(base int64) error {
	order := make([]int, len(f.Tensors))
	for i := range f.Tensors {
		t := &f.Tensors[i]
		if t.Offset > f.Size || t.Size > f.Size || base+t.Offset > f.Size-t.Size {
			return fmt.Errorf("tensor %s: %d bytes at offset %d of the data, expected them within the file's %d bytes", t.Name, t.Size, t.Offset, f.Size)
		}
		t.Offset += base
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(f.Tensors[a].Offset, f.Tensors[b].Offset) })
	for i := 1; i < len(order); i++ {
		a, b := f.Tensors[order[i-1]], f.Tensors[order[i]]
		if a.Offset+a.Size > b.Offset {
			return fmt.Errorf("tensor %s: begins at offset %d inside tensor %s, expected no overlap", b.Name, b.Offset, a.Name)
		}
	}
	return nil
}

func (f *File) readMetadata(h *header, pairs int) error {
	seen := map[string]bool{}
	for i := range pairs {
		key := h.string()
		v, err := h.value()
		switch {
		case h.err != nil:
			return fmt.Errorf("metadata pair %d (%.60q): %w", i, key, h.err)
		case err != nil:
			return fmt.Errorf("metadata key %.60q: %w", key, err)
		case key == "" || seen[key]:
			return fmt.Errorf("metadata key %.60q: expected one that is not empty or given twice", key)
		}
		seen[key] = true
		f.Metadata = append(f.Metadata, KV{key, v})
	}
	return h.err
}

// readInfo reads one entry of the tensor list; its offset is that of the file, relative to the data.
func readInfo(h *header) (Info, error) {
	t := Info{Name: h.string()}
	dims := h.uint32()
	if h.err != nil {
		return t, nil
	}
	if len(t.Name) < 1 || len(t.Name) > maxName {
		return t, fmt.Errorf("name of %d bytes, expected 1 to %d", len(t.Name), maxName)
	}
	if dims < 1 || dims > maxDims {
		return t, fmt.Errorf("%d dimensions, expected 1 to %d", dims, maxDims)
	}
	t.Shape = make([]int, dims)
	for j := range t.Shape {
		d := h.uint64()
		if d > math.MaxInt32*64 {
			return t, fmt.Errorf("dimension %d: %d elements, expected those of a tensor that exists", j, d)
		}
		t.Shape[len(t.Shape)-1-j] = int(d)
	}
	t.Type = Type(h.uint32())
	offset := h.uint64()
	if h.err != nil {
		return t, nil
	}
	if offset > math.MaxInt64/2 {
		return t, fmt.Errorf("data offset %d, expected one within a file", offset)
	}
	t.Offset = int64(offset)
	var err error
	t.Size, err = t.Type.size(t.Shape)
	return t, err
}

// header reads little-endian values and remembers the first thing that went wrong.
type header struct {
	r    *bufio.Reader
	at   int64 // offset in the file
	left int64 // bytes that may still belong to the header
	err  error
	buf  [8]byte
}

func (h *header) fill(b []byte) {
	if h.err != nil {
		return
	}
	if int64(len(b)) > h.left {
		h.err = fmt.Errorf("offset %d: %d bytes left in the header, expected %d more", h.at, h.left, len(b))
		return
	}
	if _, err := io.ReadFull(h.r, b); err != nil {
		h.err = fmt.Errorf("offset %d: %w", h.at, err)
		return
	}
	h.at += int64(len(b))
	h.left -= int64(len(b))
}

// bytes returns the next n ≤ 8 bytes, zeros after an error.
func (h *header) bytes(n int) []byte {
	b := h.buf[:n]
	clear(b)
	h.fill(b)
	return b
}

func (h *header) uint8() uint8   { return h.bytes(1)[0] }
func (h *header) uint16() uint16 { return binary.LittleEndian.Uint16(h.bytes(2)) }
func (h *header) uint32() uint32 { return binary.LittleEndian.Uint32(h.bytes(4)) }
func (h *header) uint64() uint64 { return binary.LittleEndian.Uint64(h.bytes(8)) }

// count reads a number of things of at least the given size each, which the header must have room for.
func (h *header) count(what string, size int64) int {
	at := h.at
	n := h.uint64()
	if h.err == nil && n > uint64(h.left/size) {
		h.err = fmt.Errorf("offset %d: %d %s in %d bytes, expected at most %d", at, n, what, h.left, h.left/size)
	}
	if h.err != nil {
		return 0
	}
	return int(n)
}

func (h *header) string() string {
	n := h.count("bytes of text", 1)
	if n == 0 {
		return ""
	}
	b := make([]byte, min(n, growth))
	h.fill(b)
	for h.err == nil && len(b) < n {
		more := min(n-len(b), len(b))
		b = append(b, make([]byte, more)...)
		h.fill(b[len(b)-more:])
	}
	if h.err != nil {
		return ""
	}
	return string(b)
}

// growth is the number of things that memory is taken for before the first is read. The size of a file may be a lie.
const growth = 1 << 16

func (h *header) bool() bool {
	at := h.at
	b := h.uint8()
	if b > 1 && h.err == nil {
		h.err = fmt.Errorf("offset %d: truth value %d, expected 0 or 1", at, b)
	}
	return b == 1
}

// value reads a type and a value of it.
func (h *header) value() (any, error) {
	kind := h.uint32()
	switch kind {
	case typeUint8:
		return h.uint8(), nil
	case typeInt8:
		return int8(h.uint8()), nil
	case typeUint16:
		return h.uint16(), nil
	case typeInt16:
		return int16(h.uint16()), nil
	case typeUint32:
		return h.uint32(), nil
	case typeInt32:
		return int32(h.uint32()), nil
	case typeFloat32:
		return math.Float32frombits(h.uint32()), nil
	case typeBool:
		return h.bool(), nil
	case typeString:
		return h.string(), nil
	case typeUint64:
		return h.uint64(), nil
	case typeInt64:
		return int64(h.uint64()), nil
	case typeFloat64:
		return math.Float64frombits(h.uint64()), nil
	case typeArray:
		return h.array()
	}
	return nil, fmt.Errorf("value type %d, expected 0 to %d", kind, typeFloat64)
}

func (h *header) array() (any, error) {
	kind := h.uint32()
	switch kind {
	case typeUint8:
		return items(h, 1, h.uint8), nil
	case typeInt8:
		return items(h, 1, func() int8 { return int8(h.uint8()) }), nil
	case typeUint16:
		return items(h, 2, h.uint16), nil
	case typeInt16:
		return items(h, 2, func() int16 { return int16(h.uint16()) }), nil
	case typeUint32:
		return items(h, 4, h.uint32), nil
	case typeInt32:
		return items(h, 4, func() int32 { return int32(h.uint32()) }), nil
	case typeFloat32:
		return items(h, 4, func() float32 { return math.Float32frombits(h.uint32()) }), nil
	case typeBool:
		return items(h, 1, h.bool), nil
	case typeString:
		return items(h, 8, h.string), nil
	case typeUint64:
		return items(h, 8, h.uint64), nil
	case typeInt64:
		return items(h, 8, func() int64 { return int64(h.uint64()) }), nil
	case typeFloat64:
		return items(h, 8, func() float64 { return math.Float64frombits(h.uint64()) }), nil
	case typeArray:
		return nil, errors.New("an array of arrays, expected an array of values, as llama.cpp does")
	}
	return nil, fmt.Errorf("item type %d, expected 0 to %d", kind, typeFloat64)
}

// items reads the items of an array, each of which has at least size bytes in the file.
func items[T any](h *header, size int64, next func() T) []T {
	n := h.count("items", size)
	v := make([]T, 0, min(n, growth))
	for range n {
		v = append(v, next())
		if h.err != nil {
			return nil
		}
	}
	return v
}
