package infer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"autodev/compute"
	"autodev/compute/cpu/par"
	"autodev/compute/cpu/quant"
	"autodev/compute/cuda"
	"autodev/compute/devices"
	"autodev/model"
	"autodev/model/dtype"
)

// Settle fills in what o leaves open because it depends on the device, and reports what the device, which must be there, cannot do. Load
// and LoadPacked call it.
//
// A card keeps keys and values in the type of its activations, which is that of the weights. Beside weights of codes it is the cache's: float32, or
// the card's short type, which is bf16, or float16 where the card does not multiply in bfloat16.
func (o Options) Settle() (Options, error) {
	if o.Device.Kind != devices.CUDA {
		switch {
		case o.Weights == Float16:
			return o, &OptionError{"weights", "found float16, expected float32, bf16, int8 or int4 on the processor"}
		case o.Cache == CacheFloat16:
			return o, &OptionError{"kv_cache", "found float16, expected auto, float32, bf16 or int8 on the processor"}
		}
		return o, nil
	}
	bf16 := devices.Short(o.Device) == compute.BF16
	short, half := Float16, CacheFloat16
	if bf16 {
		short, half = BFloat16, CacheBFloat16
	}
	if o.Weights == "" {
		o.Weights = short
	}
	var err error
	if o.Weights, err = ParseWeights(string(o.Weights)); err != nil {
		return o, err
	}
	codes := o.Weights == Int8 || o.Weights == Int4
	if o.Weights == BFloat16 && !bf16 {
		return o, &OptionError{"weights", "found bf16, expected float32, float16, int8 or int4: the card does not multiply in bfloat16"}
	}
	if codes && (o.Cache == CacheAuto || o.Cache == "") {
		o.Cache = half
	}
	switch c := o.Cache.For(o.Weights); {
	case !codes && c != CacheAuto.For(o.Weights):
		return o, &OptionError{"kv_cache", fmt.Sprintf("found %s, expected auto or %s: on a CUDA device keys and values are kept like the weights", c, CacheAuto.For(o.Weights))}
	case codes && c == CacheInt8:
		return o, &OptionError{"kv_cache", fmt.Sprintf("found %s, expected auto, float32 or %s on a CUDA device", c, half)}
	case c == CacheBFloat16 && !bf16:
		return o, &OptionError{"kv_cache", "found bf16, expected auto, float32 or float16: the card does not multiply in bfloat16"}
	}
	return o, nil
}

// uploadBytes is the pinned memory that weights go through, in two halves: one is copied while the host fills the other.
const uploadBytes = 16 << 20

// layout says how a card keeps a model: matrices in a format, what is not of codes in a store.
type layout struct {
	weights Weights
	store   cuda.Store
}

// storeOf returns the type that activations, keys and values are in.
func storeOf(c Cache) cuda.Store {
	switch c {
	case CacheFloat32:
		return cuda.F32
	case CacheFloat16:
		return cuda.F16
	}
	return cuda.BF16
}

// errOverflow says that float16 is too short for a model.
var errOverflow = errors.New("the model's activations exceed float16's 65504: weights float32 hold them, or with int8 and int4 weights kv_cache float32")

// overflow reports that v, a logit or what follows from one, is a NaN, as all logits are of a token whose activations were beyond float16.
func (c *card) overflow(v float32) error {
	if c.store == cuda.F16 && v != v {
		return errOverflow
	}
	return nil
}

// codes returns the format of w's codes in a layout, false if it has none.
func (c *card) codes(l layout, w *matrix) (quant.Format, bool) {
	switch f := w.now(); {
	case l.weights != c.weights:
	case f.quant != nil:
		return f.quant.Format(), true
	case f.packed != nil:
		return 0, false
	}
	f := l.weights.formatOf(c.config, c.specs[w.name])
	return f.quant(), f == Int8 || f == Int4
}

// check reports matrices that cards have no products with in a layout.
func (c *card) check(l layout) error {
	for i := range c.program.steps {
		st := &c.program.steps[i]
		w := st.weight
		if w == nil {
			continue
		}
		f, ok := c.codes(l, w)
		switch {
		case !ok:
		case w.in%4 != 0:
			return &OptionError{"weights", fmt.Sprintf("found %s, but tensor %s has %d columns, expected a multiple of 4 on a CUDA device", f, w.name, w.in)}
		case st.op != opLinear && f != quant.Int8:
			return &OptionError{"weights", fmt.Sprintf("found %s for tensor %s, expected int8 for embeddings and heads on a CUDA device", f, w.name)}
		}
	}
	return nil
}

// placeMatrix takes the memory of a matrix.
func (c *card) placeMatrix(a *arena, l layout, w *matrix) cuda.Weight {
	f, ok := c.codes(l, w)
	if !ok {
		return cuda.Weight{At: a.take(int64(l.store.Size()) * int64(w.in) * int64(w.out))}
	}
	bits := 8
	if f == quant.Int4 {
		bits = 4
	}
	codes, scales := quant.Size(f, w.out, w.in)
	return cuda.Weight{At: a.take(int64(codes)), Scales: a.take(int64(scales)), Bits: bits}
}

