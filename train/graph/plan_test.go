package graph

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"autodev/compute"
	"autodev/compute/cpu"
	"autodev/compute/ref"
	"autodev/internal/rng"
	"autodev/model"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestCPUEqualsTape: on the CPU device too the plan's bits are those of Gorgonia's executor, whatever the number of
// threads, with and without checkpointing, and though the arena is full of NaN before every run.
func TestCPUEqualsTape(t *testing.T) {
	for _, v := range variants() {
		t.Run(v.name, func(t *testing.T) {
			net := v.network(t)
			values := randomParams(net, 1)
			batch := randomBatch(rng.New(2, "batch"), v.cfg.Batch, v.cfg.Seq, v.cfg.Model.Vocab)
			kernels := cpu.New(cpu.Options{Threads: 1})
			defer kernels.Close()
			want := taped(t, v.cfg, net, kernels, values, batch)
			nonzero(t, want)
			for _, threads := range []int{1, 2, 5} {
				dev := cpu.New(cpu.Options{Threads: threads})
				t.Cleanup(dev.Close)
				for _, checkpointing := range []bool{false, true} {
					cfg := v.cfg
					cfg.Checkpointing = checkpointing
					tr := start(t, cfg, net, dev, values)
					for _, p := range tr.Plans() {
						if err := checkArena(p.Plan); err != nil {
							t.Errorf("%s: %v", p.Name, err)
						}
					}
					poisonArena(t, tr)
					sameBits(t, fmt.Sprintf("%d threads, checkpointing %v", threads, checkpointing), planned(t, tr, batch), want)
				}
			}
		})
	}
}

func poisonArena(t *testing.T, tr *Training) {
	t.Helper()
	nan := make([]float32, tr.usage.Arena/4)
	for i := range nan {
		nan[i] = float32(math.NaN())
	}
	if err := tr.run.mem.Write(compute.Buffer{Space: compute.Arena, DType: compute.F32, Shape: []int{len(nan)}}, nan); err != nil {
		t.Fatal(err)
	}
}

// TestRandomModels: whatever the model, the adapters, the trained parameters and the batch, the plan computes the tape's bits.
func TestRandomModels(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		heads := rapid.IntRange(1, 3).Draw(rt, "heads")
		c := tiny(rapid.SampledFrom([]int{1, heads}).Draw(rt, "key heads"), rapid.Bool().Draw(rt, "tied"))
		c.Heads, c.Embed = heads, heads*rapid.IntRange(1, 4).Draw(rt, "head dimension")
		c.Layers, c.Inner = rapid.IntRange(1, 3).Draw(rt, "layers"), rapid.IntRange(1, 9).Draw(rt, "inner")
		c.Activation = rapid.SampledFrom([]compute.Act{compute.GELUTanh, compute.GELUErf, compute.ReLU}).Draw(rt, "activation")
		cfg := Config{
			Model: c, Batch: rapid.IntRange(1, 3).Draw(rt, "batch"), Seq: rapid.IntRange(1, c.Positions).Draw(rt, "sequence"),
			ModelDropout: rapid.Bool().Draw(rt, "dropout"), Checkpointing: rapid.Bool().Draw(rt, "checkpointing"),
			DType: rapid.SampledFrom([]compute.DType{compute.F32, compute.F64}).Draw(rt, "type"),
		}
		for _, a := range allLinear(c, 0) {
			if rapid.Bool().Draw(rt, a.Module) {
				a.Dropout = rapid.SampledFrom([]float64{0, .5}).Draw(rt, a.Module+" dropout")
				cfg.Adapters = append(cfg.Adapters, a)
			}
		}
		net, err := cfg.network()
		if err != nil {
			rt.Fatal(err)
		}
		trained := map[string]bool{}
		every := rapid.IntRange(1, 5).Draw(rt, "trains one in")
		for _, p := range net.params {
			trained[p.name] = rapid.IntRange(1, every).Draw(rt, p.name) == 1
		}
		trained[net.params[rapid.IntRange(0, len(net.params)-1).Draw(rt, "trained")].name] = true
		cfg.Train = func(p string) bool { return trained[p] }
		seed := rapid.Uint64().Draw(rt, "seed")
		values := randomParams(net, seed)
		batch := randomBatch(rng.New(seed, "batch"), cfg.Batch, cfg.Seq, c.Vocab)
		want := taped(t, cfg, net, ref.Kernels{}, values, batch)
		tr := start(t, cfg, net, hostDevice{kernels: ref.Kernels{}, work: 64}, values)
		sameBits(t, "plan", planned(t, tr, batch), want)
		// Where products add, whatever is kept, and whether attention is, changes no bit; what folding changes is rounding.
		dev := hostDevice{kernels: ref.Kernels{}, work: 64, folds: true}
		folded := planned(t, start(t, cfg, net, dev, values), batch)
		if d := folded.apart(want); cfg.DType == compute.F64 && d > 1e-9 {
			t.Errorf("with folded sums gradients differ by %v of the largest", d)
		}
		dev.keeps = true
		u := tr.Usage()
		cfg.Memory = u.Total() + rapid.Int64Range(-u.Plain.AllPlans, u.Plain.AllPlans).Draw(rt, "memory")
		sameBits(t, fmt.Sprint("plan in ", cfg.Memory, " bytes"), planned(t, start(t, cfg, net, dev, values), batch), folded)
		if t.Failed() {
			rt.FailNow()
		}
	})
}

