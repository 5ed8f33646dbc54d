package graph

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"autodev/compute"
	"autodev/compute/ref"
	"autodev/internal/rng"
	"autodev/model"
)

// oracle is a second builder: the vocabulary written with nothing but Gorgonia's own primitives (products, sums, square
// roots, soft-max) in float64, differentiated by Gorgonia's own rules. It shares no kernel and no gradient rule with the
// fused operations, so it is their judge. Slicing, gathering, masks and dropout are products with constant matrices.
type oracle struct {
	t        *testing.T
	g        *G.ExprGraph
	cfg      Config
	net      network
	values   map[string][]float64
	batch    Batch
	params   map[string]*G.Node
	shapes   map[string][]int
	adapters map[string]Adapter
	consts   int
	salt     uint32
	n        int
	loss     *G.Node
}

var _ model.Builder[*G.Node] = (*oracle)(nil)

func newOracle(t *testing.T, cfg Config, net network, values map[string][]float64, batch Batch) *oracle {
	o := &oracle{
		t: t, g: G.NewGraph(), cfg: cfg, net: net, values: values, batch: batch, params: map[string]*G.Node{},
		shapes: map[string][]int{}, adapters: map[string]Adapter{}, n: len(batch.IDs),
	}
	for _, a := range cfg.Adapters {
		o.adapters[a.Module] = a
	}
	for _, p := range net.params {
		o.shapes[p.name] = p.shape
	}
	return o
}

// outcome differentiates with respect to the trained parameters and runs the graph.
func (o *oracle) outcome() outcome {
	var names []string
	var nodes []*G.Node
	for _, p := range o.net.params {
		if n := o.params[p.name]; n != nil && o.cfg.trains(p.name) {
			names, nodes = append(names, p.name), append(nodes, n)
		}
	}
	grads, err := G.Grad(o.loss, nodes...)
	if err != nil {
		o.t.Fatal(err)
	}
	vm := G.NewTapeMachine(o.g)
	defer vm.Close()
	if err := vm.RunAll(); err != nil {
		o.t.Fatal(err)
	}
	out := outcome{loss: o.loss.Value().Data().(float64), grads: map[string][]float64{}}
	for i, g := range grads {
		out.grads[names[i]] = slices.Clone(g.Value().Data().([]float64))
	}
	return out
}

func (o *oracle) matrix(name string, rows, cols int, v []float64) *G.Node {
	return G.NewMatrix(o.g, G.Float64, G.WithShape(rows, cols), G.WithName(name),
		G.WithValue(tensor.New(tensor.WithShape(rows, cols), tensor.WithBacking(slices.Clone(v)))))
}

// constant returns the matrix of f.
func (o *oracle) constant(rows, cols int, f func(i, j int) float64) *G.Node {
	v := make([]float64, rows*cols)
	for k := range v {
		v[k] = f(k/cols, k%cols)
	}
	o.consts++
	return o.matrix(fmt.Sprintf("constant %d", o.consts), rows, cols, v)
}

// param returns a parameter as a matrix, vectors as one row.
func (o *oracle) param(name string) *G.Node {
	if o.params[name] == nil {
		s := o.shapes[name]
		if len(s) == 1 {
			s = []int{1, s[0]}
		}
		o.params[name] = o.matrix(name, s[0], s[1], o.values[name])
	}
	return o.params[name]
}

func times(a, b *G.Node) *G.Node          { return G.Must(G.Mul(a, b)) }
func plus(a, b *G.Node) *G.Node           { return G.Must(G.Add(a, b)) }
func each(a, b *G.Node) *G.Node           { return G.Must(G.HadamardProd(a, b)) }
func scaled(a *G.Node, s float64) *G.Node { return G.Must(G.Mul(a, G.NewConstant(s))) }
func transposed(a *G.Node) *G.Node        { return G.Must(G.Transpose(a, 1, 0)) }

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// rows repeats a row n times.
func (o *oracle) rows(row *G.Node) *G.Node {
	return times(o.constant(o.n, 1, func(int, int) float64 { return 1 }), row)
}

func (o *oracle) gather(table *G.Node, ids []int32) *G.Node {
	return times(o.constant(o.n, table.Shape()[0], func(i, j int) float64 { return one(int(ids[i]) == j) }), table)
}