// fits says what would fit into free bytes.
func (c *card) fits(free int64) string {
	if c.least(c.layout) <= free {
		return "" // what is free is in pieces
	}
	known := cardWeights(c.short)
	for _, w := range known[slices.Index(known, c.weights)+1:] {
		l := layout{w, c.store}
		if c.weights == Float32 {
			l.store = storeOf(CacheAuto.For(c.short))
		}
		if c.check(l) == nil && c.least(l) <= free {
			return fmt.Sprintf("the model fits with %s weights, or on the processor: --device cpu", w)
		}
	}
	return "the model fits in no format of weights that cards know: expected --device cpu"
}

// operations are those of the card's model.
func (c *card) operations(q *cuda.Queue) cuda.Inference {
	return q.Inference(c.store).Widening(c.at.wide, c.at.wideBytes)
}

// upload brings the weights to the device. Elements of matrices that are to be codes are rounded on the processor.
func (c *card) upload(ctx context.Context, pool *par.Pool, data func(w *matrix) ([]float32, error)) (err error) {
	var staging []byte
	if err := c.d.Do(func(q *cuda.Queue) (err error) { staging, err = q.Pinned(uploadBytes); return err }); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, c.d.Do(func(q *cuda.Queue) error { return q.FreePinned(staging) }))
	}()
	half := len(staging) / 2
	// send brings n elements of a size; fill writes those from first on to where they are sent from.
	send := func(to cuda.Ptr, n, size int, fill func(piece []byte, first, n int)) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		return c.d.Do(func(q *cuda.Queue) error {
			for i, first := 0, 0; first < n; i++ {
				if i > 0 && i%2 == 0 {
					if err := q.Sync(); err != nil { // both halves are free again
						return err
					}
				}
				many := min(n-first, half/size)
				piece := staging[i%2*half:][:many*size]
				fill(piece, first, many)
				if err := cuda.Write(q, to, piece); err != nil {
					return err
				}
				to, first = to+cuda.Ptr(len(piece)), first+many
			}
			return q.Sync()
		})
	}
	put := func(to cuda.Ptr, x []float32) error {
		if c.store == cuda.F16 {
			if err := compute.CheckF16(x); err != nil {
				return err
			}
		}
		return send(to, len(x), c.store.Size(), func(piece []byte, first, n int) {
			if c.store == cuda.F32 {
				copy(floats(piece), x[first:][:n])
				return
			}
			short := unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(piece))), n)
			round := dtype.ToBF16
			if c.store == cuda.F16 {
				round = dtype.ToF16
			}
			for i, v := range x[first:][:n] {
				short[i] = round(v)
			}
		})
	}
	putBytes := func(to cuda.Ptr, b []byte) error {
		return send(to, len(b), 1, func(piece []byte, first, n int) { copy(piece, b[first:][:n]) })
	}
	bring := func(w *matrix) error {
		at, codes := c.at.matrices[w], w.now().quant
		if at.Bits == 0 || codes == nil {
			x, err := data(w)
			if err != nil {
				return err
			}
			if len(x) != w.in*w.out {
				return fmt.Errorf("tensor %s: %d elements, expected %d", w.name, len(x), w.in*w.out)
			}
			if at.Bits == 0 {
				c.bytes += int64(c.store.Size()) * int64(len(x))
				if err := put(at.At, x); err != nil {
					return fmt.Errorf("tensor %s: %w", w.name, err)
				}
				return nil
			}
			f, _ := c.codes(c.layout, w)
			codes = quant.Quantize(pool, f, x, w.out, w.in)
		}
		c.bytes += int64(codes.Bytes())
		return errors.Join(putBytes(at.At, codes.Codes()), putBytes(at.Scales, codes.Scales()))
	}
	done := map[*matrix]bool{}
	for i := range c.program.steps {
		st := &c.program.steps[i]
		if w := st.weight; w != nil && !done[w] {
			done[w] = true
			if err := bring(w); err != nil {
				return err
			}
		}
		if err := errors.Join(put(c.at.gain[i], slices.Concat(st.gain, st.positions)), put(c.at.bias[i], st.bias)); err != nil {
			return err
		}
	}
	return nil
}

// floats is pinned memory as float32, in the host's order, which is the device's.
func floats(b []byte) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/4)
}

func words(b []byte) []int32 {
	return unsafe.Slice((*int32)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/4)
}

// dimensions is a packer that reads no matrices.
type dimensions struct{ *packer }

func (p dimensions) matrix(name string) (*matrix, error) {
	if m := p.matrices[name]; m != nil {
		return m, nil
	}
	shape := p.specs[name].Shape
	if len(shape) != 2 {
		return nil, fmt.Errorf("tensor %s: shape %v, expected two dimensions", name, shape)
	}
	m := &matrix{name: name, out: shape[0], in: shape[1]}
	p.matrices[name] = m
	return m, nil
}

// elements returns the elements of matrices as a source has them, valid until the next.
func elements(ctx context.Context, src model.Source, c model.Config) func(*matrix) ([]float32, error) {
	reader := newPacker(ctx, nil, c, src, Float32)
	return func(w *matrix) ([]float32, error) {
		t, err := reader.read(w.name, false)
		if err != nil {
			return nil, err
		}
		return t.Data, nil
	}
}

// unpacked returns the elements of matrices that are in memory, valid until the next.
func unpacked(ctx context.Context) func(*matrix) ([]float32, error) {
	var buffer []float32
	return func(w *matrix) ([]float32, error) {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		if n := w.in * w.out; n > len(buffer) {
			buffer = make([]float32, n)
		}
		x := buffer[:w.in*w.out]
		for r := range w.out {
			w.row(x[r*w.in:][:w.in], r)
		}
		return x, nil
	}
}
