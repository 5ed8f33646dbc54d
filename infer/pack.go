package infer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"unsafe"

	"autodev/compute/cpu/gemm"
	"autodev/compute/cpu/par"
	"autodev/compute/cpu/quant"
	"autodev/model"
	"autodev/model/packed"
	"autodev/tokenizer"
)

// PackMethod says how codes are found.
type PackMethod string

const (
	// PackSearch gives every group the scale with the least squared error. It is what a model does that is quantised while
	// it is loaded.
	PackSearch PackMethod = "search"
	// PackNearest is plain round-to-nearest with scales from the largest magnitude, to compare with.
	PackNearest PackMethod = "rtn"
	// PackGPTQ uses calibration text: see package calibrate.
	PackGPTQ PackMethod = "gptq"
)

// PackMethods lists the known ones.
func PackMethods() []PackMethod { return []PackMethod{PackSearch, PackNearest, PackGPTQ} }

// PackOptions say how Pack makes a packed folder.
type PackOptions struct {
	Weights     Weights // BFloat16, Int8 or Int4
	Method      PackMethod
	Calibration [][]int32 // token ids of documents, each at most the model's context; for PackGPTQ
	Threads     int       // 0 is all processors; changes no byte
	Assets      fs.FS     // a model folder whose tokenizer is copied; none when nil
	// Progress, when set, is told of the parameters written so far and the number there will be.
	Progress func(done, total int)
}

// The parts of a packed matrix.
const (
	partCodes  = "codes"
	partScales = "scales"
	partHalves = "bf16"
)

// packable lists the formats of packed folders.
func packable() []Weights { return []Weights{BFloat16, Int8, Int4} }

// Pack writes the model as a packed folder at dir (see package packed): the same bytes that Load with the same Weights has in
// memory for PackSearch.
func Pack(ctx context.Context, dir string, c model.Config, src model.Source, o PackOptions) (packed.Quantization, error) {
	q := packed.Quantization{}
	if !slices.Contains(packable(), o.Weights) {
		return q, &OptionError{"weights", fmt.Sprintf("found %q, expected bf16, int8 or int4", o.Weights)}
	}
	if !slices.Contains(PackMethods(), o.Method) {
		return q, &OptionError{"method", fmt.Sprintf("found %q, expected one of %v", o.Method, PackMethods())}
	}
	if o.Weights == BFloat16 && o.Method != PackSearch {
		return q, &OptionError{"method", fmt.Sprintf("found %q, expected %q for bf16: there is nothing to choose", o.Method, PackSearch)}
	}
	if o.Method == PackGPTQ && len(o.Calibration) == 0 {
		return q, &OptionError{"method", "gptq needs calibration documents, found none"}
	}
	pool := par.New(o.Threads)
	defer pool.Close()
	entries, specs := packEntries(c, o.Weights), c.ParamsByName()
	var bits, weights float64
	for _, e := range entries {
		for _, p := range e.Parts {
			bits += 8 * float64(p.Size)
		}
		if e.Format != packed.Float32 {
			weights += float64(specs[e.Name].Len())
		}
	}
	q.Weights, q.Bits = string(o.Weights), bits/weights
	if o.Weights != BFloat16 {
		q.Group = o.Weights.quant().Group()
	}
	done := 0
	w := &packWriter{PackOptions: o, config: c, pool: pool, specs: specs, biases: map[string][]float32{}, tell: func() {
		done++
		if o.Progress != nil {
			o.Progress(done, len(entries))
		}
	}}
	err := packed.Create(ctx, dir, c, &q, entries, o.Assets, func(out *packed.Writer) error {
		w.out = out
		if o.Method == PackGPTQ {
			q.Calibration = &packed.Calibration{Method: string(PackGPTQ), Documents: len(o.Calibration)}
			for _, ids := range o.Calibration {
				q.Calibration.Tokens += len(ids)
			}
			if err := w.calibrated(ctx, src); err != nil {
				return err
			}
		} else {
			reader := newPacker(ctx, pool, c, src, o.Weights)
			for _, e := range entries {
				if e.Format != packed.Float32 {
					t, err := reader.read(e.Name, false)
					if err != nil {
						return err
					}
					if err := w.matrix(w.round(t)); err != nil {
						return err
					}
				}
			}
		}
		for _, e := range entries {
			if e.Format == packed.Float32 {
				t, err := src.Read(e.Name)
				if err != nil {
					return err
				}
				data := t.Data
				if bias := w.biases[e.Name]; bias != nil {
					data = bias
				}
				if err := out.Float32(e.Name, data); err != nil {
					return err
				}
				w.tell()
			}
		}
		return nil
	})
	return q, err
}