// apart is the largest distance of gradients as a share of the largest gradient.
func (o outcome) apart(other outcome) float64 {
	worst, largest := 0., 0.
	for name, g := range other.grads {
		for i, x := range g {
			worst, largest = max(worst, math.Abs(o.grads[name][i]-x)), max(largest, math.Abs(x))
		}
	}
	return worst / max(largest, 1e-300)
}

// TestFiniteDifferences compares gradients with differences of the loss, for a few elements of every parameter.
func TestFiniteDifferences(t *testing.T) {
	cfg := Config{Model: tiny(1, true), Batch: 2, Seq: 7, DType: compute.F64, ModelDropout: true, Train: func(string) bool { return true }}
	cfg.Model.Layers = 1
	cfg.Adapters = allLinear(cfg.Model, .2)
	net := variant{cfg: cfg}.network(t)
	values := randomParams(net, 8)
	batch := randomBatch(rng.New(9, "batch"), cfg.Batch, cfg.Seq, cfg.Model.Vocab)
	tr := start(t, cfg, net, hostDevice{kernels: ref.Kernels{}}, values)
	got := planned(t, tr, batch)
	const h = 1e-5
	for _, p := range tr.Params() {
		r := rng.New(10, p.Name)
		for range 3 {
			i := r.IntN(len(values[p.Name]))
			lossAt := func(delta float64) float64 {
				v := slices.Clone(values[p.Name])
				v[i] += delta
				if err := tr.run.mem.Write(p.Weight, v); err != nil {
					t.Fatal(err)
				}
				return planned(t, tr, batch).loss
			}
			want := (lossAt(h) - lossAt(-h)) / (2 * h)
			lossAt(0)
			if g := got.grads[p.Name][i]; math.Abs(g-want) > 1e-7*(1+math.Abs(want)) {
				t.Errorf("gradient of %s[%d] is %v, differences say %v", p.Name, i, g, want)
			}
		}
	}
}

// TestAccumulation: two micro-batches add up to one of twice the size.
func TestAccumulation(t *testing.T) {
	for _, d := range []compute.DType{compute.F64, compute.F32} {
		tolerance := map[compute.DType]float64{compute.F64: 1e-13, compute.F32: 1e-5}[d]
		whole := Config{Model: tiny(1, true), Batch: 4, Seq: 6, DType: d}
		half := whole
		half.Batch = 2
		net := variant{cfg: whole}.network(t)
		values := randomParams(net, 11)
		b := randomBatch(rng.New(12, "batch"), 4, 6, whole.Model.Vocab)
		n := len(b.IDs) / 2
		halves := []Batch{
			{b.IDs[:n], b.Positions[:n], b.DocStart[:n], b.Targets[:n]},
			{b.IDs[n:], b.Positions[n:], b.DocStart[n:], b.Targets[n:]},
		}
		dev := hostDevice{kernels: ref.Kernels{}}
		want := planned(t, start(t, whole, net, dev, values), b)
		tr := start(t, half, net, dev, values)
		first := planned(t, tr, halves[0])
		got := accumulated(t, tr, halves[1])
		if sum := first.loss + got.loss; math.Abs(sum-want.loss) > tolerance*want.loss {
			t.Errorf("%v: losses add up to %v, expected %v", d, sum, want.loss)
		}
		for name, w := range want.grads {
			for i, g := range got.grads[name] {
				if math.Abs(g-w[i]) > tolerance {
					t.Errorf("%v: gradient of %s[%d] is %v, expected %v", d, name, i, g, w[i])
					break
				}
			}
		}
	}
}

