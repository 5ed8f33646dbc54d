package train

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"autodev/compute"
	"autodev/compute/devices"
	"autodev/configs"
	"autodev/model"
	"autodev/model/dtype"
)

// santaCoder has the dimensions of bigcode/santacoder: 1.12 billion parameters.
func santaCoder() model.Config {
	return model.Config{
		Architecture: model.GPTBigCode, VocabSize: 49280, Vocab: 49153, Positions: 2048, Embed: 2048, Layers: 24, Heads: 16, KVHeads: 1,
		Inner: 8192, Activation: compute.GELUTanh, Epsilon: 1e-5, Tied: true, ScaleAttention: true, InitStd: .02, BOS: -1,
	}
}

const planRecipe = `
data: {train: [{path: nothing}]}
train: {steps: 1, micro_batch: 1, accumulation: 16}
`

func planOf(t testing.TB, c model.Config, o MemoryOptions, sets ...string) *Memory {
	t.Helper()
	o.Open = func(context.Context, string) (*Base, error) { return &Base{Config: c}, nil }
	m, err := PlanMemory(t.Context(), recipe(t, planRecipe, append([]string{"model=shape"}, sets...)...), o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// column returns that of a device, with or without checkpointing.
func (m *Memory) column(t testing.TB, k devices.Kind, checkpointing bool) MemoryColumn {
	t.Helper()
	for _, c := range m.Columns {
		if c.Device == k && c.Checkpointing == checkpointing {
			return c
		}
	}
	t.Fatalf("no column of %s", k)
	return MemoryColumn{}
}

func within(t *testing.T, what string, got, low, high int64) {
	t.Helper()
	if got < low || got > high {
		t.Errorf("%s: %d, expected %d to %d", what, got, low, high)
	}
}

// TestPlanSantaCoder: the plan of a real size, 2,048 tokens at a time, against what its parts must come to.
func TestPlanSantaCoder(t *testing.T) {
	t.Parallel()
	const mb, gb = int64(1e6), int64(1e9)
	c := santaCoder()
	n := c.NumParams()
	known := MemoryOptions{Memory: map[devices.Kind]int64{devices.CPU: 24 * gb, devices.CUDA: 80 * gb}}
	full := planOf(t, c, known)
	lora16 := planOf(t, c, known, "lora={rank: 16}")
	lora64 := planOf(t, c, known, "lora={rank: 64}")
	if full.Parameters != n || full.Trained != n || full.Sequence != 2048 || full.MicroBatch != 1 || full.Method != "full" || lora16.Method != "lora, rank 16" {
		t.Errorf("%+v", full)
	}
	perRank := int64(24 * (2048 + 2304 + 2048 + 2048 + 2048 + 8192 + 8192 + 2048))
	if lora16.Trained != 16*perRank || lora64.Trained != 64*perRank || lora16.Parameters != n+16*perRank {
		t.Errorf("trained %d and %d, expected %d a rank", lora16.Trained, lora64.Trained, perRank)
	}
	for _, m := range []*Memory{full, lora16, lora64} {
		for _, k := range []devices.Kind{devices.CPU, devices.CUDA} {
			plain, sparse := m.column(t, k, false), m.column(t, k, true)
			for _, c := range []MemoryColumn{plain, sparse} {
				name := fmt.Sprintf("%s on %s, checkpointing %v", m.Method, k, c.Checkpointing)
				if sum := c.Weights + c.Masters + c.Gradients + c.Optimizer + c.InputsOutputs + c.Activations + c.Workspace; sum != c.Total {
					t.Errorf("%s: the parts are %d, the total %d", name, sum, c.Total)
				}
				size, masters := int64(4), int64(0)
				if k == devices.CUDA {
					size, masters = 2, 4*m.Trained
				}
				within(t, name+": weights", c.Weights, size*m.Parameters, size*m.Parameters+mb)
				within(t, name+": masters", c.Masters, masters, masters+mb)
				within(t, name+": gradients", c.Gradients, 4*m.Trained, 4*m.Trained+mb)
				within(t, name+": optimiser", c.Optimizer, 8*m.Trained, 8*m.Trained+2*mb)
				// Kernels' work space is that of one product, or the logits of 2,048 tokens, and some gaps.
				within(t, name+": work space", c.Workspace, 0, 240*mb)
				if c.Recipe == c.Checkpointing {
					t.Errorf("%s: is the recipe's: %v", name, c.Recipe)
				}
			}
			if plain.Activations < 3*sparse.Activations {
				t.Errorf("%s on %s: activations %d, with checkpointing %d", m.Method, k, plain.Activations, sparse.Activations)
			}
			if *plain.LargestMicroBatch >= *sparse.LargestMicroBatch && k == devices.CUDA {
				t.Errorf("%s on %s: micro-batches of %d fit, with checkpointing of %d", m.Method, k, *plain.LargestMicroBatch, *sparse.LargestMicroBatch)
			}
		}
		for _, checkpointing := range []bool{false, true} {
			cpu, cuda := m.column(t, devices.CPU, checkpointing), m.column(t, devices.CUDA, checkpointing)
			// With checkpointing CUDA keeps attention's output and its soft-max's sums, and has no sums of adapters' and other gradients.
			kept, most := int64(0), 2.1
			if checkpointing {
				kept, most = 24*2048*(2*2048+4*16), 2.3
			}
			if ratio := float64(cpu.Activations) / float64(cuda.Activations-kept); ratio < 1.9 || ratio > most {
				t.Errorf("%s: activations of %d and, in half the bytes each, %d beside %d", m.Method, cpu.Activations, cuda.Activations-kept, kept)
			}
			if cpu.Precision != "float32" || cuda.Precision != "bf16" || cpu.Storage != "f32" || cuda.Storage != "bf16 with f32" {
				t.Errorf("precision %s and %s, storage %s and %s", cpu.Precision, cuda.Precision, cpu.Storage, cuda.Storage)
			}
		}
	}
	// With adapters, checkpointing and bfloat16 a card of 8 GB is enough, and a third of what full training takes.
	small, large := lora16.column(t, devices.CUDA, true), full.column(t, devices.CUDA, true)
	within(t, "lora, rank 16, on a card", small.Total+small.Beside, 3*gb, 8*gb)
	if r64 := lora64.column(t, devices.CUDA, true); 3*r64.Total > large.Total || r64.Total <= small.Total {
		t.Errorf("rank 64 takes %d, full training %d, rank 16 %d", r64.Total, large.Total, small.Total)
	}
	// In place, the gradients of the weights lie where activations were.
	once := planOf(t, c, MemoryOptions{}, "train.accumulation=1").column(t, devices.CUDA, true)
	if once.Gradients != 0 || once.Total >= large.Total || once.LargestMicroBatch != nil {
		t.Errorf("%+v", once)
	}
	// In float32 CUDA keeps what the CPU keeps, and of each token and head the logarithm of the soft-max's sum.
	wide := planOf(t, c, MemoryOptions{}, "precision=float32")
	a, b := wide.column(t, devices.CUDA, false), wide.column(t, devices.CPU, false)
	sums := int64(24 * 2048 * 16 * 4)
	if a.Masters != 0 || a.Activations != b.Activations+sums || a.Weights != b.Weights {
		t.Errorf("in float32: %+v, on the CPU %+v", a, b)
	}
}

// TestLargestMicroBatch: the largest that fits does, and one more does not.
func TestLargestMicroBatch(t *testing.T) {
	t.Parallel()
	c := santaCoder()
	c.Layers, c.Embed, c.Inner, c.Heads = 2, 256, 1024, 4
	for _, sets := range [][]string{{"lora={rank: 8}"}, {"train.accumulation=1"}, {"train.gradient_checkpointing=true", "data.sequence=100"}} {
		for _, memory := range []int64{1_234_567_890, 20e9} {
			o := MemoryOptions{Memory: map[devices.Kind]int64{devices.CPU: memory, devices.CUDA: memory}}
			for _, col := range planOf(t, c, o, sets...).Columns {
				n := *col.LargestMicroBatch
				need := func(batch int) int64 {
					m := planOf(t, c, MemoryOptions{Devices: []devices.Kind{col.Device}}, append(sets, fmt.Sprintf("train.micro_batch=%d", batch))...)
					return m.column(t, col.Device, col.Checkpointing).Total
				}
				if n > 0 && need(n) > memory-col.Beside || need(n+1) <= memory-col.Beside {
					t.Errorf("%v, %d bytes of %s, checkpointing %v: %d is not the largest micro-batch", sets, memory, col.Device, col.Checkpointing, n)
				}
			}
		}
	}
}

// TestPlanAdvice: each piece of advice, followed, makes the recipe fit, and what cannot fit gets none.
func TestPlanAdvice(t *testing.T) {
	t.Parallel()
	const gb = int64(1e9)
	for _, c := range []struct {
		name   string
		memory int64
		sets   []string
		want   []string // the settings advised, in order
	}{
		{"fits", 80 * gb, nil, nil},
		{"checkpointing", 22 * gb, nil, []string{"train.gradient_checkpointing=true"}},
		{"lora", 8 * gb, nil, []string{"lora={rank: 16} train.gradient_checkpointing=true"}},
		{"shorter", 4200e6, []string{"lora={rank: 64}", "train.gradient_checkpointing=true"}, []string{"data.sequence=1024", "lora.rank=16"}},
		{"smaller batch", 80 * gb, []string{"train.micro_batch=64", "train.accumulation=1"}, []string{""}},
		{"hopeless", 2 * gb, nil, nil},
		{"less kept", 14 * gb, []string{"lora={rank: 64}", "train={steps: 1, micro_batch: 16, gradient_checkpointing: true, memory_gb: 40}"}, []string{"train.memory_gb=13.3"}},
		{"less kept in smaller batches", 10 * gb, []string{"lora={rank: 64}", "train={steps: 1, micro_batch: 16, gradient_checkpointing: true, memory_gb: 40}"}, []string{"train.micro_batch=8 train.accumulation=16 train.memory_gb=9.3"}},
	} {
		o := MemoryOptions{Devices: []devices.Kind{devices.CUDA}, Memory: map[devices.Kind]int64{devices.CUDA: c.memory}}
		m := planOf(t, santaCoder(), o, c.sets...)
		var advice []Step
		for _, col := range m.Columns {
			advice = append(advice, col.Advice...)
		}
		var got []string
		for _, s := range advice {
			got = append(got, strings.Join(s.Sets, " "))
		}
		if c.name != "smaller batch" && !slices.Equal(got, c.want) || len(got) != len(c.want) {
			t.Errorf("%s: advised %q, expected %q", c.name, got, c.want)
		}
		for _, s := range advice {
			again := planOf(t, santaCoder(), o, append(slices.Clone(c.sets), s.Sets...)...)
			for _, col := range again.Columns {
				if col.Recipe && (col.Total != s.Total || *col.LargestMicroBatch < again.MicroBatch) {
					t.Errorf("%s: with %v it takes %d, said was %d; micro-batches of %d fit", c.name, s.Sets, col.Total, s.Total, *col.LargestMicroBatch)
				}
			}
		}
	}
}

// TestPlanIsWhatARunAllocates: the total is that of the run, to the byte.
func TestPlanIsWhatARunAllocates(t *testing.T) {
	m, tok := base(t), vocabulary(t)
	for _, c := range []struct {
		yaml string
		sets []string
	}{
		{fullRecipe, []string{"init.tokenizer=" + tok}},
		{fullRecipe, []string{"init.tokenizer=" + tok, "train.gradient_checkpointing=true", "train.accumulation=1"}},
		{loraRecipe, []string{"model=" + m}},
		{loraRecipe, []string{"model=" + m, "train.gradient_checkpointing=true", "precision=bf16"}},
	} {
		r := recipe(t, c.yaml, append(c.sets, "train.steps=1", "out="+filepath.Join(t.TempDir(), "out"))...)
		plan, err := PlanMemory(t.Context(), r, MemoryOptions{Open: options().Open})
		if err != nil {
			t.Fatal(err)
		}
		s, err := Run(t.Context(), r, options())
		if err != nil {
			t.Fatal(err)
		}
		if got := plan.column(t, devices.CPU, r.Train.GradientCheckpointing); got.Total != s.PlannedBytes || !got.Recipe {
			t.Errorf("%v: planned %d, the run allocated %d", c.sets, got.Total, s.PlannedBytes)
		}
	}
}

// TestPlanReadsNoWeights: a folder whose weight files are too large to read is planned from their headers.
func TestPlanReadsNoWeights(t *testing.T) {
	dir := t.TempDir()
	c := santaCoder()
	c.Layers, c.VocabSize, c.Vocab = 2, 512, 512
	c.Embed, c.Heads = 256, 2
	if err := model.SaveFrom(t.Context(), filepath.Join(dir, "m"), c, model.Random(c, 1), model.SaveOptions{DType: dtype.F16}); err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(dir, "m")
	open := func(_ context.Context, name string) (*Base, error) {
		f, err := model.Open(name)
		if err != nil {
			return nil, err
		}
		return &Base{Config: f.Config, Weights: unread{}, Close: f.Close}, nil
	}
	r := recipe(t, planRecipe, "model="+dir)
	m, err := PlanMemory(t.Context(), r, MemoryOptions{Open: open})
	if err != nil || m.Parameters != c.NumParams() {
		t.Errorf("%+v, %v", m, err)
	}
	// Headers that contradict config.json are reported.
	b, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(strings.Replace(string(b), `"n_inner": 8192`, `"n_inner": 4096`, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := PlanMemory(t.Context(), r, MemoryOptions{Open: open}); err == nil || !strings.Contains(err.Error(), "expected [4096") {
		t.Errorf("error %v", err)
	}
}

type unread struct{}

func (unread) Read(name string) (*model.Tensor, error) { return nil, fmt.Errorf("%s was read", name) }

func TestPlanErrors(t *testing.T) {
	stopped, stop := context.WithCancel(t.Context())
	stop()
	open := func(context.Context, string) (*Base, error) { return &Base{Config: santaCoder()}, nil }
	for _, c := range []struct {
		ctx  context.Context
		open func(context.Context, string) (*Base, error)
		sets []string
		want string
	}{
		{t.Context(), nil, []string{"model=x"}, "model x: no way to open models was given"},
		{t.Context(), options().Open, []string{"model=nowhere"}, "model nowhere: no such file or directory"},
		{t.Context(), open, []string{"data.sequence=4096"}, "data.sequence: found 4096, expected at most the model's 2048 positions"},
		{t.Context(), open, []string{"lora={targets: [nobody]}"}, `device cpu: lora: target "nobody" matches no linear module`},
		{stopped, open, nil, "context canceled"},
	} {
		if _, err := PlanMemory(c.ctx, recipe(t, planRecipe, c.sets...), MemoryOptions{Open: c.open}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, expected %q", err, c.want)
		}
	}
}

func TestPlanTable(t *testing.T) {
	m := planOf(t, santaCoder(), MemoryOptions{Memory: map[devices.Kind]int64{devices.CPU: 16e9}}, "train.accumulation=1")
	var b strings.Builder
	if err := m.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"shape: 1.125 billion parameters, 1.125 billion trained (full)\nmicro-batch 1 of 2048 tokens, accumulation 1\n",
		"\ngradient checkpointing        *off          on        *off          on\n",
		"\ngradients                 in place    in place    in place    in place\n",
		"\nmemory                     16.0 GB     16.0 GB   not known   not known\n",
		"\nlargest micro-batch      none fits   none fits           -           -\n",
		"the largest micro-batch on cuda needs --memory",
		"\nA micro-batch of 1 does not fit into the 16.0 GB of cpu. What would:\n  --set 'lora={rank: 16}' --set train.gradient_checkpointing=true  (",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var again Memory
	if err := json.Unmarshal(text, &again); err != nil || again.Columns[3].Total != m.Columns[3].Total || again.Columns[0].LargestMicroBatch == nil {
		t.Errorf("%s: %v", text, err)
	}
	b.Reset()
	m = planOf(t, santaCoder(), MemoryOptions{Devices: []devices.Kind{devices.CUDA}}, "lora={rank: 64}", "train={steps: 1, micro_batch: 16, gradient_checkpointing: true, memory_gb: 14.4}")
	if err := m.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	if want := "kept by blocks on cuda: attention (24), mlp.c_proj.lora_A (23), "; !strings.Contains(b.String(), want) {
		t.Errorf("no %q in\n%s", want, b.String())
	}
	if c := m.column(t, devices.CUDA, true); c.Total > 14.4e9 || c.Total < 14e9 {
		t.Errorf("%d bytes are taken where 14.4 GB may be", c.Total)
	}
}

func TestBytesText(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1500: "1.50 KB", 12_345_678: "12.3 MB", 2_250_000_000: "2.25 GB", 123_456_789_012: "123.5 GB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d: %s, expected %s", n, got, want)
		}
	}
}

// TestSettle: checkpoints record the kind of device and the precision that were used, not what the recipe left open.
func TestSettle(t *testing.T) {
	r := configs.Recipe{Device: "auto", Precision: "auto"}
	if spec, err := settle(t.Context(), &r, &Options{Logger: slog.Default()}); err != nil || r.Device != string(spec.Kind) || r.Device == "auto" || r.Precision == "auto" {
		t.Errorf("%+v: %+v, %v", r, spec, err)
	}
	for text, want := range map[string][2]string{"auto": {"float32", "bf16"}, "float32": {"float32", "float32"}, "bf16": {"bf16", "bf16"}, "float16": {"float16", "float16"}} {
		if a, b := precision(text, devices.CPU), precision(text, devices.CUDA); string(a) != want[0] || string(b) != want[1] {
			t.Errorf("%s is %s on the CPU, %s on CUDA", text, a, b)
		}
	}
	r = recipe(t, fullRecipe, "init.tokenizer=x", "device=cpu", "precision=float32")
	s := state{Recipe: identityOf(&r)}
	s.Recipe["device"] = `"auto"` // as versions wrote that knew the CPU alone
	if err := s.compatible(&r); err != nil {
		t.Error(err)
	}
	r.Device = "cuda"
	if err := s.compatible(&r); err == nil || !strings.Contains(err.Error(), `device: found "cuda", expected "cpu", with which the run began`) {
		t.Errorf("error %v", err)
	}
	t.Setenv("AUTODEV_LIBCUDA", t.TempDir())
	r.Device = "cuda:3"
	r.Out = t.TempDir()
	if _, err := Run(t.Context(), r, options()); err == nil || !strings.HasPrefix(err.Error(), "cuda: ") {
		t.Errorf("error %v", err)
	}
}
