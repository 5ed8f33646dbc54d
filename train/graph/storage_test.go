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
	"autodev/compute/ref"
	"autodev/internal/rng"
)

func mixed(cfg Config) Config { return mixedAs(cfg, BF16) }

func mixedAs(cfg Config, p Precision) Config {
	cfg.DType, cfg.Precision, cfg.Storage = compute.F32, p, compute.Mixed(p.Operands())
	return cfg
}

// TestMixedTypes: every operand of every call has the type of what it is.
func TestMixedTypes(t *testing.T) {
	for _, precision := range []Precision{BF16, Float16} {
		t.Run(string(precision), func(t *testing.T) { testMixedTypes(t, precision) })
	}
}

func testMixedTypes(t *testing.T, precision Precision) {
	for _, v := range variants() {
		for _, v.cfg.Once = range []bool{false, true} {
			tr, err := build(mixedAs(v.cfg, precision), v.network(t), hostDevice{kernels: ref.Kernels{}})
			if err != nil {
				t.Fatal(err)
			}
			exact := map[compute.Space]bool{compute.Grads: true, compute.Moments: true, compute.Masters: true, compute.Inputs: true, compute.Outputs: true}
			for _, p := range tr.Plans() {
				for _, c := range p.Plan.Calls {
					sum := c.Kernel == compute.Zero || c.Kernel == compute.SumSquares || c.Kernel == compute.AdamW
					for side, buffers := range [][]compute.Buffer{c.In, c.Out} {
						for i, b := range buffers {
							if b.Space == compute.None || b.DType == compute.I32 {
								continue
							}
							want := precision.Operands()
							switch {
							case b.Space == compute.Weights:
							case p.Name == "norm" && side == 1:
								want = compute.F64
							case exact[b.Space], sum, side == 1 && accumulates(c.Kernel, i), c.Kernel == compute.LayerNormGrad && side == 1 && i > 0:
								want = compute.F32
							}
							if b.DType != want {
								t.Errorf("%s, once %v: %v %s: operand %d of side %d in %v is %v, expected %v", v.name, v.cfg.Once, c.Kernel, c.Name, i, side, b.Space, b.DType, want)
							}
						}
					}
				}
				if err := checkArena(p.Plan); err != nil && p.Name != "norm" && p.Name != "update" {
					t.Errorf("%s: %s: %v", v.name, p.Name, err)
				}
			}
		}
	}
}

// TestMixedTraining: plans with rounded weights and activations learn as those in float32 do, to the short type's precision; every
// weight is its master rounded, and checkpointing changes no bit.
func TestMixedTraining(t *testing.T) {
	t.Run("bf16", func(t *testing.T) { testMixedTraining(t, BF16, .02, .15) })
	t.Run("float16", func(t *testing.T) { testMixedTraining(t, Float16, .0025, .02) })
}

