package torchbin

import (
	"archive/zip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"strings"

	"autodev/internal/sizedfile"
	"autodev/model/dtype"
)

// maxPickle bounds the pickle in bytes; a state dict of ten thousand tensors needs about two million.
const maxPickle = 64 << 20

// Info describes one tensor of a file.
type Info struct {
	Name  string
	DType dtype.DType
	Shape []int
}

// Len returns the number of elements.
func (i Info) Len() int {
	n := 1
	for _, d := range i.Shape {
		n *= d
	}
	return n
}

// File is an open file. Its methods may be called from several goroutines at once.
type File struct {
	name    string
	r       io.ReaderAt
	size    int64
	close   func() error
	tensors []Info
	views   map[string]*view
}

// storage is a flat run of elements in the file; several views may share it.
type storage struct {
	key    string
	dtype  dtype.DType
	len    int64 // elements
	offset int64 // bytes from the start of the file; legacy files fill it in after the pickle
}

// view is a strided window on a storage; offset and strides count elements.
type view struct {
	s              *storage
	offset         int64
	shape, strides []int64
}

// Open opens the file at path and reads its pickle; no tensor is read yet.
func Open(path string) (*File, error) {
	f, close, err := sizedfile.Open(path, NewFile)
	if err != nil {
		return nil, err
	}
	f.close = close
	return f, nil
}