// TestEvaluation: the tokens' losses without dropout add up to the loss without dropout, and leave gradients alone.
func TestEvaluation(t *testing.T) {
	cfg := Config{Model: tiny(3, false), Batch: 2, Seq: 6, DType: compute.F64}
	net := variant{cfg: cfg}.network(t)
	values := randomParams(net, 13)
	b := randomBatch(rng.New(14, "batch"), 2, 6, cfg.Model.Vocab)
	dev := hostDevice{kernels: ref.Kernels{}, work: 64}
	want := planned(t, start(t, cfg, net, dev, values), b)
	cfg.ModelDropout = true
	tr := start(t, cfg, net, dev, values)
	dropped := planned(t, tr, b)
	if dropped.loss == want.loss {
		t.Error("dropout changes nothing")
	}
	nll, err := tr.NLL(context.Background(), b)
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.
	for i, x := range nll {
		if (b.Targets[i] < 0) != (x == 0) {
			t.Errorf("token %d with target %d has loss %v", i, b.Targets[i], x)
		}
		sum += float64(x)
	}
	if math.Abs(testScale*sum-want.loss) > 1e-6 {
		t.Errorf("tokens' losses add up to %v, expected %v", testScale*sum, want.loss)
	}
	g, err := tr.readFloats(tr.params[0].Grad)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(g, dropped.grads[tr.params[0].Name]) {
		t.Error("evaluation changed gradients")
	}
}

// TestFrozenGetNothing: with adapters there is no gradient kernel of a frozen weight, nor of what lies before the first
// adapter, and every call's result is used.
func TestFrozenGetNothing(t *testing.T) {
	for _, v := range variants() {
		t.Run(v.name, func(t *testing.T) {
			tr, err := build(v.cfg, v.network(t), hostDevice{kernels: ref.Kernels{}})
			if err != nil {
				t.Fatal(err)
			}
			p, err := tr.program(false)
			if err != nil {
				t.Fatal(err)
			}
			used := map[*value]bool{}
			for _, c := range p.code {
				for _, in := range c.in {
					used[in] = true
				}
			}
			for _, c := range p.code {
				for i, out := range c.out {
					if out != nil && !out.fixed && !used[out] && !(c.call.Kernel == compute.CrossEntropy && i == 1 && v.name == "untied head alone") {
						t.Errorf("nobody uses output %d of %v %s", i, c.call.Kernel, c.call.Name)
					}
				}
				if accumulates(c.call.Kernel, 0) && c.out[0].buf.Space != compute.Grads {
					t.Errorf("%v %s does not add to a gradient", c.call.Kernel, c.call.Name)
				}
			}
		})
	}
	cfg := Config{Model: tiny(1, true), Batch: 1, Seq: 4}
	cfg.Adapters = allLinear(cfg.Model, 0)
	tr, err := Build(cfg, hostDevice{kernels: ref.Kernels{}})
	if err != nil {
		t.Fatal(err)
	}
	count := map[compute.Kernel]int{}
	for _, c := range tr.step.Calls {
		count[c.Kernel]++
	}
	want := map[compute.Kernel]int{
		compute.LinearGradW: 2 * 4 * 3, // lora_A and lora_B of four modules in three blocks
		// per module: through B, A and W, but nothing before the first module
		compute.LinearGradX:   3*4*3 - 2,
		compute.LayerNormGrad: 6, // not of the first block's first; ln_f
	}
	for _, k := range []compute.Kernel{compute.LinearGradW, compute.LinearGradX, compute.LayerNormGrad, compute.EmbedGrad, compute.BiasGrad, compute.LayerNormGainGrad} {
		if count[k] != want[k] {
			t.Errorf("%d calls of %v, expected %d", count[k], k, want[k])
		}
	}
	for _, p := range tr.Params() {
		if p.Trained != strings.Contains(p.Name, ".lora_") {
			t.Errorf("%s: trained %v", p.Name, p.Trained)
		}
	}
}

