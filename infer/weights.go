package infer

import (
	"context"
	"fmt"
	"sync/atomic"

	"autodev/compute/cpu/gemm"
	"autodev/compute/cpu/par"
	"autodev/compute/cpu/quant"
	"autodev/model"
)

// Weights says how a model keeps its matrices. Position embeddings, biases and the parameters of norms are float32 always,
// and so is everything between two products.
type Weights string

const (
	// Float32 is the default.
	Float32 Weights = "float32"
	// BFloat16 keeps bfloat16; activations are rounded to it where a product reads them.
	BFloat16 Weights = "bf16"
	// Float16 keeps float16, as do activations then. Only CUDA devices have it; it is for those without bfloat16.
	Float16 Weights = "float16"
	// Int8 keeps 8-bit codes with a scale per group of inputs. The processor quantises the activations that a product reads likewise,
	// a CUDA device does not.
	Int8 Weights = "int8"
	// Int4 keeps 4-bit codes with a scale per group of inputs; activations as Int8. The token embeddings and the head are Int8:
	// every token's logits are as good as they, and they are a small part of a large model.
	Int4 Weights = "int4"
)

// WeightFormats lists those of the processor.
func WeightFormats() []Weights { return []Weights{Float32, BFloat16, Int8, Int4} }

// cardWeights are those of a CUDA device whose short type is short.
func cardWeights(short Weights) []Weights { return []Weights{Float32, short, Int8, Int4} }

// ParseWeights reads the name of a format; "" is Float32.
func ParseWeights(s string) (Weights, error) {
	return parseName("weights", Weights(s), Float32, []Weights{Float32, BFloat16, Float16, Int8, Int4})
}

// formatOf returns how a parameter is kept.
func (w Weights) formatOf(c model.Config, p model.ParamSpec) Weights {
	switch {
	case p.Kind != model.Matrix && p.Name != tokenTable:
		return Float32
	case w == Int4 && (p.Name == tokenTable || p.Name == c.HeadWeight()):
		return Int8
	}
	return w
}

// Cache says how keys and values are kept.
type Cache string

const (
	// CacheAuto, the default, is CacheFloat32 beside float32 weights, CacheFloat16 beside float16 ones and on cards without bfloat16, and
	// CacheBFloat16 beside all others, whose rounding is coarser by far.
	CacheAuto     Cache = "auto"
	CacheFloat32  Cache = "float32"
	CacheBFloat16 Cache = "bf16"
	CacheFloat16  Cache = "float16" // of CUDA devices alone
	CacheInt8     Cache = "int8"
)

// CacheFormats lists those of the processor.
func CacheFormats() []Cache { return []Cache{CacheAuto, CacheFloat32, CacheBFloat16, CacheInt8} }

// ParseCache reads the name of a format; "" is CacheAuto.
func ParseCache(s string) (Cache, error) {
	return parseName("kv_cache", Cache(s), CacheAuto, []Cache{CacheAuto, CacheFloat32, CacheBFloat16, CacheFloat16, CacheInt8})
}

// For returns what c means beside weights: any but CacheAuto.
func (c Cache) For(w Weights) Cache {
	switch {
	case c != CacheAuto && c != "":
		return c
	case w == Float32 || w == "":
		return CacheFloat32
	case w == Float16:
		return CacheFloat16
	}
	return CacheBFloat16
}

// tokenTable is the embedding table, whose rows are also the head's unless the model has another.
const tokenTable = "transformer.wte.weight"

// matrix is the weight [out, in] of a linear module, or a table of out rows.
type matrix struct {
	name    string
	in, out int
	form
	moved atomic.Pointer[form] // the same bytes in better memory, once they are there
}

// form is what a matrix is kept as: one of these.
type form struct {
	packed *gemm.Packed // [in, out], float32 or bfloat16
	quant  *quant.Matrix
}

// now returns the form to read. It may be another for the next product, with the same result.
func (w *matrix) now() *form {
	if f := w.moved.Load(); f != nil {
		return f
	}
	return &w.form
}

// row writes row r to dst [in].
func (w *matrix) row(dst []float32, r int) {
	f := w.now()
	if f.quant != nil {
		f.quant.Row(dst, r)
		return
	}
	f.packed.Column(dst, r)
}