// NewFile reads the pickle of the size bytes behind r; name stands for them in errors.
func NewFile(r io.ReaderAt, size int64, name string) (*File, error) {
	f := &File{name: name, r: r, size: size, views: map[string]*view{}}
	head := make([]byte, min(size, int64(len(legacyMagic))))
	if err := dtype.ReadFull(head, r, 0); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	read := f.readZip
	if string(head) == legacyMagic {
		read = f.readLegacy
	}
	if err := read(); err != nil {
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

// Tensors returns the tensors in the order of the state dict.
func (f *File) Tensors() []Info { return f.tensors }

// ReadFloat32 fills dst, whose length must be the tensor's, with the tensor's elements as float32 (row major, whatever
// the strides in the file). Integer tensors are refused.
func (f *File) ReadFloat32(name string, dst []float32) error {
	v, ok := f.views[name]
	if !ok {
		return fmt.Errorf("%s: tensor %s: missing", f.name, name)
	}
	n := v.len()
	if !v.s.dtype.Float() || int64(len(dst)) != n {
		return fmt.Errorf("%s: tensor %s: %d elements of %s, expected %d of a floating-point type", f.name, name, n, v.s.dtype, len(dst))
	}
	if n == 0 {
		return nil
	}
	if err := f.read(v, dst); err != nil {
		return fmt.Errorf("%s: tensor %s: %w", f.name, name, err)
	}
	return nil
}

func (f *File) read(v *view, dst []float32) error {
	at := v.s.offset + v.offset*int64(v.s.dtype.Size())
	if v.contiguous() {
		return dtype.Read(dst, f.r, at, v.s.dtype)
	}
	run := make([]float32, v.span())
	if err := dtype.Read(run, f.r, at, v.s.dtype); err != nil {
		return err
	}
	index := make([]int64, len(v.shape))
	var from int64
	for i := range dst {
		dst[i] = run[from]
		for d := len(index) - 1; d >= 0; d-- {
			index[d]++
			from += v.strides[d]
			if index[d] < v.shape[d] {
				break
			}
			from -= index[d] * v.strides[d]
			index[d] = 0
		}
	}
	return nil
}

func (v *view) len() int64 {
	n := int64(1)
	for _, d := range v.shape {
		n *= d
	}
	return n
}

// span returns the elements from the view's first to its last, inclusive, for a view that is not empty.
func (v *view) span() int64 {
	n := int64(1)
	for i, d := range v.shape {
		n += (d - 1) * v.strides[i]
	}
	return n
}

func (v *view) contiguous() bool {
	want := int64(1)
	for i := len(v.shape) - 1; i >= 0; i-- {
		if v.shape[i] != 1 && v.strides[i] != want {
			return false
		}
		want *= v.shape[i]
	}
	return true
}

// check proves that the view lies inside its storage, without overflow. A view with more elements than its storage (an
// expanded one) is refused: no weights are kept so, and a small file could ask for any amount of memory.
func (v *view) check() error {
	if len(v.shape) != len(v.strides) || len(v.shape) > 8 {
		return fmt.Errorf("shape %v with strides %v, expected the same number, at most 8", v.shape, v.strides)
	}
	empty := false
	n, last := uint64(1), uint64(0)
	for i, d := range v.shape {
		if d < 0 || v.strides[i] < 0 || v.offset < 0 || d > 1<<48 || v.strides[i] > 1<<48 || v.offset > 1<<48 {
			return fmt.Errorf("shape %v, strides %v, offset %d: expected numbers from 0 to 2^48", v.shape, v.strides, v.offset)
		}
		empty = empty || d == 0
		if d == 0 {
			continue
		}
		hi, lo := bits.Mul64(n, uint64(d))
		far, step := bits.Mul64(uint64(d-1), uint64(v.strides[i]))
		if hi != 0 || far != 0 || lo > 1<<62 || step > 1<<62 || last > 1<<62 {
			return fmt.Errorf("shape %v, strides %v: too large", v.shape, v.strides)
		}
		n, last = lo, last+step
	}
	if empty {
		return nil
	}
	if v.offset < 0 || v.offset > v.s.len || last >= uint64(v.s.len-v.offset) {
		return fmt.Errorf("shape %v, strides %v, offset %d: reaches beyond its storage of %d elements", v.shape, v.strides, v.offset, v.s.len)
	}
	if n > uint64(v.s.len) {
		return fmt.Errorf("shape %v has %d elements, more than its storage's %d", v.shape, n, v.s.len)
	}
	return nil
}

func storageType(g global) dtype.DType {
	if g.module != "torch" {
		return ""
	}
	switch g.name {
	case "DoubleStorage":
		return dtype.F64
	case "FloatStorage":
		return dtype.F32
	case "HalfStorage":
		return dtype.F16
	case "BFloat16Storage":
		return dtype.BF16
	case "LongStorage":
		return dtype.I64
	case "IntStorage":
		return dtype.I32
	case "ShortStorage":
		return dtype.I16
	case "CharStorage":
		return dtype.I8
	case "ByteStorage":
		return dtype.U8
	case "BoolStorage":
		return dtype.Bool
	}
	return ""
}

// call applies the functions that a state dict of tensors needs.
func call(g global, args tuple) (any, error) {
	switch g.name {
	case "OrderedDict":
		if len(args) != 0 {
			return nil, fmt.Errorf("%s called with %d arguments, expected none", g, len(args))
		}
		return &dict{}, nil
	case "_rebuild_parameter": // (data, requires_grad, backward_hooks)
		if len(args) == 3 {
			if v, ok := args[0].(*view); ok {
				return v, nil
			}
		}
		return nil, fmt.Errorf("%s: expected a tensor and two more arguments", g)
	case "_rebuild_tensor", "_rebuild_tensor_v2": // (storage, offset, size, stride, requires_grad, backward_hooks, metadata)
		if len(args) < 4 || len(args) > 7 {
			return nil, fmt.Errorf("%s called with %d arguments, expected 4 to 7", g, len(args))
		}
		s, ok := args[0].(*storage)
		offset, ok1 := args[1].(int64)
		shape, ok2 := ints(args[2])
		strides, ok3 := ints(args[3])
		if !ok || !ok1 || !ok2 || !ok3 {
			return nil, fmt.Errorf("%s called with %s, %s, %s, %s; expected a storage, an int and two tuples of ints", g, kind(args[0]), kind(args[1]), kind(args[2]), kind(args[3]))
		}
		v := &view{s, offset, shape, strides}
		if err := v.check(); err != nil {
			return nil, fmt.Errorf("tensor on storage %s: %w", s.key, err)
		}
		return v, nil
	}
	return nil, fmt.Errorf("call of %s, expected a function that rebuilds a tensor", g)
}

func ints(v any) ([]int64, bool) {
	t, ok := v.(tuple)
	if !ok {
		return nil, false
	}
	out := make([]int64, len(t))
	for i, x := range t {
		if out[i], ok = x.(int64); !ok {
			return nil, false
		}
	}
	return out, true
}

// persistentID reads ("storage", type, key, location, elements[, view]).
func persistentID(id any) (*storage, error) {
	t, ok := id.(tuple)
	if !ok || len(t) < 5 || len(t) > 6 || t[0] != "storage" {
		return nil, fmt.Errorf("persistent id is %s, expected the tuple of a storage", kind(id))
	}
	g, ok1 := t[1].(global)
	key, ok2 := t[2].(string)
	n, ok3 := t[4].(int64)
	if !ok1 || !ok2 || !ok3 || storageType(g) == "" {
		return nil, fmt.Errorf("persistent id of a storage with %s, %s, %s; expected a storage type, a string and an int", kind(t[1]), kind(t[2]), kind(t[4]))
	}
	if n < 0 || n > 1<<48 {
		return nil, fmt.Errorf("storage %q: %d elements, expected 0 to 2^48", key, n)
	}
	if len(t) == 6 && t[5] != nil {
		return nil, fmt.Errorf("storage %q: is a view of another storage, which torch has not written since 0.4", key)
	}
	return &storage{key: key, dtype: storageType(g), len: n}, nil
}

// fill takes the tensors from the pickle's value, which must be a dict of strings to tensors.
func (f *File) fill(value any) error {
	d, ok := value.(*dict)
	if !ok {
		return fmt.Errorf("holds %s, expected a dict of tensors", kind(value))
	}
	for i, k := range d.keys {
		name, ok := k.(string)
		if !ok {
			return fmt.Errorf("a key of the dict is %s, expected the name of a tensor", kind(k))
		}
		v, ok := d.values[i].(*view)
		if !ok {
			return fmt.Errorf("entry %q is %s, expected a tensor", name, kind(d.values[i]))
		}
		if _, ok := f.views[name]; ok {
			return fmt.Errorf("tensor %s: appears twice", name)
		}
		f.views[name] = v
		t := Info{Name: name, DType: v.s.dtype, Shape: make([]int, len(v.shape))}
		for j, n := range v.shape {
			t.Shape[j] = int(n)
		}
		f.tensors = append(f.tensors, t)
	}
	return nil
}

// readZip reads the format of torch 1.6 and later: PREFIX/data.pkl, PREFIX/byteorder and PREFIX/data/KEY, all stored
// without compression.
func (f *File) readZip() error {
	z, err := zip.NewReader(f.r, f.size)
	if err != nil {
		return fmt.Errorf("truncated, or no file of torch.save: %w", err)
	}
	entries := make(map[string]*zip.File, len(z.File))
	prefix := ""
	for _, e := range z.File {
		if p, ok := strings.CutSuffix(e.Name, "/data.pkl"); ok && !strings.Contains(p, "/") {
			if prefix != "" {
				return fmt.Errorf("two pickles, %s/data.pkl and %s, expected one", prefix, e.Name)
			}
			prefix = p
		}
		if _, ok := entries[e.Name]; ok {
			return fmt.Errorf("archive entry %q: appears twice", e.Name)
		}
		entries[e.Name] = e
	}
	if prefix == "" {
		return errors.New("no archive entry PREFIX/data.pkl, expected a file of torch.save")
	}
	if e := entries[prefix+"/byteorder"]; e != nil {
		b, err := f.entry(e, 16)
		if err != nil {
			return err
		}
		if string(b) != "little" {
			return fmt.Errorf("byte order %q, expected little", b)
		}
	}
	pkl, err := f.entry(entries[prefix+"/data.pkl"], maxPickle)
	if err != nil {
		return err
	}
	storages := map[string]*storage{}
	m := &machine{b: pkl, call: call, persistent: func(id any) (any, error) {
		s, err := persistentID(id)
		if err != nil {
			return nil, err
		}
		if have, ok := storages[s.key]; ok {
			if have.dtype != s.dtype || have.len != s.len {
				return nil, fmt.Errorf("storage %q: %d elements of %s here, %d of %s before", s.key, s.len, s.dtype, have.len, have.dtype)
			}
			return have, nil
		}
		e := entries[prefix+"/data/"+s.key]
		if e == nil {
			return nil, fmt.Errorf("storage %q: no archive entry %q", s.key, prefix+"/data/"+s.key)
		}
		var size int64
		if s.offset, size, err = f.place(e); err != nil {
			return nil, err
		}
		if want := s.len * int64(s.dtype.Size()); size != want {
			return nil, fmt.Errorf("storage %q: %d bytes, expected %d for %d elements of %s", s.key, size, want, s.len, s.dtype)
		}
		storages[s.key] = s
		return s, nil
	}}
	value, err := m.run()
	if err != nil {
		return err
	}
	return f.fill(value)
}

// place returns where the bytes of a stored archive entry are.
func (f *File) place(e *zip.File) (offset, size int64, err error) {
	if e.Method != zip.Store || e.CompressedSize64 != e.UncompressedSize64 {
		return 0, 0, fmt.Errorf("archive entry %q: compressed, expected stored", e.Name)
	}
	offset, err = e.DataOffset()
	if err != nil {
		return 0, 0, fmt.Errorf("archive entry %q: %w", e.Name, err)
	}
	if offset > f.size || e.UncompressedSize64 > uint64(f.size-offset) {
		return 0, 0, fmt.Errorf("archive entry %q: %d bytes at offset %d reach beyond the file's %d", e.Name, e.UncompressedSize64, offset, f.size)
	}
	return offset, int64(e.UncompressedSize64), nil
}

func (f *File) entry(e *zip.File, limit int64) ([]byte, error) {
	offset, size, err := f.place(e)
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, fmt.Errorf("archive entry %q: %d bytes, expected at most %d", e.Name, size, limit)
	}
	b := make([]byte, size)
	if err := dtype.ReadFull(b, f.r, offset); err != nil {
		return nil, fmt.Errorf("archive entry %q: %w", e.Name, err)
	}
	return b, nil
}

// legacyMagic is the pickle of the number 0x1950a86a20f9469cfc6c that starts files older than torch 1.6.
const legacyMagic = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."

// readLegacy reads the older format: pickles of the magic number, the protocol 1001, the writer's type sizes, the state
// dict and the list of storage keys, then for each key the number of elements (int64) and the elements.
func (f *File) readLegacy() error {
	head := make([]byte, min(f.size, maxPickle))
	if err := dtype.ReadFull(head, f.r, 0); err != nil {
		return err
	}
	storages := map[string]*storage{}
	m := &machine{b: head, at: len(legacyMagic), call: call}
	noStorage := func(any) (any, error) { return nil, errors.New("a storage outside the state dict") }
	m.persistent = noStorage
	version, err := m.run()
	if err != nil {
		return err
	}
	if version != int64(1001) {
		return fmt.Errorf("protocol %v, expected 1001", version)
	}
	info, err := m.run()
	if err != nil {
		return err
	}
	if d, ok := info.(*dict); ok {
		for i, k := range d.keys {
			if k == "little_endian" && d.values[i] != true {
				return errors.New("byte order big, expected little")
			}
		}
	}
	m.persistent = func(id any) (any, error) {
		s, err := persistentID(id)
		if err != nil {
			return nil, err
		}
		if have, ok := storages[s.key]; ok {
			if have.dtype != s.dtype || have.len != s.len {
				return nil, fmt.Errorf("storage %q: %d elements of %s here, %d of %s before", s.key, s.len, s.dtype, have.len, have.dtype)
			}
			return have, nil
		}
		storages[s.key] = s
		return s, nil
	}
	value, err := m.run()
	if err != nil {
		return err
	}
	m.persistent = noStorage
	keys, err := m.run()
	if err != nil {
		return err
	}
	l, ok := keys.(*list)
	if !ok || len(l.items) != len(storages) {
		return fmt.Errorf("storage keys are %s, expected a list of %d", kind(keys), len(storages))
	}
	at := int64(m.at)
	for _, k := range l.items {
		key, _ := k.(string)
		s := storages[key]
		if s == nil {
			return fmt.Errorf("storage %q: listed but not in the state dict, or listed twice", key)
		}
		var n [8]byte
		if err := dtype.ReadFull(n[:], f.r, at); err != nil {
			return fmt.Errorf("storage %q: truncated: %w", key, err)
		}
		if got := int64(binary.LittleEndian.Uint64(n[:])); got != s.len {
			return fmt.Errorf("storage %q: %d elements, expected %d", key, got, s.len)
		}
		s.offset = at + 8
		at = s.offset + s.len*int64(s.dtype.Size())
		if at > f.size {
			return fmt.Errorf("storage %q: truncated: ends at offset %d of %d", key, at, f.size)
		}
		delete(storages, key)
	}
	return f.fill(value)
}