// TestCheckpointing: what the forward pass of a block computes is not read after the forward pass, but for the block's
// output, which is the next block's input; and the arena is smaller for it.
func TestCheckpointing(t *testing.T) {
	for _, lora := range []bool{false, true} {
		cfg := Config{Model: tiny(1, true), Batch: 2, Seq: 8}
		cfg.Model.Layers = 8
		if lora {
			cfg.Adapters = allLinear(cfg.Model, .1)
		}
		tr, err := Build(cfg, hostDevice{kernels: ref.Kernels{}})
		if err != nil {
			t.Fatal(err)
		}
		p, err := tr.program(false)
		if err != nil {
			t.Fatal(err)
		}
		q := p.checkpoint(p.blocks(), nil)
		if err := q.check(); err != nil {
			t.Fatal(err)
		}
		producer := map[*value]*instr{}
		lastOf := map[int]*instr{}
		again := 0
		for _, c := range q.code {
			for _, v := range c.out {
				if v != nil && !v.fixed {
					producer[v] = c
				}
			}
			switch c.phase {
			case forward:
				lastOf[c.block] = c
				continue
			case computedAgain:
				again++
			}
			for _, v := range c.in {
				if f := producer[v]; f != nil && f.phase == forward && f.block >= 0 && f != lastOf[f.block] {
					t.Errorf("lora %v: %v %s reads %s of the forward pass of block %d", lora, c.call.Kernel, c.call.Name, f.call.Name, f.block)
				}
			}
		}
		// What leads to nothing but the block's output is not repeated: the residual sum after the MLP and the projection
		// before it, with an adapter also the adapter's last product. The norms, sums, activation and other modules are.
		perBlock := map[bool]int{false: 8, true: 19}[lora]
		if again != perBlock*cfg.Model.Layers {
			t.Errorf("lora %v: %d calls are repeated, expected %d in each block", lora, again, perBlock)
		}
		u := tr.Usage()
		if u.Checkpointed.Bytes*2 > u.Plain.Bytes {
			t.Errorf("lora %v: arena of %d bytes with checkpointing, %d without", lora, u.Checkpointed.Bytes, u.Plain.Bytes)
		}
		if u.Plain.Bytes < u.Plain.Activations || u.Plain.Bytes > u.Plain.Activations*11/10 {
			t.Errorf("lora %v: arena of %d bytes for %d bytes alive", lora, u.Plain.Bytes, u.Plain.Activations)
		}
	}
}

// TestLastBlock: the last block is computed again only where keeping it would need more memory, while the head runs; and the
// arena holds the work space of every plan.
func TestLastBlock(t *testing.T) {
	cfg := Config{Model: tiny(1, true), Batch: 2, Seq: 8, Checkpointing: true}
	const work = 1 << 20
	for kernel, twice := range map[compute.Kernel]bool{compute.AttentionGrad: false, compute.CrossEntropy: true, compute.TokenNLL: false, compute.AdamW: false} {
		tr, err := Build(cfg, hostDevice{kernels: ref.Kernels{}, more: map[compute.Kernel]int64{kernel: work}})
		if err != nil {
			t.Fatal(err)
		}
		if tr.Usage().Arena < work || tr.Usage().Arena > work+1<<15 {
			t.Errorf("%v: arena of %d bytes", kernel, tr.Usage().Arena)
		}
		attention := 0
		for _, c := range tr.step.Calls {
			if c.Name == "attention 2" {
				attention++
			}
		}
		if (attention == 2) != twice {
			t.Errorf("%v: attention of the last block runs %d times", kernel, attention)
		}
		for _, p := range tr.Plans() {
			if err := checkArena(p.Plan); err != nil {
				t.Errorf("%v: %s plan: %v", kernel, p.Name, err)
			}
		}
	}
}

// TestSantaCoderMemory plans a real size: 1.1 billion parameters, two sequences of 2,048 tokens. The arena is as small as
// its fullest moment allows.
func TestSantaCoderMemory(t *testing.T) {
	c := model.Config{
		Architecture: model.GPTBigCode, VocabSize: 49280, Vocab: 49153, Positions: 2048, Embed: 2048, Layers: 24, Heads: 16, KVHeads: 1,
		Inner: 8192, Activation: compute.GELUTanh, Epsilon: 1e-5, Tied: true, ScaleAttention: true, InitStd: .02,
	}
	tr, err := Build(Config{Model: c, Batch: 2, Seq: 2048}, hostDevice{})
	if err != nil {
		t.Fatal(err)
	}
	u := tr.Usage()
	if u.Weights < 4*c.NumParams() || u.Weights > 4*c.NumParams()+1<<16 || u.Gradients != u.Weights || u.Moments != 2*u.Weights {
		t.Errorf("%d parameters: %+v", c.NumParams(), u)
	}
	for _, a := range []ArenaUsage{u.Plain, u.Checkpointed} {
		if a.Bytes > a.Activations*101/100 {
			t.Errorf("arena of %d bytes for %d bytes alive", a.Bytes, a.Activations)
		}
	}
	// Without checkpointing the residual stream (twice a block), queries, keys and values, attention's output and the MLP's
	// inner layer before its activation stay, with it the residual stream at each block's start.
	tokens := 2. * 2048
	if got, want := float64(u.Plain.Bytes), tokens*(2+1.125+1+4)*2048*24*4; math.Abs(got/want-1) > .05 {
		t.Errorf("arena of %v bytes without checkpointing, expected about %v", got, want)
	}
	if got, least := float64(u.Checkpointed.Bytes), tokens*2048*4*24; got < least || got > 2*least {
		t.Errorf("arena of %v bytes with checkpointing, expected %v and a block", got, least)
	}
}

