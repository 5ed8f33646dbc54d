package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"autodev/compute"
	"autodev/compute/cpu"
	"autodev/compute/cuda"
	"autodev/compute/cudaplan"
	"autodev/compute/devices"
	"autodev/lora"
	"autodev/model"
	"autodev/train/graph"
)

// options are the flags of step. peer.py has those that both sides need under the same names.
type options struct {
	model, tokens, device, precision, adapter string
	sequences, micro, length, rank            int
	steps, evaluations, algorithms            int
	rate, memory                              float64
	checkpointing, profile, unfused           bool
}

// result is what step prints; peer.py prints the same fields.
type result struct {
	Software     string    `json:"software"`
	Precision    string    `json:"precision"`
	Parameters   int64     `json:"parameters"`
	Trained      int64     `json:"trained"`
	MicroBatch   int       `json:"micro_batch"`
	Sequences    int       `json:"sequences"`
	Length       int       `json:"length"`
	Seconds      []float64 `json:"step_seconds"` // all but the first three
	TokensPerSec float64   `json:"tokens_per_second"`
	FLOPPerToken float64   `json:"flop_per_token"` // 6·parameters (4 with adapters: frozen weights have no gradients) + causal attention
	TFLOPPerSec  float64   `json:"tflop_per_second"`
	Losses       []float64 `json:"losses"`
	Planned      int64     `json:"planned_bytes,omitempty"`
	Used         int64     `json:"device_used_bytes,omitempty"` // of the card, by everybody, at the end of the run
	EvalRate     float64   `json:"eval_tokens_per_second,omitempty"`
	EvalNLL      float64   `json:"eval_nll,omitempty"`
	Profile      []group   `json:"profile,omitempty"`
	LoadSeconds  float64   `json:"load_seconds"`
}

func (o *options) flags() *flag.FlagSet {
	f := flag.NewFlagSet("step", flag.ContinueOnError)
	o.planFlags(f)
	f.StringVar(&o.model, "model", "", "model folder")
	f.StringVar(&o.tokens, "tokens-file", "", "token ids, 16-bit little-endian: windows are cut from it in order, again from its beginning at its end")
	f.StringVar(&o.device, "device", "cuda", devices.Expected)
	f.StringVar(&o.adapter, "adapter", "", "folder to write the untrained adapters to, for the peer to begin with the same")
	f.IntVar(&o.steps, "steps", 10, "")
	f.Float64Var(&o.rate, "rate", 1e-4, "learning rate")
	f.IntVar(&o.evaluations, "evaluations", 0, "micro-batches to score, to time evaluation")
	f.IntVar(&o.algorithms, "algorithms", 0, "of cuBLASLt to time for each product; 0: its first choice")
	f.BoolVar(&o.unfused, "unfused", false, "GELU and its gradient by kernels of their own, not by epilogues of products")
	f.BoolVar(&o.profile, "profile", false, "time every call of the step")
	return f
}

// planFlags are those that decide the plans.
func (o *options) planFlags(f *flag.FlagSet) {
	f.StringVar(&o.precision, "precision", "bf16", "float32, bf16 or float16, whose loss is scaled by 65536")
	f.IntVar(&o.sequences, "sequences", 16, "a step")
	f.IntVar(&o.micro, "micro-batch", 0, "sequences at a time; 0: as many as fit into the card's memory, or all where there is no card")
	f.IntVar(&o.length, "length", 2048, "tokens of a sequence")
	f.IntVar(&o.rank, "rank", 0, "of LoRA adapters at all linear modules; 0: train everything")
	f.BoolVar(&o.checkpointing, "checkpointing", false, "gradient checkpointing")
	f.Float64Var(&o.memory, "memory", 0, "GB that the plans may take to keep what would be computed again; 0: as little as can be")
}

// config is what is planned, but for the micro-batch and adapters.
func (o *options) config(c model.Config, kind devices.Kind) graph.Config {
	cfg := graph.Config{Model: c, Seq: o.length, Checkpointing: o.checkpointing, Memory: int64(o.memory * 1e9), Precision: graph.Precision(o.precision)}
	cfg.Storage = devices.Storage(kind, cfg.Precision.Operands())
	return cfg
}

// adapters are a LoRA adapter's modules as plans take them.
func adapters(modules []lora.Module) []graph.Adapter {
	var all []graph.Adapter
	for _, m := range modules {
		all = append(all, graph.Adapter{Module: m.Name, Rank: m.Rank, Scale: m.Scale})
	}
	return all
}

// unmeasured is how many steps come before those that count: libraries load kernels, graphs are captured.
const unmeasured = 3

// spy is a device that keeps the programs it compiles, to look at their calls.
type spy struct {
	compute.Device
	programs []compute.Program
}

func (s *spy) Compile(p *compute.Plan, m compute.Memory) (compute.Program, error) {
	program, err := s.Device.Compile(p, m)
	s.programs = append(s.programs, program)
	return program, err
}