func (o *oracle) Block(int) {}

func (o *oracle) Embed(table, positions string) *G.Node {
	return plus(o.gather(o.param(table), o.batch.IDs), o.gather(o.param(positions), o.batch.Positions))
}

func (o *oracle) LayerNorm(x *G.Node, module string, epsilon float64) *G.Node {
	e := x.Shape()[1]
	mean := o.constant(e, e, func(int, int) float64 { return 1 / float64(e) })
	c := G.Must(G.Sub(x, times(x, mean)))
	variance := times(G.Must(G.Square(c)), mean)
	y := G.Must(G.HadamardDiv(c, G.Must(G.Sqrt(G.Must(G.Add(variance, G.NewConstant(epsilon)))))))
	return plus(each(y, o.rows(o.param(module+".weight"))), o.rows(o.param(module+".bias")))
}

func (o *oracle) Linear(x *G.Node, module string) *G.Node {
	y := times(x, transposed(o.param(module+".weight")))
	if o.shapes[module+".bias"] != nil {
		y = plus(y, o.rows(o.param(module+".bias")))
	}
	if a, ok := o.adapters[module]; ok {
		u := times(o.drop(x, a.Dropout), transposed(o.param(a.A())))
		y = plus(y, scaled(times(u, transposed(o.param(a.B()))), a.Scale))
	}
	return y
}

// mask returns dropout's factors for the elements from first on.
func (o *oracle) mask(rows, cols int, p float64, salt uint32, first uint64) *G.Node {
	return o.constant(rows, cols, func(i, j int) float64 {
		k := first + uint64(i*cols+j)
		if compute.DropWords(testKey, salt, k/4)[k%4] < compute.DropThreshold(p) {
			return 0
		}
		return 1 / (1 - p)
	})
}

func (o *oracle) drop(x *G.Node, p float64) *G.Node {
	o.salt++
	if p == 0 {
		return x
	}
	return each(x, o.mask(x.Shape()[0], x.Shape()[1], p, o.salt, 0))
}

func (o *oracle) Dropout(x *G.Node, p float64) *G.Node {
	if !o.cfg.ModelDropout {
		p = 0
	}
	return o.drop(x, p)
}

func (o *oracle) Attention(qkv *G.Node, _ int, s model.AttentionSpec) *G.Node {
	o.salt++
	d, seq, width := s.HeadDim, o.cfg.Seq, qkv.Shape()[1]
	columns := func(x *G.Node, from int) *G.Node {
		return times(x, o.constant(width, d, func(i, j int) float64 { return one(i == from+j) }))
	}
	var y *G.Node
	for b := range o.n / seq {
		own := o.constant(seq, o.n, func(i, j int) float64 { return one(j == b*seq+i) })
		x := times(own, qkv)
		hidden := o.constant(seq, seq, func(t, u int) float64 {
			if u > t || u < int(o.batch.DocStart[b*seq+t]) {
				return -1e9
			}
			return 0
		})
		for h := range s.Heads {
			kv := h / (s.Heads / s.KVHeads)
			q, k, v := columns(x, h*d), columns(x, (s.Heads+kv)*d), columns(x, (s.Heads+s.KVHeads+kv)*d)
			p := G.Must(G.SoftMax(plus(scaled(times(q, transposed(k)), s.Scale), hidden)))
			if s.Drop > 0 && o.cfg.ModelDropout {
				p = each(p, o.mask(seq, seq, s.Drop, o.salt, uint64((b*s.Heads+h)*seq*seq)))
			}
			place := o.constant(d, s.Heads*d, func(i, j int) float64 { return one(j == h*d+i) })
			part := times(transposed(own), times(times(p, v), place))
			if y == nil {
				y = part
			} else {
				y = plus(y, part)
			}
		}
	}
	return y
}

