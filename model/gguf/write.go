package gguf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
)

const (
	magic   = "GGUF"
	version = 3
	// alignment in bytes of every tensor's data, the format's default.
	alignment = 32
	// maxDims is ggml's limit of dimensions.
	maxDims = 4
	// maxName is ggml's limit of a tensor's name in bytes: 64 with the final zero.
	maxName = 63
)

// Tensor is a tensor to be written.
type Tensor struct {
	Name  string
	Type  Type
	Shape []int // outermost dimension first; the last one is the length of a row
	// Data writes the elements in the file's form, exactly the bytes that Type and Shape need. It is called once, when the
	// tensor's turn comes.
	Data func(w io.Writer) error
}

// Float32 returns a tensor of data stored as t (F32, F16, BF16, Q8_0 or Q4_0), converted while it is written.
func Float32(name string, t Type, shape []int, data []float32) Tensor {
	return Tensor{Name: name, Type: t, Shape: shape, Data: func(w io.Writer) error { return encodeTo(w, data, t) }}
}

// Write writes a file of version 3: metadata in the given order, then the tensors in the given order, one at a time, each at a
// multiple of 32 bytes. The bytes depend on the arguments only.
func Write(w io.Writer, m Metadata, tensors []Tensor) error {
	le := binary.LittleEndian
	head := append([]byte(magic), 0, 0, 0, 0)
	le.PutUint32(head[4:], version)
	head = le.AppendUint64(head, uint64(len(tensors)))
	head = le.AppendUint64(head, uint64(len(m)))
	keys := make(map[string]bool, len(m))
	for _, kv := range m {
		if kv.Key == "" || keys[kv.Key] || kv.Key == alignmentKey {
			return fmt.Errorf("metadata key %q: expected one that is not empty, given twice or %s", kv.Key, alignmentKey)
		}
		keys[kv.Key] = true
		var err error
		if head, err = appendValue(appendString(head, kv.Key), kv.Value); err != nil {
			return fmt.Errorf("metadata key %s: %w", kv.Key, err)
		}
	}
	sizes := make([]int64, len(tensors))
	names := make(map[string]bool, len(tensors))
	var at int64
	for i, t := range tensors {
		var err error
		if sizes[i], err = t.Type.size(t.Shape); err != nil {
			return fmt.Errorf("tensor %s: %w", t.Name, err)
		}
		if len(t.Name) < 1 || len(t.Name) > maxName || names[t.Name] {
			return fmt.Errorf("tensor %q: expected a name of 1 to %d bytes that is given once", t.Name, maxName)
		}
		names[t.Name] = true
		head = le.AppendUint32(appendString(head, t.Name), uint32(len(t.Shape)))
		for j := len(t.Shape) - 1; j >= 0; j-- { // the file has the length of a row first
			head = le.AppendUint64(head, uint64(t.Shape[j]))
		}
		head = le.AppendUint64(le.AppendUint32(head, uint32(t.Type)), uint64(at))
		at += pad(sizes[i])
	}
	if len(head) > maxHeader {
		return fmt.Errorf("metadata of %d bytes, expected at most %d", len(head), maxHeader)
	}
	head = append(head, zeros[:pad(int64(len(head)))-int64(len(head))]...)
	if _, err := w.Write(head); err != nil {
		return err
	}
	for i, t := range tensors {
		c := &counter{w: w}
		if err := t.Data(c); err != nil {
			return fmt.Errorf("tensor %s: %w", t.Name, err)
		}
		if c.n != sizes[i] {
			return fmt.Errorf("tensor %s: %d bytes, expected %d for shape %v of %v", t.Name, c.n, sizes[i], t.Shape, t.Type)
		}
		if _, err := w.Write(zeros[:pad(c.n)-c.n]); err != nil {
			return err
		}
	}
	return nil
}

var zeros [alignment]byte

// pad returns n rounded up to the alignment.
func pad(n int64) int64 { return (n + alignment - 1) / alignment * alignment }

// counter counts what is written.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// chunkLen is the number of elements converted at a time by one processor: whole blocks of every type.
const chunkLen = 1 << 17

// encodeTo writes data as elements of type t, which must be whole blocks. Chunks are converted on all processors and written in order.
func encodeTo(w io.Writer, data []float32, t Type) error {
	if !t.converts() {
		return fmt.Errorf("element type %v, expected F32, F16, BF16, Q8_0 or Q4_0", t)
	}
	x := types[t]
	workers := min(runtime.GOMAXPROCS(0), (len(data)+chunkLen-1)/chunkLen)
	bufs, errs := make([][]byte, workers), make([]error, workers)
	for i := range bufs {
		bufs[i] = make([]byte, min(len(data), chunkLen)/x.block*x.bytes)
	}
	for base := 0; base < len(data); base += workers * chunkLen {
		var wg sync.WaitGroup
		part := func(i int) []float32 {
			return data[min(base+i*chunkLen, len(data)):min(base+(i+1)*chunkLen, len(data))]
		}
		for i := range workers {
			wg.Go(func() { errs[i] = encode(bufs[i][:len(part(i))/x.block*x.bytes], part(i), t) })
		}
		wg.Wait()
		for i := range workers {
			var bad *elementError
			if errors.As(errs[i], &bad) {
				return &elementError{bad.index + base + i*chunkLen, bad.what}
			}
			if errs[i] != nil {
				return errs[i]
			}
			if _, err := w.Write(bufs[i][:len(part(i))/x.block*x.bytes]); err != nil {
				return err
			}
		}
	}
	return nil
}
