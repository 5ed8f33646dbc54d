package lora

import (
	"fmt"
	"math"
	"slices"

	"autodev/internal/rng"
	"autodev/model"
)

// Adapter is a set of adapters for one model.
type Adapter struct {
	Modules []Module // in the order of the model's parameter table
	Dropout float64
	RSLoRA  bool
	Base    string // name or folder of the base model, for the files; may be empty

	config  model.Config
	targets []string // what Modules came from, for the files
	tensors map[string][]float32
}

// New returns the adapters of spec for models of configuration c, initialised. Each element is a function of (seed, module,
// element index) alone.
func New(c model.Config, spec Spec, seed uint64) (*Adapter, error) {
	modules, err := spec.Modules(c)
	if err != nil {
		return nil, err
	}
	a := &Adapter{Modules: modules, Dropout: spec.Dropout, RSLoRA: spec.RSLoRA, config: c, tensors: map[string][]float32{}}
	a.targets = spec.Targets
	if slices.Contains(spec.Targets, AllLinear) {
		a.targets = kinds(linears(c))
	}
	for _, m := range modules {
		w := make([]float32, m.Rank*m.In)
		r := rng.New(seed, "lora.init "+m.Name)
		switch spec.Init {
		case Kaiming, "":
			// a = √5 in PyTorch's kaiming_uniform_ makes the bound √(6/((1+5)·in)).
			bound := 1 / math.Sqrt(float64(m.In))
			for i := range w {
				w[i] = float32((2*r.Float64() - 1) * bound)
			}
		case Gaussian:
			for i := range w {
				w[i] = float32(r.NormFloat64() / float64(m.Rank))
			}
		default:
			return nil, fmt.Errorf("lora: init %q, expected %s or %s", spec.Init, Kaiming, Gaussian)
		}
		a.tensors[m.A()] = w
		a.tensors[m.B()] = make([]float32, m.Out*m.Rank)
	}
	return a, nil
}

// Data returns the elements of the parameter named by Module.A or Module.B, nil when there is none. The caller may change
// them.
func (a *Adapter) Data(param string) []float32 { return a.tensors[param] }

// NumParams returns the number of elements of all adapters.
func (a *Adapter) NumParams() int64 {
	var n int64
	for _, m := range a.Modules {
		n += int64(m.Rank) * int64(m.In+m.Out)
	}
	return n
}
