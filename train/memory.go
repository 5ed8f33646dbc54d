package train

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"autodev/compute"
	"autodev/compute/devices"
	"autodev/configs"
	"autodev/lora"
	"autodev/model"
	"autodev/tokenizer"
	"autodev/train/graph"
)

// MemoryOptions are what planning a recipe's memory needs beside the recipe.
type MemoryOptions struct {
	// Open opens the model that a recipe names. Its weights are not read; it may have no tokenizer. Not needed for recipes with init.
	Open func(ctx context.Context, name string) (*Base, error)
	// Devices are the kinds of device to plan for; nil: those of the CPU and CUDA that have the recipe's precision.
	Devices []devices.Kind
	// Memory is how many bytes a kind of device has; where it is 0 or absent, that is not known.
	Memory map[devices.Kind]int64
}

// Memory is what a recipe needs before anything is allocated. Sizes are in bytes and those of the very plans that a run would
// make.
type Memory struct {
	Model        string `json:"model"` // folder, or empty for a new one
	Parameters   int64  `json:"parameters"`
	Trained      int64  `json:"trained_parameters"`
	Method       string `json:"method"` // full, or lora with its rank
	Sequence     int    `json:"sequence"`
	MicroBatch   int    `json:"micro_batch"`
	Accumulation int    `json:"accumulation"`

	Columns []MemoryColumn `json:"columns"`
}

// MemoryColumn is what a recipe needs on one kind of device, with or without gradient checkpointing.
type MemoryColumn struct {
	Device        devices.Kind    `json:"device"`
	Checkpointing bool            `json:"gradient_checkpointing"`
	Recipe        bool            `json:"recipe"` // whether the recipe asks for this one of the two
	Precision     graph.Precision `json:"precision"`
	Storage       string          `json:"storage"` // how floats are kept

	Weights       int64 `json:"weights"`
	Masters       int64 `json:"masters"`   // of trained weights that are kept rounded
	Gradients     int64 `json:"gradients"` // 0 where they take the place of activations
	Optimizer     int64 `json:"optimizer"`
	InputsOutputs int64 `json:"inputs_outputs"`
	Activations   int64 `json:"activations"` // and their gradients: the most alive at once
	Workspace     int64 `json:"workspace"`   // of kernels, and gaps: the rest of the arena
	Total         int64 `json:"total"`       // what a run allocates, to the byte

	Kept []graph.Kept `json:"kept,omitempty"` // of the blocks: what is not computed again though it could be

	Beside            int64  `json:"beside"`                        // what the process needs beside the plans, roughly
	Memory            int64  `json:"memory,omitempty"`              // of the device; 0: not known
	LargestMicroBatch *int   `json:"largest_micro_batch,omitempty"` // that fits into Memory; nil: Memory is not known
	Tokens            int    `json:"largest_tokens,omitempty"`      // in that micro-batch
	Advice            []Step `json:"advice,omitempty"`              // what would fit, if the recipe's own micro-batch does not
}

// Step is a change of the recipe that makes it fit.
type Step struct {
	Sets  []string `json:"set"` // as --set takes them
	Total int64    `json:"total"`
}

// maxTokens bounds the micro-batches that are looked at.
const maxTokens = 1 << 24

// PlanMemory plans the recipe for each kind of device, with and without gradient checkpointing. Nothing is allocated and no weights
// are read.
func PlanMemory(ctx context.Context, r configs.Recipe, o MemoryOptions) (*Memory, error) {
	c, err := shapeOf(ctx, &r, o.Open)
	if err != nil {
		return nil, err
	}
	sequence, err := sequenceOf(&r, c)
	if err != nil {
		return nil, err
	}
	m := &Memory{Model: r.Model, Method: "full", Sequence: sequence, MicroBatch: r.Train.MicroBatch, Accumulation: r.Train.Accumulation}
	if r.LoRA != nil {
		m.Method = fmt.Sprintf("lora, rank %d", r.LoRA.Rank)
	}
	kinds := o.Devices
	float16 := r.Precision == string(graph.Float16)
	switch {
	case kinds == nil && float16:
		kinds = []devices.Kind{devices.CUDA}
	case kinds == nil:
		kinds = []devices.Kind{devices.CPU, devices.CUDA}
	case float16 && slices.Contains(kinds, devices.CPU):
		return nil, errNoFloat16
	}
	for _, k := range kinds {
		target, done := devices.Target(k, r.Threads)
		p := planner{ctx: ctx, recipe: r, config: c, kind: k, target: target, made: map[planKey]planned{}}
		columns, err := p.columns(o.Memory[k], m)
		done()
		if err != nil {
			return nil, fmt.Errorf("device %s: %w", k, err)
		}
		m.Columns = append(m.Columns, columns...)
	}
	return m, nil
}

