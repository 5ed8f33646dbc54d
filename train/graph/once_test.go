package graph

import (
	"context"
	"fmt"
	"math"
	"slices"
	"testing"

	"autodev/compute"
	"autodev/compute/cpu"
	"autodev/internal/rng"
)

// TestOnce: gradients that live in the arena have the bits of those with memory of their own, over several steps, and so have
// weights and moments after them.
func TestOnce(t *testing.T) {
	ctx := context.Background()
	dev := cpu.New(cpu.Options{Threads: 2})
	defer dev.Close()
	for _, v := range variants() {
		net := v.network(t)
		values := randomParams(net, 1)
		for _, v.cfg.Checkpointing = range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, checkpointing %v", v.name, v.cfg.Checkpointing), func(t *testing.T) {
				cfg := v.cfg
				cfg.Precision = Float32
				apart := start(t, cfg, net, dev, values)
				cfg.Once = true
				once := start(t, cfg, net, dev, values)
				if u := once.Usage(); u.Gradients != 0 {
					t.Errorf("%d bytes of gradients of their own", u.Gradients)
				}
				whole := once.step
				whole.Calls = slices.Concat(once.step.Calls, once.norm.Calls, once.update.Calls)
				if err := checkArena(&whole); err != nil {
					t.Error(err)
				}
				for n := 1; n <= 3; n++ {
					batch := randomBatch(rng.New(uint64(n), "batch"), cfg.Batch, cfg.Seq, cfg.Model.Vocab)
					sameBits(t, fmt.Sprintf("step %d", n), accumulated(t, once, batch), planned(t, apart, batch))
					var norms [2]float64
					for i, tr := range []*Training{apart, once} {
						var err error
						if norms[i], err = tr.GradNorm(ctx); err != nil {
							t.Fatal(err)
						}
						if err := tr.Update(ctx, n, 0.5, Hyper{LearningRate: 1e-2, Beta1: .9, Beta2: .95, Epsilon: 1e-8, WeightDecay: .1}); err != nil {
							t.Fatal(err)
						}
						if _, err := tr.NLL(ctx, batch); err != nil { // writes over the gradients
							t.Fatal(err)
						}
					}
					if math.Abs(norms[0]-norms[1]) > 1e-12*norms[0] {
						t.Errorf("step %d: norm %v, expected %v", n, norms[1], norms[0])
					}
				}
				for _, p := range once.Params() {
					got, gotM, gotV, ok := once.View(p.Name)
					want, wantM, wantV, wantOK := apart.View(p.Name)
					if !ok || !wantOK || !slices.Equal(got, want) || !slices.Equal(gotM, wantM) || !slices.Equal(gotV, wantV) || p.Trained != (gotM != nil) {
						t.Errorf("%s differs after the steps", p.Name)
					}
				}
			})
		}
	}
}

// TestOnceMemory: gradients take the place of activations.
func TestOnceMemory(t *testing.T) {
	c := tiny(1, true)
	c.Layers, c.Embed, c.Inner = 6, 48, 192
	usage := func(once bool) Usage {
		tr, err := Build(Config{Model: c, Batch: 4, Seq: 9, Once: once}, hostDevice{})
		if err != nil {
			t.Fatal(err)
		}
		return tr.Usage()
	}
	apart, once := usage(false), usage(true)
	if saved := apart.Total() - once.Total(); saved < apart.Gradients/2 {
		t.Errorf("%d bytes less of %d of gradients and %d of activations", saved, apart.Gradients, apart.Arena)
	}
	if once.Plain.Bytes < apart.Gradients || once.Moments != apart.Moments || once.Weights != apart.Weights {
		t.Errorf("%+v, apart %+v", once, apart)
	}
}

// A gradient must be zeroed before, and only before, the first call that adds to it.
func TestGradientsAreZeroedOnce(t *testing.T) {
	g := &value{buf: compute.Buffer{Space: compute.Arena, DType: compute.F32, Shape: []int{4}}, grad: true, name: "d"}
	fixed := &value{buf: compute.Buffer{Space: compute.Weights, DType: compute.F32, Shape: []int{4, 4}}, fixed: true}
	add := &instr{call: compute.Call{Kernel: compute.BiasGrad}, in: []*value{fixed}, out: []*value{g}}
	zero := &instr{call: compute.Call{Kernel: compute.Zero}, out: []*value{g}}
	for name, c := range map[string]struct {
		code []*instr
		ok   bool
	}{
		"as made": {zeroed([]*instr{add, add}), true}, "never": {[]*instr{add}, false},
		"late": {[]*instr{add, zero}, false}, "twice": {[]*instr{zero, add, zero, add}, false},
	} {
		if err := (&program{code: c.code}).check(); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