// TestAssign: regions alive together never overlap, offsets are aligned, and the total is what they need.
func TestAssign(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		regions := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) *region {
			first := rapid.IntRange(0, 30).Draw(t, "first")
			return &region{bytes: rapid.Int64Range(1, 1000).Draw(t, "bytes"), first: first, last: first + rapid.IntRange(0, 12).Draw(t, "calls")}
		}), 0, 40).Draw(t, "regions")
		total := assign(regions)
		var end int64
		for i, a := range regions {
			end = max(end, align(a.offset+a.bytes))
			if a.offset%compute.Align != 0 || a.offset < 0 {
				t.Fatalf("offset %d", a.offset)
			}
			for _, b := range regions[:i] {
				if a.first <= b.last && b.first <= a.last && a.offset < b.offset+b.bytes && b.offset < a.offset+a.bytes {
					t.Fatalf("%+v overlaps %+v", *a, *b)
				}
			}
		}
		if total != end {
			t.Fatalf("total %d, expected %d", total, end)
		}
	})
}

// TestReuse: a call writes over an input only where its kernel allows it and no one else needs the input.
func TestReuse(t *testing.T) {
	matrix := func() *value {
		return &value{buf: compute.Buffer{Space: compute.Arena, DType: compute.F32, Shape: []int{4, 4}}}
	}
	weight := &value{buf: compute.Buffer{Space: compute.Weights, DType: compute.F32, Shape: []int{4, 4}}, fixed: true}
	call := func(k compute.Kernel, out *value, in ...*value) *instr {
		return &instr{call: compute.Call{Kernel: k, Name: k.String(), Attr: compute.Attr{Alpha: 1, Act: compute.ReLU}}, in: in, out: []*value{out}}
	}
	x, y, z := matrix(), matrix(), matrix()
	src := call(compute.Linear, x, weight, weight, nil, nil)
	for _, c := range []struct {
		name    string
		code    []*instr
		regions int // how many matrices the arena holds
	}{
		{"add over its first", []*instr{src, call(compute.Add, y, x, weight)}, 1},
		{"add over its second", []*instr{src, call(compute.Add, y, weight, x)}, 1},
		{"not while it is used later", []*instr{src, call(compute.Add, y, x, weight), call(compute.Add, z, x, y)}, 2},
		{"a chain", []*instr{src, call(compute.Add, y, x, weight), call(compute.Add, z, weight, y)}, 1},
		{"linear over its base", []*instr{src, call(compute.Linear, y, weight, weight, nil, x)}, 1},
		{"not over its input", []*instr{src, call(compute.Linear, y, x, weight, nil, weight)}, 2},
		{"not over a base that is its input", []*instr{src, call(compute.Linear, y, x, weight, nil, x)}, 2},
		{"gradient over its base", []*instr{src, call(compute.LinearGradX, y, weight, weight, x)}, 1},
		{"activation in place", []*instr{src, call(compute.Activation, y, x)}, 1},
		{"an activation's gradient", []*instr{src, call(compute.ActivationGrad, y, weight, x)}, 1},
		{"a norm's gradient", []*instr{src, call(compute.LayerNormGrad, y, x, weight, weight)}, 1},
		{"a norm's gradient over its base", []*instr{src, call(compute.LayerNormGrad, y, weight, weight, weight, x)}, 1},
		{"not over the norm's input", []*instr{src, call(compute.LayerNormGrad, y, weight, x, weight)}, 2},
	} {
		p := &program{code: c.code}
		if err := p.check(); err != nil {
			t.Fatal(err)
		}
		pl := p.place(hostDevice{})
		if pl.arena != int64(c.regions)*64 {
			t.Errorf("%s: arena of %d bytes, expected %d", c.name, pl.arena, c.regions*64)
		}
		if err := checkArena(&compute.Plan{Calls: pl.calls, Bytes: [compute.NumSpaces]int64{compute.Weights: 64, compute.Arena: pl.arena}}); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestDump compares the listing of a small model's plans with the one a person has read.
func TestDump(t *testing.T) {
	cfg := Config{
		Model: tiny(1, true), Batch: 1, Seq: 4, Checkpointing: true,
		Adapters: []Adapter{{Module: "transformer.h.0.attn.c_attn", Rank: 2, Scale: 2, Dropout: .5}},
		Train: func(p string) bool {
			return strings.Contains(p, "lora") || p == "transformer.wte.weight" || p == "transformer.ln_f.bias"
		},
		Group: func(_ string, shape []int) int { return 2 - len(shape) },
	}
	cfg.Model.Layers = 2
	tr, err := Build(cfg, hostDevice{kernels: ref.Kernels{}, work: 64})
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := tr.Dump(&text); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", "tiny.plan")
	if *update {
		if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(text.String(), "\n")); diff != "" {
		t.Errorf("the plan changed (go test -update after reading):\n%s", diff)
	}
}

// TestHash: the hash tells computations apart and nothing else.
func TestHash(t *testing.T) {
	base := Config{Model: tiny(1, true), Batch: 2, Seq: 4}
	hash := func(dev compute.Device, change func(*Config)) string {
		cfg := base
		change(&cfg)
		tr, err := Build(cfg, dev)
		if err != nil {
			t.Fatal(err)
		}
		return tr.Hash()
	}
	dev := hostDevice{kernels: ref.Kernels{}}
	want := hash(dev, func(*Config) {})
	for name, change := range map[string]func(*Config){
		"nothing": func(*Config) {}, "checkpointing": func(c *Config) { c.Checkpointing = true },
	} {
		if got := hash(hostDevice{kernels: ref.Kernels{}, work: 4096}, change); got != want {
			t.Errorf("%s changes the hash", name)
		}
	}
	seen := map[string]string{want: "base", hash(hostDevice{kernels: ref.Kernels{}, folds: true}, func(*Config) {}): "folded sums"}
	if len(seen) != 2 {
		t.Error("folding sums, which changes bits, does not change the hash")
	}
	for name, change := range map[string]func(*Config){
		"batch": func(c *Config) { c.Batch = 3 }, "sequence": func(c *Config) { c.Seq = 5 },
		"epsilon": func(c *Config) { c.Model.Epsilon = 1e-6 }, "layers": func(c *Config) { c.Model.Layers = 2 },
		"vocabulary": func(c *Config) { c.Model.Vocab-- }, "dropout": func(c *Config) { c.ModelDropout = true },
		"adapters":      func(c *Config) { c.Adapters = allLinear(c.Model, 0) },
		"adapter scale": func(c *Config) { c.Adapters = allLinear(c.Model, 0); c.Adapters[0].Scale = 3 },
		"trained":       func(c *Config) { c.Train = func(p string) bool { return p != "transformer.wpe.weight" } },
		"groups":        func(c *Config) { c.Group = func(_ string, s []int) int { return len(s) - 1 } },
		"type":          func(c *Config) { c.DType = compute.F64 },
		"precision":     func(c *Config) { c.Precision = BF16 },
	} {
		h := hash(dev, change)
		if other, ok := seen[h]; ok {
			t.Errorf("%s has the hash of %s", name, other)
		}
		seen[h] = name
	}
}

func TestBuildErrors(t *testing.T) {
	for _, c := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.Batch = 0 }, "batch of 0 sequences of 4 tokens, expected at least 1 of each"},
		{func(c *Config) { c.Seq = 10 }, "sequences of 10 tokens, expected at most the model's 9 positions"},
		{func(c *Config) { c.Precision = "fp8" }, `precision "fp8", expected float32, bf16 or float16`},
		{func(c *Config) { c.Precision, c.DType = BF16, compute.F64 }, "precision bf16 with floats of type f64, expected f32"},
		{func(c *Config) { c.Model.Heads = 5 }, "n_head: 5, expected a divisor of n_embd 12"},
		{func(c *Config) { c.DType = compute.I32 }, "floats of type i32"},
		{func(c *Config) { c.Train = func(string) bool { return false } }, "no parameter is trained"},
		{func(c *Config) { c.Group = func(string, []int) int { return -1 } }, "group -1 of parameter transformer.wte.weight, expected 0 to 1023"},
		{func(c *Config) { c.Adapters = []Adapter{{Module: "no.such", Rank: 1}} }, `no linear module "no.such"`},
		{func(c *Config) { c.Adapters = []Adapter{{Module: "transformer.ln_f", Rank: 1}} }, `no linear module "transformer.ln_f"`},
		{func(c *Config) { c.Adapters = []Adapter{{Module: "transformer.wte", Rank: 1}} }, "transformer.wte is not a linear module of the model's blocks"},
		{func(c *Config) { c.Adapters = allLinear(c.Model, 0); c.Adapters[2].Rank = 0 }, "rank 0, expected at least 1"},
		{func(c *Config) { c.Adapters = allLinear(c.Model, 1) }, "dropout 1, expected at least 0 and below 1"},
		{func(c *Config) { c.Adapters = append(allLinear(c.Model, 0), allLinear(c.Model, 0)[1]) }, "c_proj is named twice"},
	} {
		cfg := Config{Model: tiny(1, true), Batch: 1, Seq: 4}
		c.change(&cfg)
		if _, err := Build(cfg, hostDevice{kernels: ref.Kernels{}}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, expected %q", err, c.want)
		}
	}
}