// shapeOf returns the configuration of the recipe's model.
func shapeOf(ctx context.Context, r *configs.Recipe, open func(context.Context, string) (*Base, error)) (c model.Config, err error) {
	if i := r.Init; i != nil {
		tok, err := tokenizer.Load(i.Tokenizer)
		if err != nil {
			return c, err
		}
		return newConfig(i, tok)
	}
	if open == nil {
		return c, fmt.Errorf("model %s: no way to open models was given", r.Model)
	}
	b, err := open(ctx, r.Model)
	if err != nil {
		return c, err
	}
	if b.Close != nil {
		if err := b.Close(); err != nil {
			return c, err
		}
	}
	if b.Tokenizer == nil {
		return b.Config, nil
	}
	if c, err = b.Config.WithVocab(b.Tokenizer.VocabSize()); err != nil {
		return c, fmt.Errorf("model %s: %w", r.Model, err)
	}
	return c, nil
}

// planner makes the plans of a recipe for one kind of device.
type planner struct {
	ctx    context.Context
	recipe configs.Recipe
	config model.Config
	kind   devices.Kind
	target compute.Target
	made   map[planKey]planned
}

// planKey is what is varied: micro-batch and how many of them make a step, sequence, the adapters' rank (0: full training), and the memory
// that may be used to keep what checkpointing would compute again.
type planKey struct {
	batch, accumulation, sequence, rank int
	memoryGB                            float64
}

// within returns the key with no more to keep than fits into the bytes given.
func (k planKey) within(bytes int64) planKey {
	if gb := math.Floor(float64(bytes)/1e8) / 10; k.memoryGB > gb {
		k.memoryGB = max(0, gb)
	}
	return k
}

// of returns the key with micro-batches of n sequences, so many to a step.
func (k planKey) of(n, accumulation int) planKey {
	k.batch, k.accumulation = n, accumulation
	return k
}

// planned is what is kept of a plan.
type planned struct {
	usage               graph.Usage
	storage             compute.Storage
	parameters, trained int64
}

// total is what the plans need with one of the two ways to step.
func (p planned) total(checkpointing bool) int64 {
	return p.usage.Total() - p.usage.Arena + p.arena(checkpointing).AllPlans
}

func (p planned) arena(checkpointing bool) graph.ArenaUsage {
	if checkpointing {
		return p.usage.Checkpointed
	}
	return p.usage.Plain
}

func (p *planner) plan(k planKey) (planned, error) {
	k.accumulation = min(k.accumulation, 2) // more change no plan
	if made, ok := p.made[k]; ok {
		return made, nil
	}
	if err := p.ctx.Err(); err != nil {
		return planned{}, err
	}
	r := p.recipe
	r.Train.MicroBatch, r.Train.Accumulation, r.Train.MemoryGB = k.batch, k.accumulation, k.memoryGB
	var adapters []graph.Adapter
	if k.rank > 0 {
		l := configs.LoRA{Rank: k.rank, Alpha: 1, Targets: []string{lora.AllLinear}}
		if r.LoRA != nil {
			l = *r.LoRA
			l.Rank = k.rank
		}
		r.LoRA = &l
		modules, err := adapterSpec(&l).Modules(p.config)
		if err != nil {
			return planned{}, err
		}
		adapters = adaptersOf(modules, l.Dropout)
	}
	cfg := planConfig(&r, p.config, k.sequence, adapters, p.kind)
	t, err := graph.Build(cfg, p.target)
	if err != nil {
		return planned{}, err
	}
	made := planned{usage: t.Usage(), storage: cfg.Storage}
	for _, q := range t.Params() {
		n := int64(q.Weight.Len())
		made.parameters += n
		if q.Trained {
			made.trained += n
		}
	}
	p.made[k] = made
	return made, nil
}