// packEntries lists a packed folder's parameters: matrices in the order in which a forward pass reads them, then the rest.
func packEntries(c model.Config, w Weights) []packed.Entry {
	var matrices, plain []packed.Entry
	for _, p := range c.Params() {
		f := w.formatOf(c, p)
		e := packed.Entry{Name: p.Name, Format: string(f), Shape: p.Shape}
		if f == Float32 {
			plain = append(plain, e)
			continue
		}
		if f == BFloat16 {
			e.Parts = []packed.Part{{Name: partHalves, Size: 2 * int64(gemm.BF16PackedSize(p.Shape[1], p.Shape[0]))}}
		} else {
			codes, scales := quant.Size(f.quant(), p.Shape[0], p.Shape[1])
			e.Parts = []packed.Part{{Name: partCodes, Size: int64(codes)}, {Name: partScales, Size: int64(scales)}}
		}
		matrices = append(matrices, e)
	}
	return append(matrices, plain...)
}

// packWriter quantises matrices and writes them.
type packWriter struct {
	PackOptions
	config model.Config
	pool   *par.Pool
	specs  map[string]model.ParamSpec
	out    *packed.Writer
	biases map[string][]float32 // corrected ones
	tell   func()
}

// round brings t into its form without calibration.
func (w *packWriter) round(t *model.Tensor) *matrix {
	f := w.Weights.formatOf(w.config, w.specs[t.Name])
	if w.Method == PackNearest {
		out, in := t.Shape[0], t.Shape[1]
		return &matrix{name: t.Name, out: out, in: in, form: form{quant: quant.QuantizeAbsMax(w.pool, f.quant(), t.Data, out, in)}}
	}
	return pack(w.pool, t, f)
}

// matrix writes m.
func (w *packWriter) matrix(m *matrix) error {
	parts := [][]byte{}
	if m.quant != nil {
		parts = append(parts, m.quant.Codes(), m.quant.Scales())
	} else {
		parts = append(parts, littleEndian(m.packed.BF16()))
	}
	if err := w.out.Bytes(m.name, parts...); err != nil {
		return err
	}
	w.tell()
	return nil
}

// littleEndian returns the bytes of v as they are in a file: its own memory where that is the machine's order.
func littleEndian(v []uint16) []byte {
	b := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), 2*len(v))
	if nativeEndian() {
		return b
	}
	return swapped(b)
}

// halves is the inverse of littleEndian; b starts at an even address.
func halves(b []byte) []uint16 {
	if !nativeEndian() {
		b = swapped(b)
	}
	return unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/2)
}

func nativeEndian() bool { return binary.NativeEndian.Uint16([]byte{1, 0}) == 1 }

// swapped returns a copy of b with the bytes of every pair exchanged.
func swapped(b []byte) []byte {
	out := make([]byte, len(b))
	for i := 0; i+1 < len(b); i += 2 {
		out[i], out[i+1] = b[i+1], b[i]
	}
	return out
}

