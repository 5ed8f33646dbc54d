package graph

import (
	"fmt"

	G "gorgonia.org/gorgonia"

	"autodev/compute"
	"autodev/model"
)

// builder implements model.Builder with nodes of a Gorgonia graph.
type builder struct {
	g     *G.ExprGraph
	dtype compute.DType
	store compute.Storage
	n     int // tokens in a micro-batch
	seq   int
	vocab int
	bf16  bool // what enters products is rounded
	eval  bool // per-token losses without dropout instead of a loss to differentiate

	modelDropout bool
	adapters     map[string]Adapter
	adapted      map[string]bool // modules whose adapter was met

	params map[string]*G.Node
	inputs map[string]*G.Node
	needs  map[*G.Node]bool // nodes that a trained parameter influences
	source map[*op]*op      // of a picking operation, the CrossEntropy it picks from
	ops    int
	block  int
	salt   uint32
	result *G.Node // the loss, or the tokens' losses in evaluation
	err    error

	host compute.HostKernels // runs operations on Gorgonia's TapeMachine; nil when only planned
}

var _ model.Builder[*G.Node] = (*builder)(nil)

// Names of the caller's inputs.
const (
	inIDs       = "ids"
	inPositions = "positions"
	inDocStart  = "docStart"
	inTargets   = "targets"
	inScale     = "scale"
	inKey       = "key"
)

func newBuilder(cfg *Config, net network, eval bool) *builder {
	b := &builder{
		g: G.NewGraph(), dtype: cfg.DType, store: cfg.storage(), n: cfg.Batch * cfg.Seq, seq: cfg.Seq, vocab: net.vocab, eval: eval, bf16: cfg.Precision == BF16 && (!eval || cfg.Storage.Masters()),
		modelDropout: cfg.ModelDropout && !eval, adapters: map[string]Adapter{}, adapted: map[string]bool{}, params: map[string]*G.Node{},
		inputs: map[string]*G.Node{}, needs: map[*G.Node]bool{}, source: map[*op]*op{}, block: -1,
	}
	for _, a := range cfg.Adapters {
		b.adapters[a.Module] = a
	}
	for _, p := range net.params {
		n := b.leaf(p.name, b.dtype, p.shape...)
		b.params[p.name] = n
		if cfg.trains(p.name) && !eval {
			b.needs[n] = true
		}
	}
	for _, name := range []string{inIDs, inPositions, inDocStart, inTargets} {
		b.inputs[name] = b.leaf(name, compute.I32, b.n)
	}
	b.inputs[inScale] = b.leaf(inScale, b.dtype, 1)
	b.inputs[inKey] = b.leaf(inKey, compute.I32, 2)
	return b
}

func (b *builder) leaf(name string, d compute.DType, shape ...int) *G.Node {
	return G.NewTensor(b.g, gorgoniaType(d), len(shape), G.WithShape(shape...), G.WithName(name))
}

// param returns the node of a parameter.
func (b *builder) param(name string) *G.Node {
	n, ok := b.params[name]
	if !ok && b.err == nil {
		b.err = fmt.Errorf("the model has no parameter %q", name)
	}
	return n
}

func (b *builder) Block(i int) { b.block = i }

func (b *builder) Embed(table, positions string) *G.Node {
	t, p := b.param(table), b.param(positions)
	if b.err != nil {
		return nil
	}
	return b.apply(compute.Embed, compute.Attr{}, "embed", []int{b.n, t.Shape()[1]}, t, p, b.inputs[inIDs], b.inputs[inPositions])
}

func (b *builder) LayerNorm(x *G.Node, module string, epsilon float64) *G.Node {
	gain, bias := b.param(module+".weight"), b.param(module+".bias")
	if b.err != nil {
		return nil
	}
	return b.apply(compute.LayerNorm, compute.Attr{Epsilon: epsilon}, module, x.Shape(), x, gain, bias)
}

func (b *builder) Linear(x *G.Node, module string) *G.Node {
	w := b.param(module + ".weight")
	if b.err != nil {
		return nil
	}
	var low *G.Node // the adapter's part
	if a, ok := b.adapters[module]; ok {
		b.adapted[module] = true
		u := b.linear(b.dropout(x, a.Dropout, module+".lora_dropout"), b.param(a.A()), nil, nil, a.A(), 1)
		low = b.linear(u, b.param(a.B()), nil, nil, a.B(), a.Scale)
	}
	// It is the large product that adds: reading what it adds to takes a small part of its time, but would be most of the small one's.
	return b.linear(x, w, b.params[module+".bias"], low, module, 1)
}

func (b *builder) linear(x, w, bias, base *G.Node, name string, alpha float64) *G.Node {
	if b.err != nil {
		return nil
	}
	return b.apply(compute.Linear, compute.Attr{Alpha: alpha, BF16: b.bf16}, name, []int{b.n, w.Shape()[0]}, x, w, bias, base)
}

func (b *builder) Attention(qkv *G.Node, layer int, spec model.AttentionSpec) *G.Node {
	b.salt++
	attr := compute.Attr{Heads: spec.Heads, KVHeads: spec.KVHeads, HeadDim: spec.HeadDim, Seq: b.seq, Scale: spec.Scale, BF16: b.bf16}
	var key *G.Node
	if b.modelDropout && spec.Drop > 0 {
		attr.Drop, attr.Salt, key = spec.Drop, b.salt, b.inputs[inKey]
	}
	shape := []int{b.n, spec.Heads * spec.HeadDim}
	return b.apply(compute.Attention, attr, fmt.Sprintf("attention %d", layer), shape, qkv, b.inputs[inDocStart], key)
}

func (b *builder) Activate(x *G.Node, act compute.Act) *G.Node {
	if b.err != nil {
		return nil
	}
	return b.apply(compute.Activation, compute.Attr{Act: act}, act.String(), x.Shape(), x)
}

func (b *builder) Add(x, y *G.Node) *G.Node {
	if b.err != nil {
		return nil
	}
	return b.apply(compute.Add, compute.Attr{}, "residual", x.Shape(), x, y)
}

func (b *builder) Dropout(x *G.Node, p float64) *G.Node {
	if !b.modelDropout {
		p = 0
	}
	return b.dropout(x, p, "dropout")
}

// dropout counts its call sites whether or not they drop, so that turning one off leaves the others' masks as they were.
func (b *builder) dropout(x *G.Node, p float64, name string) *G.Node {
	b.salt++
	if p == 0 || b.eval || b.err != nil {
		return x
	}
	return b.apply(compute.Dropout, compute.Attr{Drop: p, Salt: b.salt}, name, x.Shape(), x, b.inputs[inKey])
}

func (b *builder) Head(x *G.Node, weight string) {
	w := b.param(weight)
	attr := compute.Attr{Vocab: b.vocab, BF16: b.bf16}
	switch {
	case b.err != nil:
	case b.result != nil:
		b.err = fmt.Errorf("a second head, of %s", weight)
	case b.eval:
		b.result = b.apply(compute.TokenNLL, attr, "head", []int{b.n}, x, w, b.inputs[inTargets])
	default:
		b.result = b.apply(compute.CrossEntropy, attr, "head", []int{1}, x, w, b.inputs[inTargets], b.inputs[inScale])
	}
}
