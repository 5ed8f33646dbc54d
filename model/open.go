package model

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"autodev/internal/sizedfile"
	"autodev/model/dtype"
	"autodev/model/safetensors"
	"autodev/model/torchbin"
)

// Files of a model folder that hold weights, in the order in which they are looked for.
const (
	SafetensorsFile  = "model.safetensors"
	SafetensorsIndex = "model.safetensors.index.json"
	TorchFile        = "pytorch_model.bin"
	TorchIndex       = "pytorch_model.bin.index.json"
)

// TokenizerFiles lists the files of a model folder that belong to its tokenizer.
func TokenizerFiles() []string {
	return []string{"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt", "added_tokens.json"}
}

// ErrNoWeights reports a model folder without weight files.
var ErrNoWeights = errors.New("no weights")

// Checkpoint is a model in memory.
type Checkpoint struct {
	Config  Config
	Weights *Weights
	Dir     string // as it was given to Load
	FS      fs.FS  // the folder, for its tokenizer and other files
}

// Load reads the model in folder dir.
func Load(ctx context.Context, dir string) (*Checkpoint, error) {
	return load(ctx, func() (*Folder, error) { return Open(dir) })
}

// LoadFS reads the model in fsys, such as an embedded one; name stands for the folder in errors.
func LoadFS(ctx context.Context, fsys fs.FS, name string) (*Checkpoint, error) {
	return load(ctx, func() (*Folder, error) { return OpenFS(fsys, name) })
}

func load(ctx context.Context, open func() (*Folder, error)) (c *Checkpoint, err error) {
	f, err := open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w, err := f.Weights(ctx)
	if err != nil {
		return nil, err
	}
	return &Checkpoint{Config: f.Config, Weights: w, Dir: f.Dir, FS: f.FS}, nil
}

// Folder is an open model folder: configuration and the headers of all weight files are read and agree with each other, the
// weights are not read yet.
type Folder struct {
	Config Config
	Dir    string
	FS     fs.FS
	Files  []FileInfo // the weight files
	DTypes []dtype.DType

	label   string // the file to blame for a tensor that is in none
	open    []tensorFile
	tensors map[string]stored // by full name ("transformer.…")
	plan    [][]piece         // per parameter
	specs   []ParamSpec
}

// stored is a tensor of a weight file.
type stored struct {
	file  tensorFile
	name  string // in the file
	dtype dtype.DType
	shape []int
}

// tensorFile is a weight file of either format.
type tensorFile interface {
	Name() string
	ReadFloat32(name string, dst []float32) error
}

// Open opens the model folder dir and checks everything but the weights' values.
func Open(dir string) (*Folder, error) {
	st, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", dir, sizedfile.Cause(err))
	}
	if !st.IsDir() {
		return nil, fmt.Errorf("model %s: a file, expected a folder with %s", dir, ConfigFile)
	}
	return OpenFS(os.DirFS(dir), filepath.ToSlash(dir))
}