// pack brings the tensor t [out, in] into a form.
func pack(p *par.Pool, t *model.Tensor, format Weights) *matrix {
	m := &matrix{name: t.Name, out: t.Shape[0], in: t.Shape[1]}
	dense := gemm.Dense(t.Data, m.out, m.in).Transposed()
	switch format {
	case Int8, Int4:
		m.quant = quant.Quantize(p, format.quant(), t.Data, m.out, m.in)
	case BFloat16:
		m.packed = gemm.PackBF16(p, dense)
	default:
		m.packed = gemm.Pack(p, dense)
	}
	return m
}

// quant returns the format's name in package quant.
func (w Weights) quant() quant.Format {
	if w == Int4 {
		return quant.Int4
	}
	return quant.Int8
}

// epilogue is what happens to the finished rows of a product: then(x·Wᵀ + bias) + base. Zero fields are left out.
type epilogue struct {
	bias []float32
	then func(y, x []float32)
	base []float32 // may be y; not together with then
}

// linear computes the product of x [n, w.in] and w, which is not quantised, y [n, w.out], with what follows it.
func (m *Model) linear(y, x []float32, n int, w *matrix, f *form, e epilogue) {
	o := gemm.Options{Bias: e.bias, Then: e.then}
	if e.base != nil {
		o.Base = gemm.Dense(e.base, n, w.out)
	}
	gemm.MulPacked(m.pool, gemm.Dense(y, n, w.out), 1, gemm.Dense(x, n, w.in), f.packed, o)
}

// packer is the weightSource of a model's parameters: each is read, brought into its form and forgotten.
type packer struct {
	ctx      context.Context
	pool     *par.Pool
	config   model.Config
	source   model.Source
	weights  Weights
	specs    map[string]model.ParamSpec
	matrices map[string]*matrix // those that several modules may share
	buffer   []float32          // what matrices are read into
}

// bufferedSource is a model.Source that can read into memory it is given. With one buffer for all matrices, loading leaves no
// garbage of a model's size behind.
type bufferedSource interface {
	ReadInto(name string, buf []float32) (*model.Tensor, error)
}

func newPacker(ctx context.Context, pool *par.Pool, c model.Config, src model.Source, w Weights) *packer {
	return &packer{ctx: ctx, pool: pool, config: c, source: src, weights: w, specs: c.ParamsByName(), matrices: map[string]*matrix{}}
}

func (p *packer) has(name string) bool { _, ok := p.specs[name]; return ok }

// read reads a parameter; keep says that its data will be.
func (p *packer) read(name string, keep bool) (*model.Tensor, error) {
	if err := context.Cause(p.ctx); err != nil {
		return nil, err
	}
	var t *model.Tensor
	var err error
	if b, ok := p.source.(bufferedSource); ok && !keep {
		if n := p.specs[name].Len(); n > len(p.buffer) {
			p.buffer = make([]float32, n)
		}
		t, err = b.ReadInto(name, p.buffer)
	} else {
		t, err = p.source.Read(name)
	}
	if err != nil {
		return nil, err
	}
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	if len(t.Data) != n {
		return nil, fmt.Errorf("tensor %s: %d elements, expected %d", name, len(t.Data), n)
	}
	return t, nil
}

func (p *packer) vector(name string, n int) ([]float32, error) {
	t, err := p.read(name, true)
	if err != nil {
		return nil, err
	}
	if len(t.Shape) != 1 || t.Shape[0] != n {
		return nil, fmt.Errorf("tensor %s: shape %v, expected [%d]", name, t.Shape, n)
	}
	return t.Data, nil
}

func (p *packer) table(name string) ([]float32, int, error) {
	t, err := p.read(name, true)
	if err != nil {
		return nil, 0, err
	}
	if len(t.Shape) != 2 {
		return nil, 0, fmt.Errorf("tensor %s: shape %v, expected two dimensions", name, t.Shape)
	}
	return t.Data, t.Shape[1], nil
}

func (p *packer) matrix(name string) (*matrix, error) {
	if m := p.matrices[name]; m != nil {
		return m, nil
	}
	t, err := p.read(name, false)
	if err != nil {
		return nil, err
	}
	if len(t.Shape) != 2 {
		return nil, fmt.Errorf("tensor %s: shape %v, expected two dimensions", name, t.Shape)
	}
	m := pack(p.pool, t, p.weights.formatOf(p.config, p.specs[name]))
	p.matrices[name] = m
	return m, nil
}
