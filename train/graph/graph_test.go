package graph

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
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

// tiny returns a small model: multi-query or multi-head, tied or untied head, with two padding rows in its vocabulary.
func tiny(kvHeads int, tied bool) model.Config {
	return model.Config{
		Architecture: model.GPTBigCode, VocabSize: 23, Vocab: 21, Positions: 9, Embed: 12, Layers: 3, Heads: 3, KVHeads: kvHeads,
		Inner: 20, Activation: compute.GELUTanh, Epsilon: 1e-5, Tied: tied, ScaleAttention: true,
		EmbeddingDropout: .1, AttentionDropout: .2, ResidualDropout: .1, InitStd: .2,
	}
}

// allLinear attaches adapters to every linear module of c.
func allLinear(c model.Config, dropout float64) []Adapter {
	var as []Adapter
	for i := range c.Layers {
		for _, m := range []string{"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"} {
			as = append(as, Adapter{Module: fmt.Sprintf("transformer.h.%d.%s", i, m), Rank: 2, Scale: .5, Dropout: dropout})
		}
	}
	return as
}

// randomParams returns values for a network's parameters, all different and none at its usual start.
func randomParams(net network, seed uint64) map[string][]float64 {
	values := map[string][]float64{}
	for _, p := range net.params {
		r := rng.New(seed, p.name)
		v := make([]float64, tensor.Shape(p.shape).TotalSize())
		for i := range v {
			// Rounded to float32, so that both precisions start from the same values.
			v[i] = float64(float32(.4 * r.NormFloat64()))
			if strings.Contains(p.name, "ln_") && strings.HasSuffix(p.name, ".weight") {
				v[i]++
			}
		}
		values[p.name] = v
	}
	return values
}

// randomBatch returns tokens with two documents per sequence and some tokens unscored.
func randomBatch(r *rand.Rand, batch, seq, vocab int) Batch {
	var b Batch
	for i := range batch * seq {
		t := i % seq
		start := 0
		if cut := seq / 3; t >= cut {
			start = cut
		}
		b.IDs = append(b.IDs, int32(r.IntN(vocab)))
		b.Positions = append(b.Positions, int32(t-start))
		b.DocStart = append(b.DocStart, int32(start))
		target := int32(r.IntN(vocab))
		if r.IntN(5) == 0 {
			target = -1
		}
		b.Targets = append(b.Targets, target)
	}
	return b
}

const testScale = .125

var testKey = [2]int32{7, -3}