func testMixedTraining(t *testing.T, precision Precision, looseLoss, looseGradient float64) {
	ctx := context.Background()
	hyper := Hyper{LearningRate: 1e-2, Beta1: .9, Beta2: .95, Epsilon: 1e-8, WeightDecay: .1}
	dev := hostDevice{kernels: ref.Kernels{}, work: 64}
	mixed := func(cfg Config) Config { return mixedAs(cfg, precision) }
	dtype := precision.Operands()
	for _, v := range variants() {
		t.Run(v.name, func(t *testing.T) {
			net := v.network(t)
			cfg := v.cfg
			cfg.DType, cfg.Precision, cfg.Once = compute.F32, Float32, false
			values := randomParams(net, 1)
			full := start(t, cfg, net, dev, values)
			short := start(t, mixed(cfg), net, dev, values)
			again := mixed(cfg)
			again.Checkpointing, again.Once = true, true
			sparse := start(t, again, net, dev, values)
			if full.Hash() == short.Hash() || short.Hash() == sparse.Hash() {
				t.Error("plans of another storage, or with other calls, have the same hash")
			}
			for n := 1; n <= 4; n++ {
				batch := randomBatch(rng.New(uint64(n), "batch"), cfg.Batch, cfg.Seq, cfg.Model.Vocab)
				var losses [3]float64
				var grads [3]map[string][]float32
				for i, tr := range []*Training{full, short, sparse} {
					if err := tr.ZeroGrads(); err != nil {
						t.Fatal(err)
					}
					var err error
					if losses[i], err = tr.MicroStep(ctx, batch, .1, testKey); err != nil {
						t.Fatal(err)
					}
					grads[i] = map[string][]float32{}
					for _, p := range tr.Params() {
						if p.Trained {
							if grads[i][p.Name], err = tr.Grad(p.Name); err != nil {
								t.Fatal(err)
							}
						}
					}
					if _, err := tr.GradNorm(ctx); err != nil {
						t.Fatal(err)
					}
					if err := tr.Update(ctx, n, 1, slices.Repeat([]Hyper{hyper}, len(tr.Buffers().Hyper))...); err != nil {
						t.Fatal(err)
					}
				}
				if math.Abs(losses[1]-losses[0]) > looseLoss*math.Abs(losses[0]) {
					t.Errorf("step %d: loss %v, in float32 %v", n, losses[1], losses[0])
				}
				if losses[1] != losses[2] {
					t.Errorf("step %d: loss %v with checkpointing, expected %v", n, losses[2], losses[1])
				}
				for name, g := range grads[1] {
					if !slices.Equal(g, grads[2][name]) {
						t.Errorf("step %d: gradient of %s differs with checkpointing", n, name)
					}
					if n > 1 {
						continue // the weights have parted
					}
					if distance := relative(g, grads[0][name]); distance > looseGradient {
						t.Errorf("gradient of %s is off by %v of its norm", name, distance)
					}
				}
			}
			for _, p := range short.Params() {
				weights, err := short.Param(p.Name)
				if err != nil {
					t.Fatal(err)
				}
				read, err := short.read(p.Weight)
				if err != nil {
					t.Fatal(err)
				}
				if p.Trained != (p.Master.Space == compute.Masters) || p.Weight.DType != dtype {
					t.Errorf("%s: trained %v, kept as %v with master %+v", p.Name, p.Trained, p.Weight.DType, p.Master)
				}
				rounded := compute.FromShort(dtype, compute.ToShort(dtype, weights))
				if !slices.Equal(read, rounded) {
					t.Errorf("%s: what kernels read is not the master rounded", p.Name)
				}
				if p.Trained && slices.Equal(weights, rounded) && len(weights) > 8 {
					t.Errorf("%s: the master is rounded too", p.Name)
				}
			}
		})
	}
}

// relative returns |a−b| / |b|.
func relative(a, b []float32) float64 {
	var d, n float64
	for i := range a {
		d += (float64(a[i]) - float64(b[i])) * (float64(a[i]) - float64(b[i]))
		n += float64(b[i]) * float64(b[i])
	}
	if n == 0 {
		return math.Sqrt(d)
	}
	return math.Sqrt(d / n)
}

// TestUsage: what the plans say they need is what the device is asked for, to the byte, with each way of keeping values.
func TestUsage(t *testing.T) {
	for _, v := range variants() {
		for _, short := range []bool{false, true} {
			for _, once := range []bool{false, true} {
				for _, checkpointing := range []bool{false, true} {
					cfg := v.cfg
					if short {
						cfg = mixed(cfg)
					}
					cfg.Once, cfg.Checkpointing = once, checkpointing
					tr, err := build(cfg, v.network(t), hostDevice{kernels: ref.Kernels{}, work: 64, more: map[compute.Kernel]int64{compute.SumSquares: 3 << 10}})
					if err != nil {
						t.Fatal(err)
					}
					u, total := tr.Usage(), int64(0)
					asked := tr.step.Bytes
					for _, n := range asked {
						total += n
					}
					for _, p := range tr.Plans() {
						if p.Plan.Bytes != asked {
							t.Errorf("the %s plan asks for %v, that of a step for %v", p.Name, p.Plan.Bytes, asked)
						}
					}
					name := fmt.Sprintf("%s, short %v, once %v, checkpointing %v", v.name, short, once, checkpointing)
					if total != u.Total() || asked[compute.Weights] != u.Weights || asked[compute.Masters] != u.Masters || asked[compute.Grads] != u.Gradients ||
						asked[compute.Moments] != u.Moments || asked[compute.Arena] != u.Arena {
						t.Errorf("%s: %v allocated, planned %+v", name, asked, u)
					}
					want := u.Plain
					if checkpointing {
						want = u.Checkpointed
					}
					if want.AllPlans != u.Arena {
						t.Errorf("%s: arena %d, %d said of this step", name, u.Arena, want.AllPlans)
					}
					if short != (u.Masters > 0) || short && u.Masters*2 != u.Moments {
						t.Errorf("%s: masters of %d bytes beside moments of %d", name, u.Masters, u.Moments)
					}
					// The other way of stepping, had it been chosen, would take what is said of it.
					cfg.Checkpointing = !checkpointing
					other, err := build(cfg, v.network(t), tr.target)
					if err != nil {
						t.Fatal(err)
					}
					if said := map[bool]int64{false: u.Plain.AllPlans, true: u.Checkpointed.AllPlans}[!checkpointing]; said != other.Usage().Arena {
						t.Errorf("%s: the other arena is said to be %d, is %d", name, said, other.Usage().Arena)
					}
				}
			}
		}
	}
}