// TestPanicsBecomeErrors: whatever Gorgonia, or a model, does, Build returns.
func TestPanicsBecomeErrors(t *testing.T) {
	net := network{params: []tensorSpec{{"w", []int{2, 2}}}, forward: func(*builder) { panic("boom") }}
	_, err := build(Config{Batch: 1, Seq: 1, DType: compute.F32}, net, hostDevice{})
	if err == nil || !strings.Contains(err.Error(), "boom") {
		t.Errorf("error %v, expected the panic's text", err)
	}
}

// TestModelErrors: a builder keeps its first error, ignores what follows, and Build reports it.
func TestModelErrors(t *testing.T) {
	params := []tensorSpec{{"wte", []int{5, 4}}, {"wpe", []int{3, 4}}, {"lin.weight", []int{4, 6}}}
	for _, c := range []struct {
		name    string
		forward func(*builder)
		want    string
	}{
		{"no head", func(b *builder) { b.Embed("wte", "wpe") }, "the model has no head"},
		{"two heads", func(b *builder) { x := b.Embed("wte", "wpe"); b.Head(x, "wte"); b.Head(x, "wte") }, "a second head, of wte"},
		{"unknown table", func(b *builder) {
			x := b.Embed("wte", "nobody")
			x = b.LayerNorm(b.Linear(x, "lin"), "norm", 1e-5)
			x = b.Attention(b.Activate(x, compute.ReLU), 0, model.AttentionSpec{Heads: 1, KVHeads: 1, HeadDim: 4})
			b.Head(b.Dropout(b.Add(x, x), .5), "wte")
		}, `no parameter "nobody"`},
		{"unknown norm", func(b *builder) { b.Head(b.LayerNorm(b.Embed("wte", "wpe"), "norm", 1e-5), "wte") }, `no parameter "norm.`},
		{"shape", func(b *builder) { b.Head(b.Linear(b.Embed("wte", "wpe"), "lin"), "wte") }, "lin: Linear: w has shape [4 6], expected [4 4]"},
		{"shapes of a sum", func(b *builder) { x := b.Embed("wte", "wpe"); b.Head(b.Add(x, b.params["wte"]), "wte") }, "residual: Add: second input has shape [5 4], expected [3 4]"},
		{"nothing before the head", func(b *builder) { b.Head(nil, "wte") }, "x is missing"},
		{"untrained use", func(b *builder) { b.Head(b.Embed("wte", "wpe"), "wte") }, "parameter lin.weight is trained, but the model does not use it"},
	} {
		_, err := build(Config{Batch: 1, Seq: 3, DType: compute.F32}, network{params: params, vocab: 5, forward: c.forward}, hostDevice{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, expected %q", c.name, err, c.want)
		}
	}
}

// TestTapeNeedsKernels: a graph that was made to be planned refuses to be executed.
func TestTapeNeedsKernels(t *testing.T) {
	cfg := variants()[0].cfg
	b, _, err := differentiate(&cfg, variants()[0].network(t), false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.result.Op().Do(); !errors.Is(err, errNoKernels) {
		t.Errorf("error %v", err)
	}
}

func TestRunErrors(t *testing.T) {
	tr, err := Build(Config{Model: tiny(1, true), Batch: 1, Seq: 4, Train: func(p string) bool { return p != "transformer.wpe.weight" }}, hostDevice{kernels: ref.Kernels{}})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	good := Batch{IDs: []int32{1, 2, 3, 4}, Targets: []int32{2, 3, 4, -1}}
	if _, err := tr.MicroStep(ctx, good, 1, testKey); !errors.Is(err, errNotAllocated) {
		t.Errorf("error %v", err)
	}
	if err := tr.Alloc(); err != nil {
		t.Fatal(err)
	}
	if _, err := tr.MicroStep(ctx, good, 1, testKey); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		change func(*Batch)
		want   string
	}{
		{func(b *Batch) { b.IDs = b.IDs[:3] }, "ids has 3 tokens, expected 1 sequences of 4"},
		{func(b *Batch) { b.IDs = []int32{0, 0, 23, 0} }, "ids[2] is 23, expected 0 to 22"},
		{func(b *Batch) { b.Targets = []int32{0, 21, 0, 0} }, "targets[1] is 21, expected -1 to 20"},
		{func(b *Batch) { b.Positions = []int32{0, 1, 2, 9} }, "positions[3] is 9, expected 0 to 8"},
		{func(b *Batch) { b.DocStart = []int32{0, 2, 0, 0} }, "docStart[1] is 2, expected 0 to 1"},
	} {
		b := good
		c.change(&b)
		if _, err := tr.MicroStep(ctx, b, 1, testKey); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, expected %q", err, c.want)
		}
	}
	stopped, stop := context.WithCancel(ctx)
	stop()
	if _, err := tr.NLL(stopped, good); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, expected that of the context", err)
	}
	if err := tr.SetParam("transformer.wpe.weight", make([]float32, 3)); err == nil || !strings.Contains(err.Error(), "3 elements, expected 108") {
		t.Errorf("error %v", err)
	}
	if _, err := tr.Grad("transformer.wpe.weight"); err == nil || !strings.Contains(err.Error(), "frozen") {
		t.Errorf("error %v", err)
	}
	if _, err := tr.Param("nobody"); err == nil || !strings.Contains(err.Error(), `no parameter "nobody"`) {
		t.Errorf("error %v", err)
	}
	if err := tr.Update(ctx, 0, 1, Hyper{}); err == nil {
		t.Error("step 0 was taken")
	}
	if err := tr.Update(ctx, 1, 1, Hyper{}, Hyper{}); err == nil {
		t.Error("settings of two groups were taken for one")
	}
}

