package safetensors

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/bits"
	"slices"

	"autodev/internal/sizedfile"
	"autodev/model/dtype"
)

// maxHeader is the limit of the reference implementation, in bytes.
const maxHeader = 100_000_000

// metadataKey is the header entry that holds strings about the file instead of a tensor.
const metadataKey = "__metadata__"

// Info describes one tensor of a file.
type Info struct {
	Name   string
	DType  dtype.DType
	Shape  []int
	Offset int64 // of the first byte in the file
	Size   int64 // in bytes
}

// Len returns the number of elements.
func (i Info) Len() int { return int(i.Size) / i.DType.Size() }

// File is an open safetensors file. Its methods may be called from several goroutines at once.
type File struct {
	name     string
	r        io.ReaderAt
	close    func() error
	tensors  []Info
	byName   map[string]int
	metadata map[string]string
}

// Open opens the file at path. The whole header is checked before it returns; no tensor is read yet.
func Open(path string) (*File, error) {
	f, close, err := sizedfile.Open(path, NewFile)
	if err != nil {
		return nil, err
	}
	f.close = close
	return f, nil
}

// NewFile reads the header of the size bytes behind r; name stands for them in errors.
func NewFile(r io.ReaderAt, size int64, name string) (*File, error) {
	f := &File{name: name, r: r, byName: map[string]int{}}
	if err := f.readHeader(size); err != nil {
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

// Name returns the name the file was opened by.
func (f *File) Name() string { return f.name }

// Tensors returns the tensors in the order of their bytes.
func (f *File) Tensors() []Info { return f.tensors }

// Metadata returns the strings of __metadata__; nil when there are none.
func (f *File) Metadata() map[string]string { return f.metadata }

// Lookup returns the tensor of that name.
func (f *File) Lookup(name string) (Info, bool) {
	i, ok := f.byName[name]
	if !ok {
		return Info{}, false
	}
	return f.tensors[i], true
}

// ReadFloat32 fills dst, whose length must be the tensor's, with the tensor's elements as float32 (row major). It reads
// in blocks, so that it needs no second copy of a large tensor. Integer tensors are refused.
func (f *File) ReadFloat32(name string, dst []float32) error {
	t, err := f.tensor(name)
	if err != nil {
		return err
	}
	if !t.DType.Float() || len(dst) != t.Len() {
		return fmt.Errorf("%s: tensor %s: %d elements of %s, expected %d of a floating-point type", f.name, name, t.Len(), t.DType, len(dst))
	}
	if err := dtype.Read(dst, f.r, t.Offset, t.DType); err != nil {
		return fmt.Errorf("%s: tensor %s: %w", f.name, name, err)
	}
	return nil
}

// Float32s returns the tensor's elements as float32 (row major).
func (f *File) Float32s(name string) ([]float32, error) {
	t, err := f.tensor(name)
	if err != nil {
		return nil, err
	}
	dst := make([]float32, t.Len())
	return dst, f.ReadFloat32(name, dst)
}

// Bytes returns the tensor's elements as they are in the file: row major, little-endian.
func (f *File) Bytes(name string) ([]byte, error) {
	t, err := f.tensor(name)
	if err != nil {
		return nil, err
	}
	b := make([]byte, t.Size)
	if err := dtype.ReadFull(b, f.r, t.Offset); err != nil {
		return nil, fmt.Errorf("%s: tensor %s: %w", f.name, name, err)
	}
	return b, nil
}

func (f *File) tensor(name string) (Info, error) {
	t, ok := f.Lookup(name)
	if !ok {
		return Info{}, fmt.Errorf("%s: tensor %s: missing", f.name, name)
	}
	return t, nil
}

func (f *File) readHeader(size int64) error {
	var head [8]byte
	if size < int64(len(head)) {
		return fmt.Errorf("truncated: %d bytes, expected at least 8 for the header length", size)
	}
	if _, err := f.r.ReadAt(head[:], 0); err != nil {
		return fmt.Errorf("read the header length: %w", err)
	}
	n := binary.LittleEndian.Uint64(head[:])
	if n > maxHeader {
		return fmt.Errorf("header of %d bytes, expected at most %d (is this a safetensors file?)", n, maxHeader)
	}
	if int64(n) > size-8 {
		return fmt.Errorf("truncated: %d bytes, expected %d for the header alone", size, n+8)
	}
	raw := make([]byte, n)
	if got, err := f.r.ReadAt(raw, 8); got < len(raw) {
		return fmt.Errorf("read the header: %d of %d bytes: %w", got, n, err)
	}
	if err := f.parseHeader(raw, 8+int64(n)); err != nil {
		return err
	}
	slices.SortFunc(f.tensors, func(a, b Info) int {
		if c := cmpInt64(a.Offset, b.Offset); c != 0 {
			return c
		}
		return cmpInt64(a.Size, b.Size)
	})
	next := 8 + int64(n)
	for i, t := range f.tensors {
		f.byName[t.Name] = i
		if t.Offset != next {
			what := "overlaps"
			if t.Offset > next {
				what = "leaves a gap after"
			}
			return fmt.Errorf("tensor %s: begins at data offset %d and %s the tensor before it, expected %d", t.Name, t.Offset-8-int64(n), what, next-8-int64(n))
		}
		next += t.Size
		if next > size {
			return fmt.Errorf("truncated: %d bytes, but tensor %s ends at %d", size, t.Name, next)
		}
	}
	if next != size {
		return fmt.Errorf("%d bytes after the last tensor, expected none", size-next)
	}
	return nil
}

func cmpInt64(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// entry is what the header says of a tensor.
type entry struct {
	DType   *string
	Shape   *[]int64
	Offsets []int64
}

// readEntry reads the next value key by key: encoding/json takes "DTYPE" for "dtype" and the last of two, and other readers of the
// file would see another tensor.
func readEntry(dec *json.Decoder) (e entry, err error) {
	tok, err := dec.Token()
	if err != nil {
		return e, err
	}
	if tok != json.Delim('{') {
		return e, fmt.Errorf("found %v, expected a JSON object", tok)
	}
	seen := map[string]bool{}
	for dec.More() {
		if tok, err = dec.Token(); err != nil {
			return e, err
		}
		key, _ := tok.(string)
		if seen[key] {
			return e, fmt.Errorf("%s: given twice", key)
		}
		seen[key] = true
		var other json.RawMessage
		to := map[string]any{"dtype": &e.DType, "shape": &e.Shape, "data_offsets": &e.Offsets}[key]
		if to == nil {
			to = &other
		}
		if err := dec.Decode(to); err != nil {
			return e, fmt.Errorf("%s: %w", key, err)
		}
	}
	_, err = dec.Token()
	return e, err
}

// parseHeader walks the top-level object by token because duplicate names, which the format forbids, would vanish in a map.
func (f *File) parseHeader(raw []byte, base int64) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	tok, err := dec.Token()
	if err != nil {
		return fmt.Errorf("header: %w", err)
	}
	if tok != json.Delim('{') {
		return fmt.Errorf("header: found %v, expected a JSON object", tok)
	}
	seen := map[string]bool{}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return fmt.Errorf("header: %w", err)
		}
		name, ok := tok.(string)
		if !ok {
			return fmt.Errorf("header: found %v, expected a tensor name", tok)
		}
		if seen[name] {
			return fmt.Errorf("tensor %s: appears twice in the header", name)
		}
		seen[name] = true
		if name == metadataKey {
			if err := dec.Decode(&f.metadata); err != nil {
				return fmt.Errorf("header: %s: %w", metadataKey, err)
			}
			continue
		}
		e, err := readEntry(dec)
		if err != nil {
			return fmt.Errorf("tensor %s: %w", name, err)
		}
		if e.DType == nil || e.Shape == nil || len(e.Offsets) != 2 {
			return fmt.Errorf("tensor %s: expected dtype, shape and two data_offsets", name)
		}
		t := Info{Name: name, DType: dtype.DType(*e.DType), Shape: make([]int, len(*e.Shape))}
		if t.DType.Size() == 0 {
			return fmt.Errorf("tensor %s: element type %q, expected one of F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL", name, *e.DType)
		}
		n := uint64(t.DType.Size())
		for i, d := range *e.Shape {
			hi, lo := bits.Mul64(n, uint64(d))
			if d < 0 || hi != 0 || lo > math.MaxInt64 || d > math.MaxInt {
				return fmt.Errorf("tensor %s: shape %v is not a shape of less than 2^63 bytes", name, *e.Shape)
			}
			n = lo
			t.Shape[i] = int(d)
		}
		begin, end := e.Offsets[0], e.Offsets[1]
		if begin < 0 || end < begin || begin > math.MaxInt64-base {
			return fmt.Errorf("tensor %s: data_offsets %v, expected 0 <= begin <= end", name, e.Offsets)
		}
		if uint64(end-begin) != n {
			return fmt.Errorf("tensor %s: data_offsets %v span %d bytes, expected %d for shape %v of %s", name, e.Offsets, end-begin, n, t.Shape, t.DType)
		}
		t.Offset, t.Size = base+begin, end-begin
		f.tensors = append(f.tensors, t)
	}
	if _, err := dec.Token(); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	if rest := bytes.TrimSpace(raw[dec.InputOffset():]); len(rest) > 0 {
		return fmt.Errorf("header: %d bytes after the JSON object, expected only spaces", len(rest))
	}
	return nil
}