// own is the recipe's own plan.
func (p *planner) own(sequence int) planKey {
	k := planKey{batch: p.recipe.Train.MicroBatch, accumulation: p.recipe.Train.Accumulation, sequence: sequence, memoryGB: p.recipe.Train.MemoryGB}
	if p.recipe.LoRA != nil {
		k.rank = p.recipe.LoRA.Rank
	}
	return k
}

// columns are the device's two.
func (p *planner) columns(memory int64, m *Memory) ([]MemoryColumn, error) {
	own := p.own(m.Sequence)
	made, err := p.plan(own)
	if err != nil {
		return nil, err
	}
	m.Parameters, m.Trained = made.parameters, made.trained
	var columns []MemoryColumn
	for _, checkpointing := range []bool{false, true} {
		u, a := made.usage, made.arena(checkpointing)
		c := MemoryColumn{
			Device: p.kind, Checkpointing: checkpointing, Recipe: checkpointing == p.recipe.Train.GradientCheckpointing,
			Precision: precision(p.recipe.Precision, p.kind), Storage: made.storage.String(),
			Weights: u.Weights, Masters: u.Masters, Gradients: u.Gradients, Optimizer: u.Moments, InputsOutputs: u.Inputs + u.Outputs,
			Activations: a.Activations, Workspace: a.AllPlans - a.Activations, Total: made.total(checkpointing),
			Kept: a.Kept, Beside: devices.Beside(p.kind), Memory: memory,
		}
		if memory > 0 {
			free := memory - c.Beside
			n, err := p.largest(own.within(free), checkpointing, free)
			if err != nil {
				return nil, err
			}
			c.LargestMicroBatch, c.Tokens = &n, n*m.Sequence
			if c.Recipe && (n < own.batch || c.Total > free) {
				if c.Advice, err = p.advise(own.within(free), n, free); err != nil {
					return nil, err
				}
			}
		}
		columns = append(columns, c)
	}
	return columns, nil
}

// largest returns the largest micro-batch whose plans fit into the bytes given, 0 if not even that of one sequence does. What a plan
// needs is all but linear in the micro-batch, so that few plans settle it.
func (p *planner) largest(k planKey, checkpointing bool, bytes int64) (int, error) {
	total := func(n int) (int64, error) {
		k.batch = n
		made, err := p.plan(k)
		return made.total(checkpointing), err
	}
	limit := max(1, maxTokens/k.sequence)
	one, err := total(1)
	if err != nil || one > bytes {
		return 0, err
	}
	low, atLow := 1, one // fits
	high := limit + 1    // does not, or is beyond what is looked at
	var slope float64
	if limit > 1 {
		two, err := total(2)
		if err != nil {
			return 0, err
		}
		if two > bytes {
			return 1, nil
		}
		low, atLow, slope = 2, two, float64(two-one)
	}
	for tries := 0; high-low > 1; tries++ {
		next := low + (high-low)/2
		if tries < 8 && slope > 0 {
			if guess := float64(low) + float64(bytes-atLow)/slope; guess < float64(high-1) {
				next = max(low+1, int(guess))
			} else {
				next = high - 1
			}
		}
		need, err := total(next)
		if err != nil {
			return 0, err
		}
		slope = math.Abs(float64(need-atLow)) / float64(next-low)
		if need > bytes {
			high = next
		} else {
			low, atLow = next, need
		}
	}
	return low, nil
}