func (o *oracle) Activate(x *G.Node, act compute.Act) *G.Node {
	switch act {
	case compute.GELUTanh:
		cube := each(G.Must(G.Square(x)), x)
		inner := scaled(plus(x, scaled(cube, 0.044715)), math.Sqrt(2/math.Pi))
		return scaled(each(x, G.Must(G.Add(G.Must(G.Tanh(inner)), G.NewConstant(1.)))), .5)
	case compute.GELUErf:
		// Gorgonia has no error function; this is its Maclaurin series, exact to rounding for the |x| < 3 of the tests.
		z := scaled(x, math.Sqrt2/2)
		square, power, sum := G.Must(G.Square(z)), z, z
		factorial := 1.
		for k := 1; k < 48; k++ {
			factorial *= float64(k)
			power = each(power, square)
			sum = plus(sum, scaled(power, math.Pow(-1, float64(k))/(factorial*float64(2*k+1))))
		}
		return scaled(each(x, G.Must(G.Add(scaled(sum, 2/math.Sqrt(math.Pi)), G.NewConstant(1.)))), .5)
	case compute.ReLU:
		return G.Must(G.Rectify(x))
	}
	o.t.Fatalf("no oracle for %v", act)
	return nil
}

func (o *oracle) Add(x, y *G.Node) *G.Node { return plus(x, y) }

func (o *oracle) Head(x *G.Node, weight string) {
	w := o.param(weight)
	vocab := o.net.vocab
	scored := times(o.constant(vocab, w.Shape()[0], func(i, j int) float64 { return one(i == j) }), w)
	logs := G.Must(G.Log(G.Must(G.SoftMax(times(x, transposed(scored))))))
	targets := o.constant(o.n, vocab, func(i, j int) float64 { return one(int(o.batch.Targets[i]) == j) })
	o.loss = scaled(G.Must(G.Sum(each(logs, targets))), -testScale)
}

// closeTo reports differences beyond rounding: 1e-10 of a gradient's largest element.
func closeTo(t *testing.T, got, want outcome) {
	t.Helper()
	const tolerance = 1e-10
	if d := math.Abs(got.loss - want.loss); !(d <= tolerance*math.Abs(want.loss)) {
		t.Errorf("loss %v, expected %v", got.loss, want.loss)
	}
	if g, w := sortedKeys(got.grads), sortedKeys(want.grads); !slices.Equal(g, w) {
		t.Fatalf("gradients of %v, expected %v", g, w)
	}
	for name, w := range want.grads {
		largest, worst := 0., 0.
		for i, x := range w {
			largest = max(largest, math.Abs(x))
			worst = max(worst, math.Abs(got.grads[name][i]-x))
			if math.IsNaN(got.grads[name][i]) {
				worst = math.Inf(1)
			}
		}
		if !(worst <= tolerance*largest) {
			t.Errorf("gradient of %s differs by %v, largest element %v", name, worst, largest)
		}
	}
}

// TestOracleModels: whole models, adapters and dropout included, in float64.
func TestOracleModels(t *testing.T) {
	for _, v := range variants() {
		t.Run(v.name, func(t *testing.T) {
			cfg := v.cfg
			cfg.DType = compute.F64
			if v.cfg.Model.Layers > 2 && !strings.Contains(v.name, "last") {
				cfg.Model.Layers = 2
				cfg.Adapters = slices.DeleteFunc(slices.Clone(cfg.Adapters), func(a Adapter) bool { return strings.Contains(a.Module, "h.2.") })
			}
			net, err := cfg.network()
			if err != nil {
				t.Fatal(err)
			}
			values := randomParams(net, 3)
			batch := randomBatch(rng.New(4, "batch"), cfg.Batch, cfg.Seq, cfg.Model.Vocab)
			o := newOracle(t, cfg, net, values, batch)
			model.Forward(cfg.Model, o)
			want := o.outcome()
			nonzero(t, want)
			for _, folds := range []bool{false, true} {
				closeTo(t, planned(t, start(t, cfg, net, hostDevice{kernels: ref.Kernels{}, folds: folds}, values), batch), want)
			}
		})
	}
}