// LoadPacked makes the model of a packed folder ready: its weights are used where their file is mapped, and copied as
// o.HugePages says. It takes the folder over: Close closes it, and so does an error. When ctx ends while weights are copied, it
// returns ctx's error within a few mebibytes.
func LoadPacked(ctx context.Context, f *packed.Folder, tok *tokenizer.Tokenizer, o Options) (*Model, error) {
	w := Weights(f.Quantization.Weights)
	source := &mapped{f, map[string]*matrix{}}
	m, err := func() (*Model, error) {
		if !slices.Contains(packable(), w) {
			return nil, fmt.Errorf("%s: weights of format %q, expected bf16, int8 or int4", f.Label(), w)
		}
		if o.Weights != "" && o.Weights != w {
			return nil, &OptionError{"weights", fmt.Sprintf("found %s, but the folder %s holds %s: expected that, or none", o.Weights, f.Dir, w)}
		}
		if _, err := ParseHugePages(string(o.HugePages)); err != nil {
			return nil, err
		}
		o.Weights = w
		o, err := o.Settle()
		if err != nil {
			return nil, err
		}
		return build(ctx, f.Dir, f.Config, w, tok, o, func(*par.Pool) weightSource { return source }, unpacked(ctx))
	}()
	if err != nil {
		// The folder is of no use, whatever closing it says.
		_ = f.Close()
		return nil, err
	}
	m.folder = f
	if m.card != nil {
		return m, nil
	}
	if err := m.move(ctx, source, o.HugePages); err != nil {
		m.Close()
		if stop := context.Cause(ctx); stop != nil && errors.Is(err, stop) {
			err = fmt.Errorf("load %s: %w", f.Dir, stop)
		}
		return nil, err
	}
	return m, nil
}

// mapped is the weightSource of a packed folder.
type mapped struct {
	folder   *packed.Folder
	matrices map[string]*matrix
}

func (p *mapped) has(name string) bool {
	_, ok := p.folder.Entry(name)
	return ok
}

// entry returns a parameter that must be there in the given number of dimensions.
func (p *mapped) entry(name string, dims int) (packed.Entry, error) {
	e, ok := p.folder.Entry(name)
	if !ok || len(e.Shape) != dims {
		return e, fmt.Errorf("%s: tensor %s: shape %v, expected %d dimensions", p.folder.Label(), name, e.Shape, dims)
	}
	return e, nil
}

// floats returns a parameter that must be kept as float32.
func (p *mapped) floats(name string) ([]float32, error) {
	v := p.folder.Float32s(name)
	if v == nil {
		e, _ := p.folder.Entry(name)
		return nil, fmt.Errorf("%s: tensor %s: format %q, expected %s", p.folder.Label(), name, e.Format, packed.Float32)
	}
	return v, nil
}

func (p *mapped) vector(name string, n int) ([]float32, error) {
	e, err := p.entry(name, 1)
	if err != nil {
		return nil, err
	}
	if e.Shape[0] != n {
		return nil, fmt.Errorf("%s: tensor %s: shape %v, expected [%d]", p.folder.Label(), name, e.Shape, n)
	}
	return p.floats(name)
}

func (p *mapped) table(name string) ([]float32, int, error) {
	e, err := p.entry(name, 2)
	if err != nil {
		return nil, 0, err
	}
	v, err := p.floats(name)
	return v, e.Shape[1], err
}

func (p *mapped) matrix(name string) (*matrix, error) {
	if m := p.matrices[name]; m != nil {
		return m, nil
	}
	e, err := p.entry(name, 2)
	if err != nil {
		return nil, err
	}
	f, err := p.form(e, p.folder.Bytes)
	if err != nil {
		return nil, err
	}
	m := &matrix{name: name, out: e.Shape[0], in: e.Shape[1], form: f}
	p.matrices[name] = m
	return m, nil
}

// form returns the matrix e over the parts that bytes gives.
func (p *mapped) form(e packed.Entry, bytes func(name, part string) []byte) (f form, err error) {
	out, in := e.Shape[0], e.Shape[1]
	switch format := Weights(e.Format); format {
	case BFloat16:
		f.packed, err = gemm.PackedBF16From(halves(bytes(e.Name, partHalves)), in, out)
	case Int8, Int4:
		f.quant, err = quant.From(format.quant(), out, in, bytes(e.Name, partCodes), bytes(e.Name, partScales))
	default:
		err = fmt.Errorf("format %q, expected bf16, int8 or int4", e.Format)
	}
	if err != nil {
		return f, fmt.Errorf("%s: tensor %s: %w", p.folder.Label(), e.Name, err)
	}
	return f, nil
}