// advise lists changes of the recipe, each enough by itself, after which its plans fit into the bytes given; fits is the largest
// micro-batch that does as it is.
func (p *planner) advise(own planKey, fits int, bytes int64) ([]Step, error) {
	var steps []Step
	try := func(k planKey, checkpointing bool, sets ...string) (bool, error) {
		made, err := p.plan(k)
		if err != nil || made.total(checkpointing) > bytes {
			return false, err
		}
		if checkpointing && !p.recipe.Train.GradientCheckpointing {
			sets = append(sets, "train.gradient_checkpointing=true")
		}
		if k.memoryGB != p.recipe.Train.MemoryGB {
			sets = append(sets, fmt.Sprintf("train.memory_gb=%v", k.memoryGB))
		}
		steps = append(steps, Step{sets, made.total(checkpointing)})
		return true, nil
	}
	windows := own.batch * own.accumulation
	batches := func(n int) []string {
		return []string{fmt.Sprintf("train.micro_batch=%d", n), fmt.Sprintf("train.accumulation=%d", windows/n)}
	}
	checkpointing := p.recipe.Train.GradientCheckpointing
	if fits >= own.batch { // with less kept
		_, err := try(own, checkpointing)
		return steps, err
	}
	if fits > 0 {
		// The largest that makes the same steps of more micro-batches; where none fits, shorter steps.
		for n := fits; n > 0; n-- {
			if windows%n != 0 {
				continue
			}
			if ok, err := try(own.of(n, windows/n), checkpointing, batches(n)...); ok || err != nil {
				return steps, err
			}
		}
		own.batch = fits
		_, err := try(own, checkpointing, fmt.Sprintf("train.micro_batch=%d", fits))
		return steps, err
	}
	one, sets := own, []string(nil)
	if own.batch > 1 {
		one, sets = own.of(1, windows), batches(1)
	}
	// with returns sets and more.
	with := func(more ...string) []string { return slices.Concat(sets, more) }
	if !checkpointing {
		if ok, err := try(one, true, with()...); ok || err != nil {
			return steps, err
		}
	}
	shorter := func(k planKey, more ...string) (bool, error) {
		for k.sequence /= 2; k.sequence >= 64; k.sequence /= 2 {
			if ok, err := try(k, true, with(append(more, fmt.Sprintf("data.sequence=%d", k.sequence))...)...); ok || err != nil {
				return ok, err
			}
		}
		return false, nil
	}
	if _, err := shorter(one); err != nil {
		return nil, err
	}
	if p.recipe.Init == nil && one.rank == 0 || one.rank > smallRank {
		small, more := one, fmt.Sprintf("lora.rank=%d", smallRank)
		if p.recipe.LoRA == nil {
			more = fmt.Sprintf("lora={rank: %d}", smallRank)
		}
		small.rank = smallRank
		ok, err := try(small, true, with(more)...)
		if !ok && err == nil {
			_, err = shorter(small, more)
		}
		if err != nil {
			return nil, err
		}
	}
	return steps, nil
}

// whatFits says in a line which changes of a recipe make its plans fit into the free bytes of a device.
func whatFits(ctx context.Context, r configs.Recipe, c model.Config, sequence int, k devices.Kind, free int64) string {
	target, done := devices.Target(k, r.Threads)
	defer done()
	p := planner{ctx: ctx, recipe: r, config: c, kind: k, target: target, made: map[planKey]planned{}}
	own := p.own(sequence).within(free)
	n, err := p.largest(own, r.Train.GradientCheckpointing, free)
	if err != nil {
		return ""
	}
	steps, err := p.advise(own, n, free)
	if err != nil {
		return ""
	}
	var ways []string
	for _, s := range steps {
		ways = append(ways, fmt.Sprintf("%s (%s)", setsText(s.Sets), bytesText(s.Total)))
	}
	if k != devices.CPU {
		if total, ok := onProcessor(ctx, r, c, sequence); ok {
			ways = append(ways, fmt.Sprintf("--device cpu (%s of this machine's memory)", bytesText(total)))
		}
	}
	if len(ways) == 0 {
		return "no smaller micro-batch or sequence would fit"
	}
	return "what would fit: " + strings.Join(ways, " or ")
}

// onProcessor returns the bytes that the recipe as it is needs on the processor; ok is false where this machine does not have them, or the processor not
// the recipe's precision.
func onProcessor(ctx context.Context, r configs.Recipe, c model.Config, sequence int) (total int64, ok bool) {
	if r.Precision == string(graph.Float16) {
		return 0, false
	}
	target, done := devices.Target(devices.CPU, r.Threads)
	defer done()
	p := planner{ctx: ctx, recipe: r, config: c, kind: devices.CPU, target: target, made: map[planKey]planned{}}
	made, err := p.plan(p.own(sequence))
	if err != nil {
		return 0, false
	}
	total = made.total(r.Train.GradientCheckpointing)
	return total, total+devices.Beside(devices.CPU) <= devices.Memory()
}

// smallRank is the rank of adapters that advice proposes.
const smallRank = 16