// OpenFS is Open for a folder that need not be on disk; dir stands for it in errors.
func OpenFS(fsys fs.FS, dir string) (_ *Folder, err error) {
	c, err := ReadConfig(fsys, dir)
	if err != nil {
		return nil, err
	}
	f := &Folder{Config: c, Dir: dir, FS: fsys, tensors: map[string]stored{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if err := f.openFiles(); err != nil {
		return nil, err
	}
	if err := f.match(); err != nil {
		return nil, err
	}
	return f, nil
}

// Close closes the weight files.
func (f *Folder) Close() error {
	var errs []error
	for _, t := range f.open {
		if c, ok := t.(io.Closer); ok {
			errs = append(errs, c.Close())
		}
	}
	f.open = nil
	return errors.Join(errs...)
}

// openFiles finds the weight files and reads their headers.
func (f *Folder) openFiles() error {
	for _, name := range []string{SafetensorsFile, SafetensorsIndex, TorchFile, TorchIndex} {
		_, err := fs.Stat(f.FS, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path.Join(f.Dir, name), sizedfile.Cause(err))
		}
		f.label = path.Join(f.Dir, name)
		if name == SafetensorsFile || name == TorchFile {
			return f.openFile(name)
		}
		return f.openShards(name)
	}
	return fmt.Errorf("%s: %w, expected %s, %s, %s or %s", f.Dir, ErrNoWeights, SafetensorsFile, SafetensorsIndex, TorchFile, TorchIndex)
}

// openShards opens the files that an index names.
func (f *Folder) openShards(index string) error {
	b, err := sizedfile.ReadFS(f.FS, index, f.label, maxConfigBytes)
	if err != nil {
		return err
	}
	var x struct {
		WeightMap map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(b, &x); err != nil {
		return fmt.Errorf("%s: %w", f.label, jsonError(err))
	}
	if len(x.WeightMap) == 0 {
		return fmt.Errorf("%s: weight_map: missing or empty, expected the file of each tensor", f.label)
	}
	names := slices.Compact(slices.Sorted(maps.Values(x.WeightMap)))
	for _, name := range names {
		if !fs.ValidPath(name) || strings.Contains(name, "/") || path.Ext(name) != path.Ext(strings.TrimSuffix(index, ".index.json")) {
			return fmt.Errorf("%s: weight_map: file %q, expected the name of a %s file in this folder", f.label, name, path.Ext(strings.TrimSuffix(index, ".index.json")))
		}
		if err := f.openFile(name); err != nil {
			return err
		}
	}
	for _, tensor := range slices.Sorted(maps.Keys(x.WeightMap)) {
		file := path.Join(f.Dir, x.WeightMap[tensor])
		if t, ok := f.tensors[fullName(tensor)]; !ok || t.file.Name() != file {
			return fmt.Errorf("%s: tensor %s: missing, expected as %s says", file, tensor, index)
		}
	}
	return nil
}

// openFile opens one weight file and takes in its tensors.
func (f *Folder) openFile(name string) error {
	shown := path.Join(f.Dir, name)
	file, size, err := sizedfile.OpenFS(f.FS, name)
	if err != nil {
		return fmt.Errorf("%s: %w", shown, sizedfile.Cause(err))
	}
	var r io.ReaderAt
	if at, ok := file.(io.ReaderAt); ok {
		r = at
	} else {
		b, err := io.ReadAll(file)
		if err != nil {
			return errors.Join(fmt.Errorf("%s: %w", shown, sizedfile.Cause(err)), file.Close())
		}
		r = bytes.NewReader(b)
	}
	add := func(t tensorFile, name string, d dtype.DType, shape []int) error {
		full := fullName(name)
		if have, ok := f.tensors[full]; ok {
			return fmt.Errorf("%s: tensor %s: also in %s as %s, expected once", shown, name, have.file.Name(), have.name)
		}
		f.tensors[full] = stored{t, name, d, shape}
		return nil
	}
	n := 0
	if path.Ext(name) == ".bin" {
		t, err := torchbin.NewFile(r, size, shown)
		if err != nil {
			return errors.Join(err, file.Close())
		}
		f.open = append(f.open, opened{t, file})
		for _, i := range t.Tensors() {
			if err := add(t, i.Name, i.DType, i.Shape); err != nil {
				return err
			}
		}
		n = len(t.Tensors())
	} else {
		t, err := safetensors.NewFile(r, size, shown)
		if err != nil {
			return errors.Join(err, file.Close())
		}
		f.open = append(f.open, opened{t, file})
		for _, i := range t.Tensors() {
			if err := add(t, i.Name, i.DType, i.Shape); err != nil {
				return err
			}
		}
		n = len(t.Tensors())
	}
	f.Files = append(f.Files, FileInfo{Name: name, Bytes: size, Tensors: n})
	return nil
}

// opened closes the file behind a tensorFile that was made from a reader.
type opened struct {
	tensorFile
	file fs.File
}

func (o opened) Close() error { return o.file.Close() }

// fullName adds the prefix that checkpoints of the bare transformer lack.
func fullName(name string) string {
	if name == headName || strings.HasPrefix(name, "transformer.") {
		return name
	}
	return "transformer." + name
}

// match finds every parameter's tensors, and a parameter for every tensor.
func (f *Folder) match() error {
	c := f.Config
	used := map[string]bool{}
	if head, ok := f.tensors[headName]; ok && c.Tied {
		// transformers leaves one name of a shared tensor, usually but not always the table's.
		if _, ok := f.tensors[wteName]; !ok {
			f.tensors[wteName] = head
		}
		if want := []int{c.VocabSize, c.Embed}; !slices.Equal(head.shape, want) {
			return f.wrongShape(head, want)
		}
		used[headName] = true
	}
	dtypes := map[dtype.DType]bool{}
	f.specs = c.Params()
	for _, p := range f.specs {
		ps := c.pieces(c.layout, p)
		f.plan = append(f.plan, ps)
		for _, x := range ps {
			t, ok := f.tensors[x.name]
			switch {
			case !ok:
				return fmt.Errorf("%s: tensor %s: missing, expected shape %v", f.label, x.name, x.shape)
			case !slices.Equal(t.shape, x.shape):
				return f.wrongShape(t, x.shape)
			case !t.dtype.Float():
				return fmt.Errorf("%s: tensor %s: element type %s, expected one of F64 F32 F16 BF16", t.file.Name(), t.name, t.dtype)
			}
			used[x.name] = true
			dtypes[t.dtype] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.tensors)) {
		// The causal mask and its value, which old versions of transformers saved with each block.
		if used[name] || strings.HasSuffix(name, ".attn.bias") || strings.HasSuffix(name, ".attn.masked_bias") {
			continue
		}
		t := f.tensors[name]
		return fmt.Errorf("%s: tensor %s: shape %v, expected no such tensor in a %s model of %d layers", t.file.Name(), t.name, t.shape, c.Architecture, c.Layers)
	}
	f.DTypes = slices.Sorted(maps.Keys(dtypes))
	// Several tensors of a torch file may share bytes, but not most of a model: this bounds what a small file can ask for.
	var size int64
	for _, x := range f.Files {
		size += x.Bytes
	}
	if n := c.NumParams(); n > size {
		return fmt.Errorf("%s: %d parameters in %d bytes, expected at least a byte for each", f.label, n, size)
	}
	return nil
}

func (f *Folder) wrongShape(t stored, want []int) error {
	return fmt.Errorf("%s: tensor %s: shape %v, expected %v", t.file.Name(), t.name, t.shape, want)
}

// TensorInfo describes a tensor as it is in a weight file.
type TensorInfo struct {
	Name  string      `json:"name"`
	DType dtype.DType `json:"dtype"`
	Shape []int       `json:"shape"`
	File  string      `json:"file"`
}

// Tensors returns the tensors of the weight files by name.
func (f *Folder) Tensors() []TensorInfo {
	var out []TensorInfo
	for _, name := range slices.Sorted(maps.Keys(f.tensors)) {
		t := f.tensors[name]
		if name == wteName && t.name == headName {
			continue
		}
		out = append(out, TensorInfo{t.name, t.dtype, t.shape, path.Base(t.file.Name())})
	}
	return out
}

// Weights reads all weights into memory as float32, in parallel. Beside the result it needs room for one tensor per
// processor where the files' layout differs from the canonical one.
func (f *Folder) Weights(ctx context.Context) (*Weights, error) {
	w := NewWeights(f.Config)
	err := parallel(len(f.specs), func(i int) error {
		for _, x := range f.plan[i] {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("load %s: %w", f.Dir, err)
			}
			if err := f.read(w.tensors[i], x); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return w, nil
}

// Read reads one parameter, so that a model can be used without ever being in memory as float32 as a whole. It may be called
// by several goroutines at once.
func (f *Folder) Read(name string) (*Tensor, error) { return f.ReadInto(name, nil) }

// ReadInto is Read into buf, if it is long enough.
func (f *Folder) ReadInto(name string, buf []float32) (*Tensor, error) {
	i := slices.IndexFunc(f.specs, func(p ParamSpec) bool { return p.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("%s: tensor %s: no parameter of a %s model", f.label, name, f.Config.Architecture)
	}
	n := f.specs[i].Len()
	if len(buf) < n {
		buf = make([]float32, n)
	}
	t := &Tensor{Name: name, Shape: f.specs[i].Shape, Data: buf[:n:n]}
	for _, x := range f.plan[i] {
		if err := f.read(t, x); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// read fills the rows of t that x holds.
func (f *Folder) read(t *Tensor, x piece) error {
	s := f.tensors[x.name]
	t.Source = s.dtype
	n, width := 1, 1
	for _, d := range x.shape {
		n *= d
	}
	if len(t.Shape) == 2 {
		width = t.Shape[1]
	}
	dst := t.Data[x.first*width:][:n]
	if x.move == same {
		return s.file.ReadFloat32(s.name, dst)
	}
	tmp := make([]float32, n)
	if err := s.file.ReadFloat32(s.name, tmp); err != nil {
		return err
	}
	switch x.move {
	case transpose:
		transposeInto(dst, tmp, x.shape[0], x.shape[1])
	case byHead:
		groupRows(dst, tmp, f.Config.Heads, f.Config.HeadDim(), width, false)
	}
	return nil
}
