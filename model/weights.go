package model

import (
	"fmt"
	"hash/fnv"
	"iter"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"autodev/internal/rng"
	"autodev/model/dtype"
)

// Tensor is one parameter, row major.
type Tensor struct {
	Name   string
	Shape  []int
	Data   []float32
	Source dtype.DType // element type in the file it was read from; empty when it was not read
}

// Source gives the parameters of a model one at a time, in canonical layout: *Weights, *Folder, or Random. Read may be called
// by several goroutines at once.
type Source interface {
	Read(name string) (*Tensor, error)
}

// Weights holds every parameter of a model in the order of Config.Params.
type Weights struct {
	tensors []*Tensor
	byName  map[string]*Tensor
}

// NewWeights returns weights of c, all zero.
func NewWeights(c Config) *Weights {
	w := &Weights{byName: map[string]*Tensor{}}
	for p := range c.params() {
		t := &Tensor{Name: p.Name, Shape: p.Shape, Data: make([]float32, p.Len())}
		w.tensors = append(w.tensors, t)
		w.byName[p.Name] = t
	}
	return w
}

// Init returns the initial weights of c. Each element is a function of (seed, parameter name, element index) alone.
func Init(c Config, seed uint64) *Weights {
	w := NewWeights(c)
	specs := c.Params()
	// No parameter fails, so there is no error to report.
	_ = parallel(len(specs), func(i int) error {
		specs[i].init(w.tensors[i].Data, 0, seed)
		return nil
	})
	return w
}

// Random is the Source of Init's weights: they are never in memory together.
func Random(c Config, seed uint64) Source { return random{c.Params(), seed} }

type random struct {
	specs []ParamSpec
	seed  uint64
}

func (r random) Read(name string) (*Tensor, error) {
	i := slices.IndexFunc(r.specs, func(p ParamSpec) bool { return p.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("tensor %s: missing", name)
	}
	p := r.specs[i]
	t := &Tensor{Name: name, Shape: p.Shape, Data: make([]float32, p.Len())}
	const block = 1 << 16
	return t, parallel((len(t.Data)+block-1)/block, func(i int) error {
		p.init(t.Data[i*block:min(len(t.Data), (i+1)*block)], i*block, r.seed)
		return nil
	})
}

// init fills data with the initial values of the elements from first, an even number, on.
func (p ParamSpec) init(data []float32, first int, seed uint64) {
	if p.Std == 0 {
		for j := range data {
			data[j] = p.Fill
		}
		return
	}
	normal(data, first, seed, p.Name, p.Std)
}

// normal fills data with normal numbers by the method of Box and Muller: one Philox block per pair of elements.
func normal(data []float32, first int, seed uint64, name string, std float64) {
	h := fnv.New64a()
	h.Write([]byte(name)) // never fails
	key := rng.KeyOf(seed, "init")
	id := h.Sum64()
	for i := 0; i < len(data); i += 2 {
		at := first + i
		b := rng.Philox(key, rng.Counter{uint32(at >> 1), uint32(at >> 33), uint32(id), uint32(id >> 32)})
		// u in (0, 1], v in [0, 1), 53 bits each.
		u := (float64((uint64(b[0])|uint64(b[1])<<32)>>11) + 1) * 0x1p-53
		v := float64((uint64(b[2])|uint64(b[3])<<32)>>11) * 0x1p-53
		r := std * math.Sqrt(-2*math.Log(u))
		sin, cos := math.Sincos(2 * math.Pi * v)
		data[i] = float32(r * cos)
		if i+1 < len(data) {
			data[i+1] = float32(r * sin)
		}
	}
}

// Get returns the parameter of that name, nil when the model has none.
func (w *Weights) Get(name string) *Tensor { return w.byName[name] }

// Read is Get for callers that take parameters from any source, a Folder too. The tensor is not copied.
func (w *Weights) Read(name string) (*Tensor, error) {
	if t := w.byName[name]; t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("tensor %s: missing", name)
}

// Data returns the elements of the parameter of that name, nil when the model has none.
func (w *Weights) Data(name string) []float32 {
	if t := w.byName[name]; t != nil {
		return t.Data
	}
	return nil
}

// All yields the parameters in the order of Config.Params.
func (w *Weights) All() iter.Seq[*Tensor] { return slices.Values(w.tensors) }

// Len returns the number of parameters (tensors).
func (w *Weights) Len() int { return len(w.tensors) }

// Clone returns a deep copy.
func (w *Weights) Clone() *Weights {
	c := &Weights{byName: make(map[string]*Tensor, len(w.tensors))}
	for _, t := range w.tensors {
		d := *t
		d.Data = slices.Clone(t.Data)
		c.tensors = append(c.tensors, &d)
		c.byName[d.Name] = &d
	}
	return c
}

// Check reports the first difference between w and c's parameter table.
func (w *Weights) Check(c Config) error {
	i := 0
	for p := range c.params() {
		t := w.byName[p.Name]
		switch {
		case t == nil:
			return fmt.Errorf("tensor %s: missing", p.Name)
		case !slices.Equal(t.Shape, p.Shape):
			return fmt.Errorf("tensor %s: shape %v, expected %v", p.Name, t.Shape, p.Shape)
		case len(t.Data) != p.Len():
			return fmt.Errorf("tensor %s: %d elements, expected %d", p.Name, len(t.Data), p.Len())
		}
		i++
	}
	if i != len(w.tensors) {
		return fmt.Errorf("%d tensors, expected %d", len(w.tensors), i)
	}
	return nil
}

// parallel calls do(0..n-1) on all processors and returns the error of the smallest failing index, so that the same input
// gives the same error. After a failure no further index is begun.
func parallel(n int, do func(i int) error) error {
	errs := make([]error, n)
	var next atomic.Int64
	var failed atomic.Bool
	var wg sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for !failed.Load() {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if errs[i] = do(i); errs[i] != nil {
					failed.Store(true)
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