// TestOracleKernels judges one kernel at a time, between a table to differentiate and a head.
func TestOracleKernels(t *testing.T) {
	const e, vocab, positions = 6, 9, 8
	table := []tensorSpec{{"wte.weight", []int{vocab, e}}, {"wpe.weight", []int{positions, e}}}
	head := tensorSpec{"head.weight", []int{vocab, e}}
	linear := func(name string, out, in int, bias bool) []tensorSpec {
		p := []tensorSpec{{name + ".weight", []int{out, in}}}
		if bias {
			p = append(p, tensorSpec{name + ".bias", []int{out}})
		}
		return p
	}
	type forward func(b model.Builder[*G.Node], x *G.Node) *G.Node
	attention := func(heads, kv int, drop float64) forward {
		return func(b model.Builder[*G.Node], x *G.Node) *G.Node {
			d := e / heads
			return b.Attention(b.Linear(x, "qkv"), 0, model.AttentionSpec{Heads: heads, KVHeads: kv, HeadDim: d, Scale: .6, Drop: drop})
		}
	}
	activation := func(a compute.Act) forward {
		return func(b model.Builder[*G.Node], x *G.Node) *G.Node { return b.Activate(x, a) }
	}
	for _, c := range []struct {
		name     string
		params   []tensorSpec
		adapters []Adapter
		f        forward
	}{
		{"embedding and cross entropy", nil, nil, func(_ model.Builder[*G.Node], x *G.Node) *G.Node { return x }},
		{"layer norm", []tensorSpec{{"ln_.weight", []int{e}}, {"ln_.bias", []int{e}}}, nil,
			func(b model.Builder[*G.Node], x *G.Node) *G.Node { return b.LayerNorm(x, "ln_", 1e-3) }},
		{"linear", linear("lin", e, e, true), nil,
			func(b model.Builder[*G.Node], x *G.Node) *G.Node { return b.Linear(x, "lin") }},
		{"linear without bias", linear("lin", e, e, false), nil,
			func(b model.Builder[*G.Node], x *G.Node) *G.Node { return b.Linear(x, "lin") }},
		{"one linear twice", linear("lin", e, e, true), nil,
			func(b model.Builder[*G.Node], x *G.Node) *G.Node { return b.Linear(b.Linear(x, "lin"), "lin") }},
		{"adapter", linear("lin", e, e, true), []Adapter{{"lin", 2, .7, .3}},
			func(b model.Builder[*G.Node], x *G.Node) *G.Node { return b.Linear(x, "lin") }},
		{"multi-query attention", linear("qkv", e+2*2, e, true), nil, attention(3, 1, 0)},
		{"grouped attention", linear("qkv", e+2*3*1, e, true), nil, attention(6, 3, 0)},
		{"multi-head attention with dropout", linear("qkv", 3*e, e, true), nil, attention(2, 2, .4)},
		{"gelu tanh", nil, nil, activation(compute.GELUTanh)},
		{"gelu erf", nil, nil, activation(compute.GELUErf)},
		{"relu", nil, nil, activation(compute.ReLU)},
		{"dropout", nil, nil, func(b model.Builder[*G.Node], x *G.Node) *G.Node { return b.Dropout(x, .3) }},
		{"one dropout mask per call", nil, nil,
			func(b model.Builder[*G.Node], x *G.Node) *G.Node { return b.Add(b.Dropout(x, .3), b.Dropout(x, .3)) }},
		{"add with fan-out of three", linear("lin", e, e, true), nil,
			func(b model.Builder[*G.Node], x *G.Node) *G.Node {
				return b.Add(b.Add(x, b.Linear(x, "lin")), b.Activate(x, compute.GELUTanh))
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			run := func(b model.Builder[*G.Node]) {
				b.Block(0)
				x := c.f(b, b.Embed("wte.weight", "wpe.weight"))
				b.Block(-1)
				b.Head(x, "head.weight")
			}
			cfg := Config{Batch: 2, Seq: 5, DType: compute.F64, ModelDropout: true, Adapters: c.adapters, Train: func(string) bool { return true }}
			net := network{params: append(append(slices.Clone(table), c.params...), head), vocab: vocab - 1, forward: func(b *builder) { run(b) }}
			shapes := map[string][]int{}
			for _, p := range net.params {
				shapes[p.name] = p.shape
			}
			adapted, err := adapterParams(c.adapters, shapes)
			if err != nil {
				t.Fatal(err)
			}
			net.params = append(net.params, adapted...)
			values := randomParams(net, 5)
			batch := randomBatch(rng.New(6, "batch"), cfg.Batch, cfg.Seq, net.vocab)
			o := newOracle(t, cfg, net, values, batch)
			run(o)
			want := o.outcome()
			nonzero(t, want)
			for _, cfg.Checkpointing = range []bool{false, true} {
				closeTo(t, planned(t, start(t, cfg, net, hostDevice{kernels: ref.Kernels{}}, values), batch), want)
			}
		})
	}
}
