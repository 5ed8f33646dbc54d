package safetensors

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"autodev/model/dtype"
)

// Tensor is a tensor to be written.
type Tensor struct {
	Name  string
	DType dtype.DType
	Shape []int
	// Data writes the elements to w, row major and little-endian; it must write exactly the bytes that DType and Shape
	// need. It is called once, when the tensor's turn comes, so that conversions need no second copy of a model.
	Data func(w io.Writer) error
}

// Float32 returns a tensor of data stored as d, which must be F32, F16 or BF16; Write reports a number that d cannot hold.
func Float32(name string, shape []int, data []float32, d dtype.DType) Tensor {
	return Tensor{Name: name, DType: d, Shape: shape, Data: func(w io.Writer) error { return encode(w, data, d) }}
}

// Bytes returns a tensor of elements that are already in the file's form: row major, little-endian.
func Bytes(name string, d dtype.DType, shape []int, data []byte) Tensor {
	return Tensor{Name: name, DType: d, Shape: shape, Data: func(w io.Writer) error { _, err := w.Write(data); return err }}
}

// Size returns the bytes the elements need, -1 when the element type or the shape is invalid.
func (t Tensor) Size() int64 {
	n := int64(t.DType.Size())
	if n == 0 {
		return -1
	}
	for _, d := range t.Shape {
		if d < 0 || d > 0 && n > math.MaxInt64/int64(d) {
			return -1
		}
		n *= int64(d)
	}
	return n
}

// Write writes a file of the tensors. The bytes depend on the content only, not on the order of tensors, and equal those
// of the reference implementation: tensors sorted by element size (largest first, which keeps all aligned), element type
// and name; the header padded with spaces to a multiple of 8.
func Write(w io.Writer, tensors []Tensor, metadata map[string]string) error {
	sorted := slices.Clone(tensors)
	slices.SortFunc(sorted, func(a, b Tensor) int {
		if c := rank(b.DType) - rank(a.DType); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	if err := WriteHeader(w, sorted, metadata, 8); err != nil {
		return err
	}
	for _, t := range sorted {
		c := &counter{w: w}
		if err := t.Data(c); err != nil {
			return fmt.Errorf("tensor %s: %w", t.Name, err)
		}
		if c.n != t.Size() {
			return fmt.Errorf("tensor %s: %d bytes, expected %d for shape %v of %s", t.Name, c.n, t.Size(), t.Shape, t.DType)
		}
	}
	return nil
}

// WriteHeader writes the header of a file of the tensors in the given order; the caller writes their elements behind it.
// The first begins at a multiple of align bytes, a power of two of at least 8; those behind it are aligned as far as the
// sizes before them are, since the format has no gaps.
func WriteHeader(w io.Writer, tensors []Tensor, metadata map[string]string, align int) error {
	var head bytes.Buffer
	head.Write(make([]byte, 8))
	head.WriteByte('{')
	if len(metadata) > 0 {
		if err := member(&head, metadataKey, metadata); err != nil { // encoding/json sorts the keys
			return err
		}
	}
	var at int64
	seen := make(map[string]bool, len(tensors))
	for _, t := range tensors {
		size := t.Size()
		switch {
		case size < 0:
			return fmt.Errorf("tensor %s: element type %q and shape %v, expected a known type and no negative or overflowing dimension", t.Name, t.DType, t.Shape)
		case t.Name == metadataKey:
			return fmt.Errorf("tensor %s: the name is reserved", t.Name)
		case seen[t.Name]:
			return fmt.Errorf("tensor %s: given twice", t.Name)
		}
		seen[t.Name] = true
		shape := t.Shape
		if shape == nil {
			shape = []int{}
		}
		e := struct {
			DType   dtype.DType `json:"dtype"`
			Shape   []int       `json:"shape"`
			Offsets [2]int64    `json:"data_offsets"`
		}{t.DType, shape, [2]int64{at, at + size}}
		if err := member(&head, t.Name, e); err != nil {
			return err
		}
		at += size
	}
	head.WriteByte('}')
	for head.Len()%align != 0 {
		head.WriteByte(' ')
	}
	if head.Len()-8 > maxHeader {
		return fmt.Errorf("header of %d bytes, expected at most %d", head.Len()-8, maxHeader)
	}
	b := head.Bytes()
	binary.LittleEndian.PutUint64(b, uint64(len(b)-8))
	_, err := w.Write(b)
	return err
}

// rank orders element types as the reference implementation's enumeration does.
func rank(d dtype.DType) int {
	return slices.Index([]dtype.DType{dtype.Bool, dtype.U8, dtype.I8, dtype.I16, dtype.F16, dtype.BF16, dtype.I32, dtype.F32, dtype.F64, dtype.I64}, d)
}

// member appends "key":value to the JSON object that head is building, without escaping what JSON does not require.
func member(head *bytes.Buffer, key string, value any) error {
	if head.Len() > 9 {
		head.WriteByte(',')
	}
	for i, v := range []any{key, value} {
		if i == 1 {
			head.WriteByte(':')
		}
		enc := json.NewEncoder(head)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(v); err != nil {
			return fmt.Errorf("header entry %s: %w", key, err)
		}
		head.Truncate(head.Len() - 1) // the newline Encode adds
	}
	return nil
}

func encode(w io.Writer, data []float32, d dtype.DType) error {
	if d == dtype.F32 {
		if b := dtype.NativeBytes(data); b != nil {
			_, err := w.Write(b)
			return err
		}
	}
	const block = 1 << 18 // elements
	buf := make([]byte, min(block, len(data))*max(d.Size(), 1))
	for at := 0; at < len(data); at += block {
		part := data[at:min(at+block, len(data))]
		n, err := dtype.Encode(buf, part, d)
		if err != nil {
			return fmt.Errorf("elements from %d: %w", at, err)
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
	}
	return nil
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}
