package graph

import (
	"errors"
	"fmt"

	G "gorgonia.org/gorgonia"

	"autodev/compute"
)

// Param is a parameter's entry in the directory of a Training.
type Param struct {
	Name    string
	Shape   []int
	Trained bool
	Group   int // which Hyper of Update applies, for a trained parameter

	Weight     compute.Buffer // what kernels read
	Master     compute.Buffer // of a trained parameter that Weight is a rounded copy of; else absent
	Grad, M, V compute.Buffer // of a trained parameter: gradient, AdamW's first and second moment
}

// Buffers are the caller's inputs and outputs.
type Buffers struct {
	IDs, Positions, DocStart, Targets compute.Buffer   // [batch·seq] i32
	Scale                             compute.Buffer   // [1], what a token's loss is multiplied by
	Key                               compute.Buffer   // [2] i32, dropout's key
	Hyper                             []compute.Buffer // per group, [8]

	Loss       compute.Buffer   // [1]
	NLL        compute.Buffer   // [batch·seq]
	SumSquares []compute.Buffer // [1] f64 each, of parts of the gradient
}

// Training is the plans of training a model on a device. Build makes it; Alloc gives it memory, after which it can run. Its
// methods must be called one at a time.
type Training struct {
	cfg    Config
	target compute.Target
	params []Param
	index  map[string]int
	io     Buffers

	step, eval, norm, update compute.Plan

	usage Usage
	hash  string
	net   network
	run   *run
}

// Build plans the training of cfg for target, which must be a compute.Device for the plans to be allocated and run. Nothing is
// allocated on the device. The error of an unusable configuration names what was found and expected.
func Build(cfg Config, target compute.Target) (*Training, error) {
	if cfg.DType == 0 {
		cfg.DType = compute.F32
	}
	if cfg.Precision == "" {
		cfg.Precision = Float32
	}
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("graph: %w", err)
	}
	net, err := cfg.network()
	if err != nil {
		return nil, fmt.Errorf("graph: %w", err)
	}
	t, err := build(cfg, net, target)
	if err != nil {
		return nil, fmt.Errorf("graph: %w", err)
	}
	return t, nil
}

// build is Build for any network.
func build(cfg Config, net network, target compute.Target) (*Training, error) {
	t := &Training{cfg: cfg, target: target, index: map[string]int{}, net: net}
	bytes, err := t.layOut()
	if err != nil {
		return nil, err
	}

	step, err := t.program(false)
	if err != nil {
		return nil, err
	}
	eval, err := t.program(true)
	if err != nil {
		return nil, err
	}
	t.hash = t.fingerprint(step)
	step = step.fuse()
	if target.FoldsSums() {
		step, eval = step.foldSums(), eval.foldSums()
	}
	if target.KeepsAttention() {
		step = step.keepAttention()
	}
	evaluation := eval.place(target)
	t.norm, t.update = t.optimizer()
	work := t.workOptimizer()
	// all is the arena of all plans beside each other, the step placed so.
	all := func(step placement) int64 {
		if cfg.Once { // gradients lie in the arena where the optimiser works
			return max(step.arena+work, evaluation.arena)
		}
		return max(step.arena, evaluation.arena, work)
	}
	t.usage = Usage{
		Weights: bytes[compute.Weights], Masters: bytes[compute.Masters], Gradients: bytes[compute.Grads], Moments: bytes[compute.Moments],
		Inputs: bytes[compute.Inputs], Outputs: bytes[compute.Outputs],
	}
	var fits func(placement) bool
	if beside := t.usage.Total(); cfg.Memory > 0 {
		fits = func(step placement) bool { return beside+all(step) <= cfg.Memory }
	}
	var chosen placement
	for _, way := range []struct {
		checkpointing bool
		usage         *ArenaUsage
	}{{false, &t.usage.Plain}, {true, &t.usage.Checkpointed}} {
		placed, kept := step.placeWithin(target, way.checkpointing, fits)
		*way.usage = placed.usage(all(placed), kept)
		if way.checkpointing == cfg.Checkpointing {
			chosen, t.usage.Arena = placed, way.usage.AllPlans
		}
	}
	t.step = compute.Plan{Calls: chosen.calls}
	t.eval = compute.Plan{Calls: evaluation.calls}
	if cfg.Once {
		t.placeGradients(chosen)
	}
	bytes[compute.Arena] = t.usage.Arena
	for _, p := range t.Plans() {
		p.Plan.Bytes = bytes
		for i := range p.Plan.Calls {
			if err := p.Plan.Calls[i].Check(); err != nil {
				return nil, fmt.Errorf("%s plan: call %d: %w", p.Name, i, err)
			}
		}
	}
	return t, nil
}

