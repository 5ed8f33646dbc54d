package graph

import (
	"fmt"
	"slices"

	"autodev/compute"
	"autodev/model"
)

// Config says what plans are made for.
type Config struct {
	Model model.Config
	Batch int // sequences in a micro-batch
	Seq   int // tokens in a sequence

	// Train says whether a parameter is trained. nil trains the adapters alone where there are any, else everything.
	Train func(param string) bool
	// Adapters are the low-rank adapters attached to linear modules.
	Adapters []Adapter
	// Group returns which of the optimiser's settings (learning rate, weight decay, …) apply to a trained parameter: the
	// index of the Hyper given to Update. nil puts all in group 0.
	Group func(param string, shape []int) int

	// ModelDropout runs the dropout that the model's own configuration asks for.
	ModelDropout bool
	// Once says that the optimiser follows every micro-batch. Then gradients live in the arena from the first call that adds to
	// them, where activations were that are no longer needed: MicroStep begins them anew, and NLL overwrites them.
	Once bool
	// Checkpointing keeps only the inputs of blocks, and what attention computes where the device's gradient of it reads that, and computes
	// the rest of a block again before its gradients: less memory for up to a third more work, the same bits.
	Checkpointing bool
	// Memory is how many bytes the plans may take in all to save time: of what would be computed again, with Checkpointing or, norms and
	// activations, without, as much is kept as fits, what saves most time for its size first. 0 keeps nothing more; plans that need more
	// as it is are no error.
	Memory int64

	// Precision says what enters the matrix products of a training step. Where weights are kept as float32, evaluation is in float32
	// either way, so that its figures mean the same.
	Precision Precision

	// DType is the type that floats are computed with: compute.F32 (also when zero), or compute.F64 to judge kernels.
	DType compute.DType
	// Storage is in which types floats are kept. The zero value keeps all as DType; a mixed one (compute.Mixed), for devices whose
	// kernels read shorter types, needs the Precision of that type.
	Storage compute.Storage
}

// Precision is the type of a training step's matrix products. How weights and activations are kept in memory is Config.Storage.
type Precision string

const (
	// Float32 is the precision when none is given.
	Float32 Precision = "float32"
	// BF16 rounds the operands of the products to bfloat16 and sums in float32.
	BF16 Precision = "bf16"
	// Float16 has operands that are kept as float16, summed in float32: Storage is compute.Mixed(compute.F16). The scale given to MicroStep must
	// keep gradients in float16's range (loss scaling).
	Float16 Precision = "float16"
)

// Operands is the type that enters products.
func (p Precision) Operands() compute.DType {
	switch p {
	case BF16:
		return compute.BF16
	case Float16:
		return compute.F16
	}
	return compute.F32
}

// Adapter is a low-rank adapter of one linear module (Hu et al. 2021): y = W·x + b + Scale·B·A·dropout(x). Its parameters are
// Module+".lora_A" [Rank, in] and Module+".lora_B" [out, Rank].
type Adapter struct {
	Module  string
	Rank    int
	Scale   float64
	Dropout float64
}

// A and B name the adapter's parameters.
func (a Adapter) A() string { return a.Module + ".lora_A" }

// B names the adapter's second parameter; see A.
func (a Adapter) B() string { return a.Module + ".lora_B" }

// network is what the planner needs to know of a model.
type network struct {
	params  []tensorSpec
	vocab   int // scored rows of the head
	forward func(*builder)
}

type tensorSpec struct {
	name  string
	shape []int
}

// network describes cfg's model with its adapters' parameters.
func (cfg *Config) network() (network, error) {
	net := network{vocab: cfg.Model.Vocab, forward: func(b *builder) { model.Forward(cfg.Model, b) }}
	shapes := map[string][]int{}
	for _, p := range cfg.Model.Params() {
		net.params = append(net.params, tensorSpec{p.Name, p.Shape})
		shapes[p.Name] = p.Shape
	}
	adapted, err := adapterParams(cfg.Adapters, shapes)
	if err != nil {
		return network{}, err
	}
	net.params = append(net.params, adapted...)
	return net, nil
}

func adapterParams(adapters []Adapter, shapes map[string][]int) ([]tensorSpec, error) {
	var params []tensorSpec
	seen := map[string]bool{}
	for _, a := range adapters {
		w, ok := shapes[a.Module+".weight"]
		switch {
		case !ok || len(w) != 2:
			return nil, fmt.Errorf("adapter: the model has no linear module %q", a.Module)
		case seen[a.Module]:
			return nil, fmt.Errorf("adapter: module %s is named twice", a.Module)
		case a.Rank <= 0:
			return nil, fmt.Errorf("adapter: %s: rank %d, expected at least 1", a.Module, a.Rank)
		case a.Dropout < 0 || a.Dropout >= 1:
			return nil, fmt.Errorf("adapter: %s: dropout %v, expected at least 0 and below 1", a.Module, a.Dropout)
		}
		seen[a.Module] = true
		params = append(params, tensorSpec{a.A(), []int{a.Rank, w[1]}}, tensorSpec{a.B(), []int{w[0], a.Rank}})
	}
	return params, nil
}

// storage applies Storage's default.
func (cfg *Config) storage() compute.Storage {
	if cfg.Storage == (compute.Storage{}) {
		return compute.Uniform(cfg.DType)
	}
	return cfg.Storage
}

// trains applies Train's default.
func (cfg *Config) trains(param string) bool {
	if cfg.Train != nil {
		return cfg.Train(param)
	}
	if len(cfg.Adapters) == 0 {
		return true
	}
	for _, a := range cfg.Adapters {
		if param == a.A() || param == a.B() {
			return true
		}
	}
	return false
}

func (cfg *Config) check() error {
	if cfg.Batch <= 0 || cfg.Seq <= 0 {
		return fmt.Errorf("batch of %d sequences of %d tokens, expected at least 1 of each", cfg.Batch, cfg.Seq)
	}
	if err := cfg.Model.Validate(); err != nil {
		return err
	}
	if cfg.Seq > cfg.Model.Positions {
		return fmt.Errorf("sequences of %d tokens, expected at most the model's %d positions", cfg.Seq, cfg.Model.Positions)
	}
	if !slices.Contains([]Precision{Float32, BF16, Float16}, cfg.Precision) {
		return fmt.Errorf("precision %q, expected %s, %s or %s", cfg.Precision, Float32, BF16, Float16)
	}
	if cfg.DType == compute.F64 && cfg.Precision != Float32 {
		return fmt.Errorf("precision %s with floats of type %v, expected %v", cfg.Precision, cfg.DType, compute.F32)
	}
	if cfg.DType != compute.F32 && cfg.DType != compute.F64 {
		return fmt.Errorf("floats of type %v, expected %v or %v", cfg.DType, compute.F32, compute.F64)
	}
	s := cfg.storage()
	if err := s.Check(); err != nil {
		return err
	}
	if s.Float != cfg.DType {
		return fmt.Errorf("storage %v with floats of type %v, expected the same", s, cfg.DType)
	}
	if s.Masters() && s.Short != cfg.Precision.Operands() {
		return fmt.Errorf("storage %v with precision %s, expected %s", s, cfg.Precision, map[compute.DType]Precision{compute.BF16: BF16, compute.F16: Float16}[s.Short])
	}
	if cfg.Precision == Float16 && !s.Masters() {
		return fmt.Errorf("storage %v with precision %s, expected %v", s, cfg.Precision, compute.Mixed(compute.F16))
	}
	return nil
}