func step(ctx context.Context, args []string) (_ any, err error) {
	var o options
	if err := parse(o.flags(), args); err != nil {
		return nil, err
	}
	spec, err := devices.Parse(o.device)
	if err != nil {
		return nil, err
	}
	device := &spy{}
	var card *cuda.Device
	free := int64(math.MaxInt64)
	if spec.Kind == devices.CUDA {
		if card, err = cuda.New(cuda.Options{Index: spec.Index, Algorithms: o.algorithms, Unfused: o.unfused}); err != nil {
			return nil, err
		}
		defer func() { err = join(err, card.Close()) }()
		if free, _, err = memory(card); err != nil {
			return nil, err
		}
		device.Device = card
	} else {
		d := cpu.New(cpu.Options{Threads: runtime.GOMAXPROCS(0)})
		defer d.Close()
		device.Device = d
	}
	begun := time.Now()
	folder, err := model.Open(o.model)
	if err != nil {
		return nil, err
	}
	defer func() { err = join(err, folder.Close()) }()
	windows, err := readWindows(o.tokens, o.length, folder.Config.Vocab)
	if err != nil {
		return nil, err
	}
	var adapter *lora.Adapter
	if o.rank > 0 {
		if adapter, err = lora.New(folder.Config, lora.Spec{Rank: o.rank, Alpha: float64(2 * o.rank), Targets: []string{lora.AllLinear}}, 1); err != nil {
			return nil, err
		}
		if o.adapter != "" {
			if err := adapter.Save(o.adapter); err != nil {
				return nil, err
			}
		}
	}
	t, err := o.build(folder.Config, adapter, device, spec.Kind, free)
	if err != nil {
		return nil, err
	}
	defer func() { err = join(err, t.Free()) }()
	if err := load(t, folder, adapter); err != nil {
		return nil, err
	}
	r := &result{Software: "autodev " + device.Name(), Precision: o.precision, MicroBatch: t.Config().Batch, Sequences: o.sequences, Length: o.length,
		Planned: t.Usage().Total(), LoadSeconds: time.Since(begun).Seconds()}
	for _, p := range t.Params() {
		r.Parameters += int64(p.Weight.Len())
		if p.Trained {
			r.Trained += int64(p.Weight.Len())
		}
	}
	if err := o.train(ctx, t, windows, r); err != nil {
		return nil, err
	}
	factor := 6.0
	if o.rank > 0 {
		factor = 4
	}
	c := folder.Config
	r.FLOPPerToken = factor*float64(r.Parameters) + 6*float64(c.Layers)*float64(c.Embed)*float64(o.length)
	r.TFLOPPerSec = r.FLOPPerToken * r.TokensPerSec / 1e12
	if card != nil {
		left, total, err := memory(card)
		if err != nil {
			return nil, err
		}
		r.Used = total - left
	}
	if err := o.evaluate(ctx, t, windows, r); err != nil {
		return nil, err
	}
	if o.profile {
		r.Profile, err = profile(ctx, t, device.programs)
	}
	return r, err
}

func memory(d *cuda.Device) (free, total int64, err error) {
	err = d.Do(func(q *cuda.Queue) (err error) {
		free, total, err = q.MemInfo()
		return err
	})
	return free, total, err
}

// build plans the training with the most sequences at a time that fit, and allocates its memory.
func (o *options) build(c model.Config, adapter *lora.Adapter, device compute.Device, kind devices.Kind, free int64) (*graph.Training, error) {
	cfg := o.config(c, kind)
	cfg.Memory = min(cfg.Memory, free)
	if adapter != nil {
		cfg.Adapters = adapters(adapter.Modules)
	}
	micros := []int{o.micro}
	if o.micro == 0 {
		micros = nil
		for m := o.sequences; m >= 1; m-- {
			if o.sequences%m == 0 {
				micros = append(micros, m)
			}
		}
	} else if o.sequences%o.micro != 0 {
		return nil, fmt.Errorf("micro-batches of %d sequences in steps of %d", o.micro, o.sequences)
	}
	var needed int64
	for _, m := range micros {
		cfg.Batch, cfg.Once = m, m == o.sequences
		t, err := graph.Build(cfg, device)
		if err != nil {
			return nil, err
		}
		if needed = t.Usage().Total(); needed <= free {
			return t, t.Alloc()
		}
	}
	return nil, fmt.Errorf("a micro-batch of %d sequences needs %d bytes, %d are free", micros[len(micros)-1], needed, free)
}

// load puts the initial weights into the plans' memory.
func load(t *graph.Training, weights model.Source, adapter *lora.Adapter) error {
	for _, p := range t.Params() {
		var data []float32
		if adapter != nil {
			data = adapter.Data(p.Name)
		}
		if data == nil {
			w, err := weights.Read(p.Name)
			if err != nil {
				return err
			}
			data = w.Data
		}
		if err := t.SetParam(p.Name, data); err != nil {
			return err
		}
	}
	debug.FreeOSMemory() // as package train does
	return nil
}