// NamedPlan is one of a Training's plans.
type NamedPlan struct {
	Name string
	Plan *compute.Plan
}

// Plans lists the plans, which share their memory: step computes the loss and adds to the gradients, eval computes the tokens'
// losses, norm the sum of the gradients' squares, update takes a step of the optimiser.
func (t *Training) Plans() []NamedPlan {
	return []NamedPlan{{"step", &t.step}, {"eval", &t.eval}, {"norm", &t.norm}, {"update", &t.update}}
}

// Params returns the directory of parameters, in the model's order with the adapters' at the end. The caller must not
// change it.
func (t *Training) Params() []Param { return t.params }

// Lookup returns the directory's entry of a parameter.
func (t *Training) Lookup(name string) (Param, bool) {
	i, ok := t.index[name]
	if !ok {
		return Param{}, false
	}
	return t.params[i], true
}

// Config returns what the plans were made for.
func (t *Training) Config() Config { return t.cfg }

// Buffers returns where inputs and outputs lie, for callers that use the plans directly.
func (t *Training) Buffers() Buffers { return t.io }

// maxGroups bounds Config.Group's results: Update wants a Hyper for every group up to the largest.
const maxGroups = 1 << 10

// layOut makes the directory and places everything but the arena.
func (t *Training) layOut() ([compute.NumSpaces]int64, error) {
	var bytes [compute.NumSpaces]int64
	take := func(s compute.Space, d compute.DType, shape ...int) compute.Buffer {
		b := compute.Buffer{Space: s, Offset: bytes[s], DType: d, Shape: shape}
		bytes[s] = align(b.Offset + b.Bytes())
		return b
	}
	store := t.cfg.storage()
	exact := store.Of(compute.Exact)
	groups, trained := 1, 0
	for _, s := range t.net.params {
		p := Param{Name: s.name, Shape: s.shape, Trained: t.cfg.trains(s.name)}
		p.Weight = take(compute.Weights, store.Of(compute.Parameter), s.shape...)
		if p.Trained {
			trained++
			if store.Masters() {
				p.Master = take(compute.Masters, exact, s.shape...)
			}
			p.M = take(compute.Moments, exact, s.shape...)
			p.Grad = p.M
			p.Grad.Space = compute.Grads
			if t.cfg.Once {
				p.Grad.Space, p.Grad.Offset = compute.Arena, 0 // until it is placed
			}
			if t.cfg.Group != nil {
				p.Group = t.cfg.Group(s.name, s.shape)
			}
			if p.Group < 0 || p.Group >= maxGroups {
				return bytes, fmt.Errorf("group %d of parameter %s, expected 0 to %d", p.Group, s.name, maxGroups-1)
			}
			groups = max(groups, p.Group+1)
		}
		t.index[s.name] = len(t.params)
		t.params = append(t.params, p)
	}
	for i := range t.params {
		if p := &t.params[i]; p.Trained {
			p.V = p.M
			p.V.Offset += bytes[compute.Moments]
		}
	}
	if !t.cfg.Once {
		bytes[compute.Grads] = bytes[compute.Moments]
	}
	bytes[compute.Moments] *= 2

	n := t.cfg.Batch * t.cfg.Seq
	t.io.IDs = take(compute.Inputs, compute.I32, n)
	t.io.Positions = take(compute.Inputs, compute.I32, n)
	t.io.DocStart = take(compute.Inputs, compute.I32, n)
	t.io.Targets = take(compute.Inputs, compute.I32, n)
	t.io.Scale = take(compute.Inputs, exact, 1)
	t.io.Key = take(compute.Inputs, compute.I32, 2)
	for range groups {
		t.io.Hyper = append(t.io.Hyper, take(compute.Inputs, exact, 8))
	}
	t.io.Loss = take(compute.Outputs, exact, 1)
	t.io.NLL = take(compute.Outputs, exact, n)
	t.io.SumSquares = append(t.io.SumSquares, take(compute.Outputs, compute.F64, 1))
	for i := 1; t.cfg.Once && i < trained; i++ {
		t.io.SumSquares = append(t.io.SumSquares, take(compute.Outputs, compute.F64, 1))
	}
	return bytes, nil
}

