package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"autodev/compute"
	"autodev/compute/cudaplan"
	"autodev/compute/devices"
	"autodev/lora"
	"autodev/model"
	"autodev/train/graph"
)

// rates are what a card is taken to do. A call takes as long as its arithmetic or its memory traffic, whichever is longer.
type rates struct {
	products, attention, attentionGrad float64 // TFLOP/s
	bandwidth                          float64 // TB/s
	call                               time.Duration
}

func (r *rates) flags(f *flag.FlagSet) {
	f.Float64Var(&r.products, "products", 650, "TFLOP/s of matrix products")
	f.Float64Var(&r.attention, "attention", 300, "TFLOP/s of attention, counted as two products of half a square")
	f.Float64Var(&r.attentionGrad, "attention-grad", 150, "TFLOP/s of its gradient, counted as five")
	f.Float64Var(&r.bandwidth, "bandwidth", 2.7, "TB/s of memory")
	f.DurationVar(&r.call, "call", 2*time.Microsecond, "what every call takes beside that")
}

func (r *rates) seconds(l launch) float64 {
	rate := r.products
	switch l.Kernel {
	case compute.Attention:
		rate = r.attention
	case compute.AttentionGrad:
		rate = r.attentionGrad
	}
	return max(l.operations/(rate*1e12), l.bytes/(r.bandwidth*1e12)) + r.call.Seconds()
}

// prediction is a step's time by a card's rates. It is no measurement.
type prediction struct {
	method                              string
	micro, sequences, length            int
	step, evaluation                    float64 // seconds: of a step, of scoring as many tokens
	weights, masters, optimizer, memory int64
	plain                               int64 // memory without checkpointing; 0 without it anyway
	groups                              []group
}

// predict takes the very plans that a run would make on a card and adds up what their calls take, without one.
func predict(_ context.Context, args []string) (any, error) {
	var o options
	var r rates
	f := flag.NewFlagSet("predict", flag.ContinueOnError)
	config := f.String("config", "", "config.json of the model; without it, SantaCoder's dimensions")
	o.planFlags(f)
	r.flags(f)
	if err := parse(f, args); err != nil {
		return nil, err
	}
	c := santacoder()
	if *config != "" {
		b, err := os.ReadFile(*config)
		if err != nil {
			return nil, err
		}
		if c, err = model.ParseConfig(b, *config); err != nil {
			return nil, err
		}
	}
	if o.micro == 0 {
		o.micro = o.sequences
	}
	if o.micro < 0 || o.sequences%o.micro != 0 {
		return nil, fmt.Errorf("micro-batches of %d sequences in steps of %d", o.micro, o.sequences)
	}
	cfg := o.config(c, devices.CUDA)
	if o.rank > 0 {
		a, err := lora.Spec{Rank: o.rank, Alpha: float64(2 * o.rank), Targets: []string{lora.AllLinear}}.Modules(c)
		if err != nil {
			return nil, err
		}
		cfg.Adapters = adapters(a)
	}
	cfg.Batch, cfg.Once = o.micro, o.micro == o.sequences
	t, err := graph.Build(cfg, cudaplan.Target{})
	if err != nil {
		return nil, err
	}
	u := t.Usage()
	p := &prediction{method: "full fine-tuning", micro: o.micro, sequences: o.sequences, length: o.length,
		weights: u.Weights, masters: u.Masters, optimizer: u.Gradients + u.Moments, memory: u.Total()}
	if o.rank > 0 {
		p.method = fmt.Sprintf("LoRA r=%d", o.rank)
	}
	if o.checkpointing {
		p.method += ", gradient checkpointing"
		p.plain = u.Total() - u.Arena + u.Plain.AllPlans
	}
	var all groups
	for _, plan := range t.Plans() {
		times := 1
		if plan.Name == "step" || plan.Name == "eval" {
			times = o.sequences / o.micro
		}
		launches := launched(plan.Plan.Calls, cudaplan.Fusions(plan.Plan.Calls))
		for i := range plan.Plan.Calls {
			l, ok := launches[i]
			if !ok {
				continue
			}
			s := r.seconds(l)
			if plan.Name == "eval" {
				p.evaluation += s * float64(times)
				continue
			}
			all.add(l, times, s)
		}
	}
	if !cfg.Once { // the driver clears gradients before the first micro-batch
		l := launch{&compute.Call{Kernel: compute.Zero}, "clearing gradients", 0, float64(u.Gradients)}
		all.add(l, 1, r.seconds(l))
	}
	p.step, p.groups = all.seconds, all.sorted()
	return p, nil
}

// WriteTo prints the prediction as a table, as WriterTo.
func (p *prediction) WriteTo(w io.Writer) (int64, error) {
	n := int64(0)
	var err error
	line := func(format string, args ...any) {
		if err == nil {
			var k int
			k, err = fmt.Fprintf(w, format+"\n", args...)
			n += int64(k)
		}
	}
	tokens := float64(p.sequences * p.length)
	line("%s, %d sequences of %d tokens, %d at a time: predicted %.0f ms a step, %.0f tokens/s; evaluation %.0f tokens/s", p.method,
		p.sequences, p.length, p.micro, 1e3*p.step, tokens/p.step, tokens/p.evaluation)
	memory := fmt.Sprintf("memory %.2f GB: weights %.2f, masters %.2f, gradients and moments %.2f, all else %.2f", gb(p.memory), gb(p.weights), gb(p.masters),
		gb(p.optimizer), gb(p.memory-p.weights-p.masters-p.optimizer))
	if p.plain > 0 {
		memory += fmt.Sprintf("; %.2f GB without checkpointing", gb(p.plain))
	}
	line("%s", memory)
	line("%-32s %-38s %6s %8s %6s %8s %8s", "kernel", "shape", "calls", "ms", "share", "TFLOP/s", "GB/s")
	rest := group{Kernel: "all others"}
	for _, g := range p.groups {
		if g.Share < 0.004 {
			rest.Calls, rest.Seconds, rest.Share = rest.Calls+g.Calls, rest.Seconds+g.Seconds, rest.Share+g.Share
			continue
		}
		line("%-32s %-38s %6d %8.2f %5.1f%% %8.0f %8.0f", g.Kernel, g.Shape, g.Calls, 1e3*g.Seconds, 100*g.Share, g.TFLOPS, g.Bytes/1e9)
	}
	line("%-32s %-38s %6d %8.2f %5.1f%%", rest.Kernel, "", rest.Calls, 1e3*rest.Seconds, 100*rest.Share)
	return n, err
}

func gb(n int64) float64 { return float64(n) / 1e9 }

// santacoder is the model of the comparison, as run.py makes it.
func santacoder() model.Config {
	return model.Config{
		Architecture: model.GPTBigCode, VocabSize: 49280, Vocab: 49280, Positions: 2048, Embed: 2048, Layers: 24, Heads: 16, KVHeads: 1, Inner: 8192,
		Activation: compute.GELUTanh, Epsilon: 1e-5, Tied: true, ScaleAttention: true, InitStd: 0.02, BOS: -1,
	}
}
