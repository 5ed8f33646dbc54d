package graph

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"autodev/compute"
	"autodev/compute/cpu"
	"autodev/compute/cuda"
	"autodev/compute/cuda/cudatest"
	"autodev/internal/rng"
)

// openCUDA returns a device whose arena begins as NaNs.
func openCUDA(t *testing.T, cudaPath, cublasPath string) *cuda.Device {
	t.Helper()
	d, err := cuda.New(cuda.Options{CUDA: cudaPath, CublasLt: cublasPath, Poison: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return d
}

// learned is what a run of some steps leaves: losses and gradient norms of the steps, the tokens' losses before and after, the weights.
type learned struct {
	losses, norms []float64
	before, after []float32
	params        map[string][]float32
}

const micros = 2 // micro-batches of a step without Config.Once

// learn trains for some steps on the same few batches.
func learn(t *testing.T, tr *Training, steps int) learned {
	t.Helper()
	ctx, cfg := t.Context(), tr.Config()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var l learned
	var err error
	held := randomBatch(rng.New(99, "batch"), cfg.Batch, cfg.Seq, cfg.Model.Vocab)
	l.before, err = tr.NLL(ctx, held)
	check(err)
	hyper := Hyper{LearningRate: 1e-2, Beta1: .9, Beta2: .95, Epsilon: 1e-8, WeightDecay: .1}
	up := 1.0 // of the loss
	if cfg.Precision == Float16 {
		up = 1 << 16
	}
	for n := 1; n <= steps; n++ {
		check(tr.ZeroGrads())
		loss := 0.0
		count := micros
		if cfg.Once {
			count = 1
		}
		for m := range count {
			one, err := tr.MicroStep(ctx, randomBatch(rng.New(uint64(m), "batch"), cfg.Batch, cfg.Seq, cfg.Model.Vocab), float32(.05*up), [2]int32{int32(n), int32(m)})
			check(err)
			loss += one / up
		}
		norm, err := tr.GradNorm(ctx)
		check(err)
		norm /= up
		check(tr.Update(ctx, n, min(1, 1/norm)/up, slices.Repeat([]Hyper{hyper}, len(tr.Buffers().Hyper))...))
		l.losses, l.norms = append(l.losses, loss), append(l.norms, norm)
	}
	l.after, err = tr.NLL(ctx, held)
	check(err)
	l.params = map[string][]float32{}
	for _, p := range tr.Params() {
		l.params[p.Name], err = tr.Param(p.Name)
		check(err)
	}
	return l
}

// apart returns the largest distances of two runs: of losses, steps' and tokens', and of gradient norms, which move more; relative to
// the second's.
func (l learned) apart(o learned) (losses, norms float64) {
	see := func(worst *float64, a, b float64) {
		d := math.Abs(a-b) / (math.Abs(b) + 0.1)
		if d != d {
			d = math.Inf(1)
		}
		*worst = max(*worst, d)
	}
	for i := range o.losses {
		see(&losses, l.losses[i], o.losses[i])
		see(&norms, l.norms[i], o.norms[i])
	}
	for i := range o.after {
		see(&losses, float64(l.before[i]), float64(o.before[i]))
		see(&losses, float64(l.after[i]), float64(o.after[i]))
	}
	return losses, norms
}

func (l learned) same(o learned) bool {
	for name, p := range o.params {
		if !slices.Equal(l.params[name], p) {
			return false
		}
	}
	return slices.Equal(l.losses, o.losses) && slices.Equal(l.norms, o.norms) && slices.Equal(l.before, o.before) && slices.Equal(l.after, o.after)
}

// cudaVariants are the ways to train that the device's runs are compared in.
func cudaVariants() []variant {
	small := func(kv int) Config {
		c := Config{Model: tiny(kv, true), Batch: 2, Seq: 9, DType: compute.F32, Precision: Float32}
		c.Model.Layers, c.Model.Embed, c.Model.Heads, c.Model.Inner = 2, 16, 2, 32
		c.Model.EmbeddingDropout, c.Model.AttentionDropout, c.Model.ResidualDropout = 0, 0, 0
		return c
	}
	full, sparse, lora, dropped := small(1), small(2), small(1), small(1)
	sparse.Checkpointing, sparse.Once = true, true
	sparse.Model.Tied = false
	lora.Adapters = allLinear(lora.Model, 0)
	lora.Checkpointing = true
	dropped.Adapters = allLinear(dropped.Model, .25)
	dropped.ModelDropout, dropped.Once = true, true
	dropped.Model.EmbeddingDropout, dropped.Model.AttentionDropout, dropped.Model.ResidualDropout = .1, .2, .1
	dropped.Model.Activation = compute.GELUErf
	return []variant{{"full, accumulated", full}, {"full, checkpointed, once", sparse}, {"lora, checkpointed, accumulated", lora}, {"lora, dropout, once", dropped}}
}

// learns compares a run in a short type with one in float32. The likelihoods of the first weights are off by what rounding makes of them. Later weights
// part as step follows step, as chance has it: the run must have learned as much (TestCUDAGradients compares gradients at the same weights).
func (l learned) learns(t *testing.T, o learned, tolerance float64) {
	t.Helper()
	for i, want := range o.before {
		if got := l.before[i]; !(math.Abs(float64(got-want)) <= tolerance*(math.Abs(float64(want))+1)) {
			t.Errorf("token %d: likelihood %v before the first step, expected %v", i, got, want)
		}
	}
	drop := func(l learned) float64 { return l.losses[0] - l.losses[len(l.losses)-1] }
	if got, want := drop(l), drop(o); !(math.Abs(got-want) <= 0.3*math.Abs(want)) {
		t.Errorf("the loss sank by %v, expected about %v: losses %v and %v", got, want, l.losses, o.losses)
	}
}

// TestCUDALearnsAsCPU: training plans run on the device as they do on the CPU, to rounding in float32, and learn as much in mixed
// storage, with the same bits in every run and under every schedule; evaluation too. Float16 runs on what poses as a V100.
func TestCUDALearnsAsCPU(t *testing.T) {
	dev := cpu.New(cpu.Options{Threads: 1})
	t.Cleanup(dev.Close)
	const steps = 10
	for _, v := range cudaVariants() {
		for precision, tolerance := range map[Precision]float64{Float32: 2e-4, BF16: 0.03, Float16: 0.004} {
			cfg, capability := v.cfg, int64(0)
			if precision != Float32 {
				cfg = mixedAs(cfg, precision)
			}
			if precision == Float16 {
				capability = 70
			}
			t.Run(fmt.Sprint(v.name, ", ", cfg.storage()), func(t *testing.T) {
				net := v.network(t)
				values := randomParams(net, 1)
				want := learn(t, start(t, v.cfg, net, dev, values), steps)
				if last := want.losses[steps-1]; last > 0.9*want.losses[0] && !cfg.ModelDropout {
					t.Fatalf("the CPU learns nothing: losses %v", want.losses)
				}
				var first *learned
				cudatest.SeedsAs(t, capability, func(t *testing.T, cudaPath, cublasPath string) {
					if first != nil && !v.cfg.Once {
						t.Skip("other schedules run the other variants")
					}
					d := openCUDA(t, cudaPath, cublasPath)
					n := steps
					if first != nil {
						n = 2 // the schedule changes nothing
					}
					got := learn(t, start(t, cfg, net, d, values), n)
					if first == nil {
						first = &got
						if precision != Float32 {
							got.learns(t, want, tolerance)
						} else if losses, norms := got.apart(want); losses > tolerance || norms > 4*tolerance {
							t.Errorf("losses part by %v, expected at most %v, norms by %v: losses %v and %v, norms %v and %v", losses, tolerance, norms, got.losses, want.losses, got.norms, want.norms)
						} else {
							t.Logf("losses part by %.2g, norms by %.2g", losses, norms)
						}
						if again := learn(t, start(t, cfg, net, d, values), n); !again.same(got) {
							t.Error("a second run has other bits")
						}
						return
					}
					if !slices.Equal(got.losses, first.losses[:n]) || !slices.Equal(got.norms, first.norms[:n]) || !slices.Equal(got.before, first.before) {
						t.Error("other bits under this schedule")
					}
				})
			})
		}
	}
}

// TestCUDACheckpointing: computing a block again gives the bits that keeping it gives, or some of it.
func TestCUDACheckpointing(t *testing.T) {
	l := cudatest.Library(t, "")
	d := openCUDA(t, l.CUDA, l.CublasLt)
	for _, v := range cudaVariants() {
		cfg := mixed(v.cfg)
		net := v.network(t)
		values := randomParams(net, 1)
		cfg.Checkpointing = false
		plain := start(t, cfg, net, d, values)
		want := learn(t, plain, 3)
		cfg.Checkpointing = true
		u := plain.Usage()
		for _, cfg.Memory = range []int64{0, u.Total() - (u.Plain.AllPlans-u.Checkpointed.AllPlans)/2} {
			if !learn(t, start(t, cfg, net, d, values), 3).same(want) {
				t.Errorf("%s: other bits with gradient checkpointing in %d bytes", v.name, cfg.Memory)
			}
		}
	}
}

// misplaced is a device that changes plans before it compiles them.
type misplaced struct {
	*cuda.Device
	change func(p *compute.Plan)
}

func (m misplaced) Compile(p *compute.Plan, mem compute.Memory) (compute.Program, error) {
	q := &compute.Plan{Calls: slices.Clone(p.Calls), Bytes: p.Bytes}
	for i := range q.Calls {
		q.Calls[i].In, q.Calls[i].Out = slices.Clone(q.Calls[i].In), slices.Clone(q.Calls[i].Out)
	}
	m.change(q)
	return m.Device.Compile(q, mem)
}

// TestCUDAPlantedBugs: calls in another order, or an operand at another offset, show in the comparison with the CPU.
func TestCUDAPlantedBugs(t *testing.T) {
	dev := cpu.New(cpu.Options{Threads: 1})
	t.Cleanup(dev.Close)
	l := cudatest.Library(t, "")
	v := cudaVariants()[0]
	net := v.network(t)
	values := randomParams(net, 1)
	const steps = 3
	want := learn(t, start(t, v.cfg, net, dev, values), steps)
	find := func(p *compute.Plan, k compute.Kernel, name string) int {
		return slices.IndexFunc(p.Calls, func(c compute.Call) bool { return c.Kernel == k && strings.Contains(c.Name, name) })
	}
	done := 0
	for name, change := range map[string]func(p *compute.Plan){
		"an activation before its product": func(p *compute.Plan) {
			if i := find(p, compute.Activation, ""); i > 0 {
				p.Calls[i-1], p.Calls[i] = p.Calls[i], p.Calls[i-1]
				done++
			}
		},
		"an optimiser's step with the neighbour's gradient": func(p *compute.Plan) {
			for i := range p.Calls {
				if c := &p.Calls[i]; c.Kernel == compute.AdamW && c.In[0].Offset > 0 {
					c.In[0].Offset -= compute.Align
					done++
					return
				}
			}
		},
		"a gradient that is left out": func(p *compute.Plan) {
			if i := find(p, compute.BiasGrad, ""); i >= 0 {
				p.Calls = slices.Delete(p.Calls, i, i+1)
				done++
			}
		},
		"targets that are ids": func(p *compute.Plan) {
			if i := find(p, compute.CrossEntropy, ""); i >= 0 {
				p.Calls[i].In[2] = p.Calls[find(p, compute.Embed, "")].In[2]
				done++
			}
		},
	} {
		before := done
		d := misplaced{openCUDA(t, l.CUDA, l.CublasLt), change}
		tr := start(t, v.cfg, net, d, values)
		if done == before {
			t.Fatalf("%s: nothing was changed", name)
		}
		if losses, norms := learn(t, tr, steps).apart(want); losses < 2e-3 && norms < 8e-3 {
			t.Errorf("%s: losses part by %v only, norms by %v", name, losses, norms)
		}
	}
}

// TestCUDAAllocatesThePlan: the device's memory holds what was planned without it, to the byte, and a run asks for no more.
func TestCUDAAllocatesThePlan(t *testing.T) {
	l := cudatest.Library(t, "")
	d := openCUDA(t, l.CUDA, l.CublasLt)
	free := func() (n int64) {
		err := d.Do(func(q *cuda.Queue) (err error) {
			n, _, err = q.MemInfo()
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, v := range cudaVariants() {
		cfg := mixed(v.cfg)
		net := v.network(t)
		before := free()
		tr, err := build(cfg, net, d)
		if err != nil {
			t.Fatal(err)
		}
		if err := tr.Alloc(); err != nil {
			t.Fatal(err)
		}
		const words = 4 * 64 // of the checks of ids, four plans
		if taken, planned := before-free(), tr.Usage().Total(); taken < planned || taken > planned+words {
			t.Errorf("%s: %d bytes are taken, planned %d", v.name, taken, planned)
		}
		allocated := free()
		for _, p := range tr.Params() {
			if err := tr.SetParam(p.Name, convert[float32](randomParams(net, 1)[p.Name])); err != nil {
				t.Fatal(err)
			}
		}
		learn(t, tr, 2)
		if now := free(); now != allocated {
			t.Errorf("%s: a run took %d bytes more", v.name, allocated-now)
		}
		if err := tr.Free(); err != nil {
			t.Fatal(err)
		}
		if after := free(); after != before {
			t.Errorf("%s: %d bytes were not given back", v.name, before-after)
		}
	}
}

// TestCUDAStops: a step of the device ends with its context's error, and goes on afterwards as if nothing had been.
func TestCUDAStops(t *testing.T) {
	l := cudatest.Library(t, "")
	d := openCUDA(t, l.CUDA, l.CublasLt)
	v := cudaVariants()[0]
	net := v.network(t)
	tr := start(t, v.cfg, net, d, randomParams(net, 1))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	batch := randomBatch(rng.New(1, "batch"), v.cfg.Batch, v.cfg.Seq, v.cfg.Model.Vocab)
	if _, err := tr.MicroStep(ctx, batch, .05, testKey); err == nil || !strings.Contains(err.Error(), context.Canceled.Error()) {
		t.Errorf("error %v", err)
	}
	if _, err := tr.MicroStep(t.Context(), batch, .05, testKey); err != nil {
		t.Error(err)
	}
}

// TestCUDAFuses: in training the gradients of products take GELU's gradient with them, in evaluation products GELU.
func TestCUDAFuses(t *testing.T) {
	l := cudatest.Library(t, "")
	d := openCUDA(t, l.CUDA, l.CublasLt)
	for i := range 4 {
		v, checkpointing := cudaVariants()[i/2*2], i%2 > 0 // everything is trained, or adapters are
		net := v.network(t)
		cfg := mixed(v.cfg)
		cfg.Checkpointing = checkpointing
		tr := start(t, cfg, net, d, randomParams(net, 1))
		learn(t, tr, 1) // there are tokens
		for program, want := range map[compute.Program]string{tr.run.step: "LinearGradX with ActivationGrad", tr.run.eval: "Linear with Activation"} {
			times, err := program.(*cuda.Program).Profile(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, c := range times {
				if strings.HasSuffix(c.Name, ": "+want) {
					n++
				}
			}
			if n != cfg.Model.Layers {
				t.Errorf("%s: checkpointing %v: %d times %s, expected one a layer", v.name, checkpointing, n, want)
			}
		}
	}
}