// TestCPUAllocatesThePlan: the CPU's memory has every byte of the plan and none more.
func TestCPUAllocatesThePlan(t *testing.T) {
	for _, once := range []bool{false, true} {
		dev := cpu.New(cpu.Options{Threads: 1})
		t.Cleanup(dev.Close)
		tr, err := Build(Config{Model: tiny(1, true), Batch: 2, Seq: 9, Once: once}, dev)
		if err != nil {
			t.Fatal(err)
		}
		if err := tr.Alloc(); err != nil {
			t.Fatal(err)
		}
		u, mem := tr.Usage(), tr.run.mem.(compute.Visible)
		total := int64(0)
		for s := compute.Weights; s < compute.NumSpaces; s++ {
			n := int64(0) // of Align bytes
			for ; ; n++ {
				if _, err := mem.View(compute.Buffer{Space: s, Offset: n * compute.Align, DType: compute.F32, Shape: []int{compute.Align / 4}}); err != nil {
					break
				}
			}
			total += n * compute.Align
		}
		if total != u.Total() {
			t.Errorf("once %v: %d bytes, planned %d (%+v)", once, total, u.Total(), u)
		}
		if err := tr.Free(); err != nil {
			t.Error(err)
		}
	}
}

// planOnly is a target that is not there.
type planOnly struct{}

func (planOnly) Name() string                    { return "nowhere" }
func (planOnly) WorkBytes(c *compute.Call) int64 { return 0 }
func (planOnly) KeepsAttention() bool            { return false }
func (planOnly) FoldsSums() bool                 { return false }

func TestStorageErrors(t *testing.T) {
	good := Config{Model: tiny(1, true), Batch: 1, Seq: 4}
	for _, c := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.Storage = compute.Mixed(compute.BF16) }, "storage bf16 with f32 with precision float32, expected bf16"},
		{func(c *Config) { c.Storage = compute.Uniform(compute.F64) }, "storage f64 with floats of type f32"},
		{func(c *Config) { c.Storage = compute.Mixed(compute.I32) }, "parameters and activations kept as i32, expected bf16 or f16"},
		{func(c *Config) { c.Storage = compute.Mixed(compute.F16) }, "storage f16 with f32 with precision float32, expected float16"},
		{func(c *Config) { c.Precision, c.Storage = BF16, compute.Mixed(compute.F16) }, "storage f16 with f32 with precision bf16, expected float16"},
		{func(c *Config) { c.Precision = Float16 }, "storage f32 with precision float16, expected f16 with f32"},
		{func(c *Config) { c.Precision = "float8" }, `precision "float8", expected float32, bf16 or float16`},
	} {
		cfg := good
		c.change(&cfg)
		if _, err := Build(cfg, planOnly{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, expected %q", err, c.want)
		}
	}
	tr, err := Build(good, planOnly{})
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Alloc(); err == nil || !strings.Contains(err.Error(), "on nowhere: the plans were made without the device") {
		t.Errorf("error %v", err)
	}
}