// TestUpdateGroups: each group moves by its own settings, and moments can be saved and restored.
func TestUpdateGroups(t *testing.T) {
	ctx := context.Background()
	cfg := Config{Model: tiny(1, true), Batch: 1, Seq: 4, Group: func(_ string, shape []int) int { return 2 - len(shape) }}
	tr, err := Build(cfg, hostDevice{kernels: ref.Kernels{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Alloc(); err != nil {
		t.Fatal(err)
	}
	weights := model.Init(cfg.Model, 1)
	for w := range weights.All() {
		if err := tr.SetParam(w.Name, w.Data); err != nil {
			t.Fatal(err)
		}
	}
	// No gradient: only the weight decay of matrices moves anything.
	decay := Hyper{LearningRate: .5, Beta1: .9, Beta2: .99, Epsilon: 1e-8, WeightDecay: .5}
	still := decay
	still.WeightDecay = 0
	if err := tr.Update(ctx, 1, 1, decay, still); err != nil {
		t.Fatal(err)
	}
	for w := range weights.All() {
		got, err := tr.Param(w.Name)
		if err != nil {
			t.Fatal(err)
		}
		factor := float32(1)
		if len(w.Shape) == 2 {
			factor = .75
		}
		for i, x := range w.Data {
			if got[i] != x*factor && math.Abs(float64(got[i]-x*factor)) > 1e-7 {
				t.Fatalf("%s[%d] is %v, expected %v times %v", w.Name, i, got[i], factor, x)
			}
		}
	}
	const name = "transformer.ln_f.weight"
	m, v := make([]float32, 12), make([]float32, 12)
	for i := range m {
		m[i], v[i] = float32(i), float32(2*i)
	}
	if err := tr.SetMoments(name, m, v); err != nil {
		t.Fatal(err)
	}
	gotM, gotV, err := tr.Moments(name)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(gotM, m) || !slices.Equal(gotV, v) {
		t.Errorf("moments %v, %v", gotM, gotV)
	}
}