// program builds, differentiates and lowers the graph of a step, or of an evaluation.
func (t *Training) program(eval bool) (p *program, err error) {
	// Gorgonia panics on what it does not expect.
	defer func() {
		if r := recover(); r != nil {
			p, err = nil, fmt.Errorf("gorgonia panicked: %v", r)
		}
	}()
	b, gradOf, err := differentiate(&t.cfg, t.net, eval, nil)
	if err != nil {
		return nil, err
	}
	fixed := map[string]compute.Buffer{
		inIDs: t.io.IDs, inPositions: t.io.Positions, inDocStart: t.io.DocStart, inTargets: t.io.Targets,
		inScale: t.io.Scale, inKey: t.io.Key,
	}
	grads := map[string]compute.Buffer{}
	for _, p := range t.params {
		fixed[p.Name] = p.Weight
		if p.Trained {
			grads[p.Name] = p.Grad
		}
	}
	result := t.io.Loss
	if eval {
		result = t.io.NLL
	}
	return lower(b, gradOf, fixed, grads, result)
}

// differentiate builds the graph of net and, unless it is for evaluation, differentiates it with respect to the trained
// parameters.
func differentiate(cfg *Config, net network, eval bool, host compute.HostKernels) (*builder, map[string]*G.Node, error) {
	b := newBuilder(cfg, net, eval)
	b.host = host
	net.forward(b)
	if b.err != nil {
		return nil, nil, b.err
	}
	for _, a := range cfg.Adapters {
		if !b.adapted[a.Module] {
			return nil, nil, fmt.Errorf("adapter: %s is not a linear module of the model's blocks", a.Module)
		}
	}
	if b.result == nil {
		return nil, nil, errors.New("the model has no head")
	}
	if eval {
		return b, nil, nil
	}
	var names []string
	var nodes []*G.Node
	for _, p := range net.params {
		if n := b.params[p.name]; b.needs[n] {
			if b.g.To(n.ID()).Len() == 0 {
				return nil, nil, fmt.Errorf("parameter %s is trained, but the model does not use it", p.name)
			}
			names, nodes = append(names, p.name), append(nodes, n)
		}
	}
	if len(nodes) == 0 {
		return nil, nil, errors.New("no parameter is trained")
	}
	grads, err := G.Grad(b.result, nodes...)
	if err != nil {
		return nil, nil, err
	}
	gradOf := map[string]*G.Node{}
	for i, name := range names {
		gradOf[name] = grads[i]
	}
	return b, gradOf, nil
}

// optimizer lists the calls of the gradient norm and of an AdamW step.
func (t *Training) optimizer() (norm, update compute.Plan) {
	squares := func(name string, grad compute.Buffer) {
		norm.Calls = append(norm.Calls, compute.Call{
			Kernel: compute.SumSquares, Name: name,
			In: []compute.Buffer{grad}, Out: []compute.Buffer{t.io.SumSquares[len(norm.Calls)]},
		})
	}
	var end int64
	for _, p := range t.params {
		if !p.Trained {
			continue
		}
		end = align(p.Grad.Offset + p.Grad.Bytes())
		moved := []compute.Buffer{p.Weight, p.M, p.V}
		if p.Master.Space != compute.None {
			moved = []compute.Buffer{p.Master, p.M, p.V, p.Weight}
		}
		update.Calls = append(update.Calls, compute.Call{
			Kernel: compute.AdamW, Name: p.Name, In: []compute.Buffer{p.Grad, t.io.Hyper[p.Group]}, Out: moved,
		})
		if t.cfg.Once {
			squares("norm of "+p.Name, p.Grad)
		}
	}
	if !t.cfg.Once {
		// The padding between gradients is zero.
		squares("gradient norm", compute.Buffer{Space: compute.Grads, DType: t.cfg.DType, Shape: []int{int(end) / t.cfg.DType.Size()}})
	}
	return norm, update
}

// workOptimizer gives the optimiser's calls, which may need work space too, a place at the start of the arena and returns its bytes.
func (t *Training) workOptimizer() int64 {
	var work int64
	for _, p := range []*compute.Plan{&t.norm, &t.update} {
		for i := range p.Calls {
			if n := t.target.WorkBytes(&p.Calls[i]); n > 0 {
				p.Calls[i].Work = compute.Buffer{Space: compute.Arena, DType: compute.F32, Shape: []int{int((n + 3) / 4)}}
				work = max(work, align(n))
			}
		}
	}
	return work
}

// placeGradients says where the step leaves the gradients that lie in the arena: to the directory and to the optimiser, which then works
// behind the step's values.
func (t *Training) placeGradients(step placement) {
	for i := range t.params {
		if p := &t.params[i]; p.Trained {
			p.Grad.Offset = step.grads["d "+p.Name]
		}
	}
	t.norm, t.update = t.optimizer()
	t.workOptimizer()
	for _, p := range []*compute.Plan{&t.norm, &t.update} {
		for i := range p.Calls {
			if w := &p.Calls[i].Work; w.Space != compute.None {
				w.Offset = step.arena
			}
		}
	}
}
