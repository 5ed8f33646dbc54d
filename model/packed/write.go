package packed

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"autodev/internal/atomicdir"
	"autodev/internal/sizedfile"
	"autodev/model"
	"autodev/model/dtype"
	"autodev/model/safetensors"
)

// Writer takes the parameters of a packed folder in the order of its entries.
type Writer struct {
	ctx     context.Context
	out     *bufio.Writer
	sum     hash.Hash
	entries []Entry // still to come
}

// Create writes a packed folder at dir, which appears whole or not at all: the configuration c with q, whose sizes and
// digest are found here, the files of assets (a model folder; nil for none) that belong to its tokenizer, and the
// parameters, which fill puts one after the other in the order of entries. They are those of c.Params. fill may complete q
// before it returns. Same parameters, same bytes. A packed folder that was at dir is replaced; one of anything else is an
// error.
func Create(ctx context.Context, dir string, c model.Config, q *Quantization, entries []Entry, assets fs.FS, fill func(*Writer) error) error {
	if files, err := os.ReadDir(dir); err == nil && len(files) > 0 && !Is(os.DirFS(dir)) {
		return fmt.Errorf("pack %s: a folder of other files, expected none or a packed model's that may be replaced", dir)
	}
	byName := map[string]Entry{}
	for _, e := range entries {
		byName[e.Name] = e
	}
	if err := check(c, byName); err != nil {
		return fmt.Errorf("pack %s: %w", dir, err)
	}
	err := atomicdir.Write(dir, func(tmp string) error {
		n, sum, err := writeWeights(ctx, filepath.Join(tmp, File), entries, fill)
		if err != nil {
			return err
		}
		q.Method, q.Version, q.File, q.Bytes, q.SHA256 = Method, Version, File, n, sum
		return model.SaveConfig(tmp, c, map[string]any{configKey: q}, assets)
	})
	if err != nil {
		return fmt.Errorf("pack %s: %w", dir, err)
	}
	return nil
}

func writeWeights(ctx context.Context, name string, entries []Entry, fill func(*Writer) error) (n int64, sum string, err error) {
	f, err := os.Create(name)
	if err != nil {
		return 0, "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := &Writer{ctx: ctx, sum: sha256.New(), entries: entries}
	w.out = bufio.NewWriterSize(io.MultiWriter(f, w.sum), 1<<20)
	if err := w.header(); err != nil {
		return 0, "", err
	}
	if err := fill(w); err != nil {
		return 0, "", err
	}
	if len(w.entries) > 0 {
		return 0, "", fmt.Errorf("tensor %s: not written", w.entries[0].Name)
	}
	if err := w.out.Flush(); err != nil {
		return 0, "", fmt.Errorf("write %s: %w", File, sizedfile.Cause(err))
	}
	st, err := f.Stat()
	if err != nil {
		return 0, "", err
	}
	return st.Size(), hex.EncodeToString(w.sum.Sum(nil)), nil
}

// header writes the container's header. Plain tensors whose size would spoil the alignment of what follows them are the
// caller's concern: it lists them last.
func (w *Writer) header() error {
	var ts []safetensors.Tensor
	table := map[string]Entry{}
	var at int64
	for _, e := range w.entries {
		table[e.Name] = e
		if e.Format == Float32 {
			ts = append(ts, safetensors.Tensor{Name: e.Name, DType: dtype.F32, Shape: e.Shape})
		}
		for _, p := range e.Parts {
			if at%align != 0 {
				return fmt.Errorf("tensor %s: begins at data offset %d, expected a multiple of %d", e.Name, at, align)
			}
			ts = append(ts, safetensors.Tensor{Name: e.Name + partOf + p.Name, DType: dtype.U8, Shape: []int{int(padded(p.Size))}})
		}
		at += e.bytes()
	}
	b, err := json.Marshal(table)
	if err != nil {
		return err
	}
	meta := map[string]string{metaFormat: Method, metaVersion: strconv.Itoa(Version), metaTensors: string(b)}
	return safetensors.WriteHeader(w.out, ts, meta, align)
}

// Float32 writes the next parameter, whose format is Float32.
func (w *Writer) Float32(name string, data []float32) error {
	e, err := w.next(name)
	if err != nil {
		return err
	}
	if e.Format != Float32 || 4*int64(len(data)) != e.bytes() {
		return fmt.Errorf("tensor %s: %d numbers, expected %s of shape %v", name, len(data), e.Format, e.Shape)
	}
	return safetensors.Float32(name, e.Shape, data, dtype.F32).Data(w.out)
}

// Bytes writes the parts of the next parameter.
func (w *Writer) Bytes(name string, parts ...[]byte) error {
	e, err := w.next(name)
	if err != nil {
		return err
	}
	if len(parts) != len(e.Parts) {
		return fmt.Errorf("tensor %s: %d parts, expected %d", name, len(parts), len(e.Parts))
	}
	for i, p := range e.Parts {
		if int64(len(parts[i])) != p.Size {
			return fmt.Errorf("tensor %s: %s of %d bytes, expected %d", name, p.Name, len(parts[i]), p.Size)
		}
		if _, err := w.out.Write(parts[i]); err != nil {
			return fmt.Errorf("write %s: %w", File, sizedfile.Cause(err))
		}
		if _, err := w.out.Write(make([]byte, padded(p.Size)-p.Size)); err != nil {
			return fmt.Errorf("write %s: %w", File, sizedfile.Cause(err))
		}
	}
	return nil
}

// next takes the entry whose turn it is.
func (w *Writer) next(name string) (Entry, error) {
	if err := context.Cause(w.ctx); err != nil {
		return Entry{}, err
	}
	if len(w.entries) == 0 || w.entries[0].Name != name {
		want := "no more"
		if len(w.entries) > 0 {
			want = w.entries[0].Name
		}
		return Entry{}, fmt.Errorf("tensor %s: written out of turn, expected %s", name, want)
	}
	e := w.entries[0]
	w.entries = w.entries[1:]
	return e, nil
}