// windows are pieces of length+1 tokens.
type windows struct {
	ids    []int32
	length int
}

func readWindows(file string, length, vocab int) (*windows, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	w := &windows{length: length}
	for i := 0; i+2 <= len(b); i += 2 {
		id := int32(binary.LittleEndian.Uint16(b[i:]))
		if int(id) >= vocab {
			return nil, fmt.Errorf("%s: token %d is %d, expected less than %d", file, i/2, id, vocab)
		}
		w.ids = append(w.ids, id)
	}
	if len(w.ids) < length+1 {
		return nil, fmt.Errorf("%s: %d tokens, expected at least %d", file, len(w.ids), length+1)
	}
	return w, nil
}

// batch returns windows first to first+n−1.
func (w *windows) batch(first, n int) graph.Batch {
	count := (len(w.ids) - 1) / w.length
	var b graph.Batch
	for i := first; i < first+n; i++ {
		at := i % count * w.length
		b.IDs = append(b.IDs, w.ids[at:at+w.length]...)
		b.Targets = append(b.Targets, w.ids[at+1:at+w.length+1]...)
	}
	return b
}

// train takes the steps: gradients of all micro-batches, clipped to norm 1, AdamW.
func (o *options) train(ctx context.Context, t *graph.Training, w *windows, r *result) error {
	micro := t.Config().Batch
	scale, up := 1/float64(o.sequences*o.length), 1.0
	if t.Config().Precision == graph.Float16 {
		up = 1 << 16
	}
	hyper := slices.Repeat([]graph.Hyper{{LearningRate: o.rate, Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-8, WeightDecay: 0.1}}, len(t.Buffers().Hyper))
	for n := range o.steps {
		start := time.Now()
		if err := t.ZeroGrads(); err != nil {
			return err
		}
		loss := 0.0
		for m := 0; m < o.sequences; m += micro {
			l, err := t.MicroStep(ctx, w.batch(n*o.sequences+m, micro), float32(scale*up), [2]int32{})
			if err != nil {
				return fmt.Errorf("step %d: %w", n+1, err)
			}
			loss += l / up
		}
		norm, err := t.GradNorm(ctx)
		norm /= up
		if err == nil && (math.IsNaN(norm) || math.IsInf(norm, 0)) {
			err = fmt.Errorf("the gradient's norm is %v", norm)
		}
		if err == nil {
			err = t.Update(ctx, n+1, min(1, 1/(norm+1e-6))/up, hyper...)
		}
		if err != nil {
			return fmt.Errorf("step %d: %w", n+1, err)
		}
		r.Losses = append(r.Losses, loss)
		if n >= unmeasured {
			r.Seconds = append(r.Seconds, time.Since(start).Seconds())
		}
	}
	if len(r.Seconds) > 0 {
		r.TokensPerSec = float64(o.sequences*o.length) / median(r.Seconds)
	}
	return nil
}

// evaluate scores micro-batches, the first not counted.
func (o *options) evaluate(ctx context.Context, t *graph.Training, w *windows, r *result) error {
	if o.evaluations == 0 {
		return nil
	}
	n := t.Config().Batch
	var seconds []float64
	for i := range o.evaluations + 2 {
		start := time.Now()
		nll, err := t.NLL(ctx, w.batch(i*n, n))
		if err != nil {
			return err
		}
		if i < 2 { // one call by call, one that captures graphs
			continue
		}
		seconds = append(seconds, time.Since(start).Seconds())
		for _, v := range nll {
			r.EvalNLL += float64(v)
		}
	}
	r.EvalRate = float64(n*o.length) / median(seconds)
	r.EvalNLL /= float64(n * o.length * o.evaluations)
	return nil
}

func median(x []float64) float64 {
	s := slices.Sorted(slices.Values(x))
	return s[len(s)/2]
}

// profile times each call of the step, the gradient norm and the update, three times, and takes the fastest.
func profile(ctx context.Context, t *graph.Training, programs []compute.Program) ([]group, error) {
	var all groups
	for i, plan := range t.Plans() {
		if plan.Name == "eval" {
			continue
		}
		program, ok := programs[i].(*cuda.Program)
		if !ok {
			return nil, errors.New("only calls on a card can be timed one by one")
		}
		best := map[int]time.Duration{}
		for range 3 {
			times, err := program.Profile(ctx)
			if err != nil {
				return nil, err
			}
			for _, x := range times {
				if b, ok := best[x.Call]; !ok || x.Took < b {
					best[x.Call] = x.Took
				}
			}
		}
		fused := cudaplan.Fusions(plan.Plan.Calls)
		maps.DeleteFunc(fused, func(_, activation int) bool {
			_, apart := best[activation] // the card has no such epilogue
			return apart
		})
		launches := launched(plan.Plan.Calls, fused)
		for i := range plan.Plan.Calls {
			if l, ok := launches[i]; ok {
				all.add(l, 1, best[i].Seconds())
			}
		}
	}
	return all.sorted(), nil
}
