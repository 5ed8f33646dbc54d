package packed

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"autodev/internal/sizedfile"
	"autodev/model"
	"autodev/model/dtype"
	"autodev/model/safetensors"
)

// Folder is an open packed folder. Close ends the use of everything it gave out.
type Folder struct {
	Config       model.Config
	Quantization Quantization
	Dir          string
	FS           fs.FS

	label   string // the weight file in errors
	data    []byte // the weight file
	file    io.ReaderAt
	unmap   func() error
	own     func() error // frees the copy; nil without
	once    sync.Once
	entries map[string]Entry
	tensors map[string]safetensors.Info
}

// Open opens the packed folder dir: its configuration and the header of its weight file are checked and agree, the weights
// are mapped into memory but not read. The file must not be shortened while the folder is open; replacing the folder is
// fine.
func Open(dir string) (*Folder, error) {
	shown := filepath.ToSlash(dir)
	fsys := os.DirFS(dir)
	c, q, err := ReadConfig(fsys, shown)
	if err != nil {
		return nil, err
	}
	label := path.Join(shown, File)
	data, file, unmap, err := mapFile(filepath.Join(dir, File))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", label, sizedfile.Cause(err))
	}
	f, err := parse(data, c, q, label)
	if err != nil {
		// The file is of no use, whatever unmapping says.
		_ = unmap()
		return nil, err
	}
	f.Dir, f.FS, f.file, f.unmap = shown, fsys, file, unmap
	return f, nil
}

// parse checks the header of the weight file in data.
func parse(data []byte, c model.Config, q Quantization, label string) (*Folder, error) {
	if n := int64(len(data)); n != q.Bytes {
		return nil, fmt.Errorf("%s: %d bytes, expected the %d that %s says", label, n, q.Bytes, model.ConfigFile)
	}
	file, err := safetensors.NewFile(bytes.NewReader(data), int64(len(data)), label)
	if err != nil {
		return nil, err
	}
	f := &Folder{Config: c, Quantization: q, label: label, data: data, file: bytes.NewReader(data), unmap: func() error { return nil }, tensors: map[string]safetensors.Info{}}
	for _, t := range file.Tensors() {
		f.tensors[t.Name] = t
	}
	if err := f.match(file.Metadata()); err != nil {
		return nil, fmt.Errorf("%s: %w", label, err)
	}
	return f, nil
}

// match compares what the header says of parameters with the tensors there are, and with the configuration.
func (f *Folder) match(meta map[string]string) error {
	if meta[metaFormat] != Method || meta[metaVersion] != fmt.Sprint(Version) {
		return fmt.Errorf("header: format %q, version %q, expected %q and %d", meta[metaFormat], meta[metaVersion], Method, Version)
	}
	dec := json.NewDecoder(strings.NewReader(meta[metaTensors]))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f.entries); err != nil {
		return fmt.Errorf("header: %s: %w", metaTensors, err)
	}
	if err := check(f.Config, f.entries); err != nil {
		return err
	}
	n := 0
	for name, e := range f.entries {
		e.Name = name
		f.entries[name] = e
		if e.Format == Float32 {
			n++
		}
		n += len(e.Parts)
	}
	// In the order of the parameter table, so that the same file gives the same error.
	for _, p := range f.Config.Params() {
		e := f.entries[p.Name]
		if e.Format == Float32 {
			t, ok := f.tensors[p.Name]
			if !ok || t.DType != dtype.F32 || !slices.Equal(t.Shape, p.Shape) {
				return fmt.Errorf("tensor %s: %v of %s, expected %v of F32", p.Name, t.Shape, t.DType, p.Shape)
			}
		}
		for _, part := range e.Parts {
			t, ok := f.tensors[p.Name+partOf+part.Name]
			if !ok || t.DType != dtype.U8 || t.Size != padded(part.Size) || t.Offset%align != 0 {
				return fmt.Errorf("tensor %s: %s of %d bytes of %q at offset %d, expected %d bytes of U8 at a multiple of %d", p.Name, part.Name, t.Size, t.DType, t.Offset, padded(part.Size), align)
			}
		}
	}
	if n != len(f.tensors) {
		return fmt.Errorf("%d tensors, expected the %d that the header's %s says", len(f.tensors), n, metaTensors)
	}
	return nil
}

// Entry returns what is known of a parameter.
func (f *Folder) Entry(name string) (Entry, bool) {
	e, ok := f.entries[name]
	return e, ok
}

// Label is how errors call the weight file.
func (f *Folder) Label() string { return f.label }

// Float32s returns a parameter of format Float32, read only; nil when it is none.
func (f *Folder) Float32s(name string) []float32 {
	e := f.entries[name]
	t, ok := f.tensors[name]
	if e.Format != Float32 || !ok {
		return nil
	}
	b := f.data[t.Offset : t.Offset+t.Size]
	if native() && t.Offset%4 == 0 && len(b) > 0 {
		return unsafe.Slice((*float32)(unsafe.Pointer(&b[0])), len(b)/4)
	}
	out := make([]float32, len(b)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return out
}

// native reports whether the machine has the file's byte order.
func native() bool { return dtype.NativeBytes([]float32{0}) != nil }

// Bytes returns a part of a packed parameter, read only and aligned to 64 bytes; nil when there is no such part.
func (f *Folder) Bytes(name, part string) []byte { return f.part(f.data, name, part) }

// part returns the range of a part in data, which is laid out as the file.
func (f *Folder) part(data []byte, name, part string) []byte {
	for _, p := range f.entries[name].Parts {
		if p.Name == part {
			at := f.tensors[name+partOf+part].Offset
			return data[at : at+p.Size : at+p.Size]
		}
	}
	return nil
}

// Verify reads the whole weight file and compares its digest with that in config.json.
func (f *Folder) Verify(ctx context.Context) error {
	h := sha256.New()
	const block = 16 << 20
	for at := 0; at < len(f.data); at += block {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		h.Write(f.data[at:min(at+block, len(f.data))])
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != f.Quantization.SHA256 {
		return fmt.Errorf("%s: SHA-256 %s, expected %s as %s says: the file is damaged", f.label, got, f.Quantization.SHA256, model.ConfigFile)
	}
	return nil
}

// Close unmaps the weights and frees their copy.
func (f *Folder) Close() (err error) {
	f.once.Do(func() {
		f.data = nil
		e := f.unmap()
		if f.own != nil {
			e = errors.Join(e, f.own())
		}
		if e != nil {
			err = fmt.Errorf("%s: unmap: %w", f.label, e)
		}
	})
	return err
}