func start(t *testing.T, cfg Config, net network, dev compute.Device, values map[string][]float64) *Training {
	t.Helper()
	tr, err := build(cfg, net, dev)
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Alloc(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Free(); err != nil {
			t.Error(err)
		}
	})
	for _, p := range tr.Params() {
		v, ok := values[p.Name]
		if !ok {
			t.Fatalf("no value for %s", p.Name)
		}
		if cfg.DType == compute.F64 {
			err = tr.run.mem.Write(p.Weight, v)
		} else {
			err = tr.SetParam(p.Name, convert[float32](v))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return tr
}

// outcome is a loss and its gradients.
type outcome struct {
	loss  float64
	grads map[string][]float64
}

// planned runs a step of tr from zero gradients.
func planned(t *testing.T, tr *Training, b Batch) outcome {
	t.Helper()
	if err := tr.ZeroGrads(); err != nil {
		t.Fatal(err)
	}
	return accumulated(t, tr, b)
}

func accumulated(t *testing.T, tr *Training, b Batch) outcome {
	t.Helper()
	loss, err := tr.MicroStep(context.Background(), b, testScale, testKey)
	if err != nil {
		t.Fatal(err)
	}
	o := outcome{loss, map[string][]float64{}}
	for _, p := range tr.Params() {
		if !p.Trained {
			continue
		}
		if o.grads[p.Name], err = tr.readFloats(p.Grad); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// taped runs the same graph on Gorgonia's TapeMachine.
func taped(t *testing.T, cfg Config, net network, kernels compute.HostKernels, values map[string][]float64, batch Batch) outcome {
	t.Helper()
	b, gradOf, err := differentiate(&cfg, net, false, kernels)
	if err != nil {
		t.Fatal(err)
	}
	floats := func(n *G.Node, v []float64) {
		var backing any = slices.Clone(v)
		if cfg.DType == compute.F32 {
			backing = convert[float32](v)
		}
		if err := G.Let(n, tensor.New(tensor.WithShape(n.Shape()...), tensor.WithBacking(backing))); err != nil {
			t.Fatal(err)
		}
	}
	ints := func(name string, v []int32) {
		if err := G.Let(b.inputs[name], tensor.New(tensor.WithShape(len(v)), tensor.WithBacking(slices.Clone(v)))); err != nil {
			t.Fatal(err)
		}
	}
	for name, n := range b.params {
		floats(n, values[name])
	}
	ints(inIDs, batch.IDs)
	ints(inPositions, batch.Positions)
	ints(inDocStart, batch.DocStart)
	ints(inTargets, batch.Targets)
	ints(inKey, testKey[:])
	floats(b.inputs[inScale], []float64{testScale})
	vm := G.NewTapeMachine(b.g)
	defer vm.Close()
	if err := vm.RunAll(); err != nil {
		t.Fatal(err)
	}
	o := outcome{grads: map[string][]float64{}}
	read := func(n *G.Node) []float64 {
		switch d := n.Value().Data().(type) {
		case []float32:
			return convert[float64](d)
		case []float64:
			return d
		case float32:
			return []float64{float64(d)}
		case float64:
			return []float64{d}
		}
		t.Fatalf("node %v holds %T", n, n.Value().Data())
		return nil
	}
	o.loss = read(b.result)[0]
	for name, n := range gradOf {
		o.grads[name] = read(n)
	}
	return o
}

// sameBits reports any difference between two outcomes.
func sameBits(t *testing.T, what string, got, want outcome) {
	t.Helper()
	if math.Float64bits(got.loss) != math.Float64bits(want.loss) {
		t.Errorf("%s: loss %v, expected %v", what, got.loss, want.loss)
	}
	if g, w := sortedKeys(got.grads), sortedKeys(want.grads); !slices.Equal(g, w) {
		t.Fatalf("%s: gradients of %v, expected %v", what, g, w)
	}
	for name, w := range want.grads {
		g := got.grads[name]
		if len(g) != len(w) {
			t.Fatalf("%s: %s has %d elements, expected %d", what, name, len(g), len(w))
		}
		for i := range w {
			// The tape's −0 is the accumulated +0.
			if g[i] != w[i] || math.IsNaN(g[i]) {
				t.Errorf("%s: gradient of %s[%d] is %v, expected %v", what, name, i, g[i], w[i])
				break
			}
		}
	}
}

// nonzero checks that an outcome is one that a mistake could be seen in.
func nonzero(t *testing.T, o outcome) {
	t.Helper()
	if o.loss == 0 || math.IsNaN(o.loss) {
		t.Errorf("loss %v", o.loss)
	}
	for name, g := range o.grads {
		largest := 0.
		for _, x := range g {
			largest = max(largest, math.Abs(x))
		}
		if largest == 0 {
			t.Errorf("gradient of %s is all zero", name)
		}
	}
}

type variant struct {
	name string
	cfg  Config
}

func variants() []variant {
	base := Config{Batch: 2, Seq: 7, DType: compute.F32}
	with := func(name string, f func(*Config)) variant {
		c := base
		c.Model = tiny(1, true)
		f(&c)
		return variant{name, c}
	}
	frozen := func(keep ...string) func(string) bool {
		return func(p string) bool {
			return slices.ContainsFunc(keep, func(k string) bool { return strings.Contains(p, k) })
		}
	}
	return []variant{
		with("multi-query tied", func(*Config) {}),
		with("multi-head untied", func(c *Config) { c.Model = tiny(3, false) }),
		with("gelu erf", func(c *Config) { c.Model.Activation = compute.GELUErf }),
		with("dropout", func(c *Config) { c.ModelDropout = true }),
		with("lora", func(c *Config) { c.Adapters = allLinear(c.Model, 0) }),
		with("lora dropout", func(c *Config) { c.Adapters = allLinear(c.Model, .25); c.ModelDropout = true }),
		with("lora and norms", func(c *Config) {
			c.Adapters = allLinear(c.Model, 0)[:5]
			c.Train = frozen("lora_", "ln_1", ".bias")
		}),
		with("lora and everything", func(c *Config) { c.Adapters = allLinear(c.Model, .1); c.Train = frozen("") }),
		with("last block", func(c *Config) { c.Train = frozen("h.2.", "ln_f") }),
		with("embeddings", func(c *Config) { c.Train = frozen("wte", "wpe") }),
		with("one bias", func(c *Config) { c.Train = frozen("h.1.mlp.c_fc.bias") }),
		with("untied head alone", func(c *Config) { c.Model = tiny(1, false); c.Train = frozen("lm_head") }),
	}
}

func (v variant) network(t *testing.T) network {
	t.Helper()
	net, err := v.cfg.network()
	if err != nil {
		t.Fatal(err)
	}
	return net
}

// TestPlanEqualsTape: the plan, with and without checkpointing, computes the bits that Gorgonia's own executor does for the
// same graph on the same kernels. The device poisons memory that no one may read.
func TestPlanEqualsTape(t *testing.T) {
	for _, v := range variants() {
		t.Run(v.name, func(t *testing.T) {
			net := v.network(t)
			values := randomParams(net, 1)
			batch := randomBatch(rng.New(2, "batch"), v.cfg.Batch, v.cfg.Seq, v.cfg.Model.Vocab)
			for _, d := range []compute.DType{compute.F32, compute.F64} {
				cfg := v.cfg
				cfg.DType = d
				want := taped(t, cfg, net, ref.Kernels{}, values, batch)
				nonzero(t, want)
				for _, cfg.Checkpointing = range []bool{false, true} {
					for _, keeps := range []bool{false, true} {
						tr := start(t, cfg, net, hostDevice{kernels: ref.Kernels{}, work: 192, keeps: keeps}, values)
						what := fmt.Sprintf("%v checkpointing %v attention kept %v", d, cfg.Checkpointing, keeps)
						sameBits(t, what, planned(t, tr, batch), want)
						sameBits(t, what+", again", planned(t, tr, batch), want)
						for _, c := range tr.step.Calls {
							if c.Kernel == compute.AttentionGrad && keeps != (len(c.In) == compute.MaxOperands) {
								t.Errorf("%s: %s has %d inputs", what, c.Name, len(c.In))
							}
						}
					}
				}
			}
		})
	}
}
