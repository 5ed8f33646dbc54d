package cuda

import (
	"context"
	"errors"
	"fmt"
	"time"

	"autodev/compute"
	"autodev/compute/cuda/driver"
	"autodev/compute/cudaplan"
)

// WorkBytes implements compute.Device.
func (d *Device) WorkBytes(c *compute.Call) int64 { return cudaplan.WorkBytes(c) }

// KeepsAttention implements compute.Target.
func (d *Device) KeepsAttention() bool { return cudaplan.Target{}.KeepsAttention() }

// FoldsSums implements compute.Target.
func (d *Device) FoldsSums() bool { return cudaplan.Target{}.FoldsSums() }

var _ compute.Device = (*Device)(nil)

// Program is a plan made ready on a device. The first Run gives its calls to the device one by one, which lets the libraries load
// what they need; later ones launch captured graphs of chunkCalls calls each. It lives as long as its memory.
type Program struct {
	d      *Device
	mem    *Memory
	steps  []step
	checks rangeChecks
	chunks []chunk
	done   [2]driver.Event // after chunks of even and odd index
	ran    bool
}

var _ compute.Program = (*Program)(nil)

// step is a call, or a fusion of two, and the operations that do it.
type step struct {
	name string // of the call and its kernel, for people
	call int    // its index in the plan, the product's of a fusion
	ops  Sequence
}

// chunk is consecutive steps that one graph holds once it is captured. ctx is looked at between chunks.
type chunk struct {
	steps []step
	graph *Graph
}

// chunkCalls is how many calls a chunk has: some tens of milliseconds of a training step.
const chunkCalls = 96

// Compile implements compute.Device: it checks every call of the plan and prepares its launches.
func (d *Device) Compile(p *compute.Plan, mem compute.Memory) (compute.Program, error) {
	m, ok := mem.(*Memory)
	if !ok || m.d != d {
		return nil, fmt.Errorf("cuda: memory is a %T of another device, expected that of the same device", mem)
	}
	prog := &Program{d: d, mem: m}
	err := d.Do(func(q *Queue) error {
		err := prog.prepare(q, p)
		if err != nil {
			return errors.Join(err, prog.free(q))
		}
		m.programs = append(m.programs, prog)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return prog, nil
}

func (p *Program) prepare(q *Queue, plan *compute.Plan) (err error) {
	bounds := make([]bound, len(plan.Calls))
	for i := range plan.Calls {
		call := plan.Calls[i]
		if bounds[i], err = p.d.resolve(&call, p.mem); err != nil {
			return fmt.Errorf("cuda: call %d: %w", i, err)
		}
		for _, c := range bounds[i].indexes() {
			p.checks.add(c)
		}
	}
	var fused map[int]int
	if !p.d.options.Unfused {
		fused = cudaplan.Fusions(plan.Calls)
	}
	done := map[int]bool{} // activations that are part of a product
	for i := range bounds {
		b := &bounds[i]
		if done[i] {
			continue
		}
		if i+1 < len(bounds) && cudaplan.Overwrites(b.Call, bounds[i+1].Call) && !p.d.options.Unfused {
			bounds[i+1].fresh = true
			continue
		}
		fail := func(err error) error {
			return fmt.Errorf("cuda: call %d: %s: %v: %w", i, b.Name, b.Kernel, err)
		}
		if j, ok := fused[i]; ok {
			a := &bounds[j]
			ops, ok, err := b.prepareFused(q, a)
			if err != nil {
				return fail(err)
			}
			if ok {
				p.steps = append(p.steps, step{fmt.Sprintf("%s: %v with %v", b.Name, b.Kernel, a.Kernel), i, ops})
				done[j] = true
				continue
			}
		}
		ops, err := b.prepare(q)
		if err != nil {
			return fail(err)
		}
		p.steps = append(p.steps, step{fmt.Sprintf("%s: %v", b.Name, b.Kernel), i, ops})
	}
	for rest := p.steps; len(rest) > 0; {
		n := min(chunkCalls, len(rest))
		p.chunks = append(p.chunks, chunk{steps: rest[:n]})
		rest = rest[n:]
	}
	for i := range p.done {
		if p.done[i], err = q.d.api.NewEvent(false); err != nil {
			return q.d.note(err)
		}
	}
	return p.checks.prepare(q)
}

// free frees what the program holds on the device.
func (p *Program) free(q *Queue) error {
	errs := []error{p.checks.free(q)}
	for i := range p.chunks {
		if g := p.chunks[i].graph; g != nil {
			errs = append(errs, g.Free(q))
			p.chunks[i].graph = nil
		}
	}
	for i, e := range p.done {
		if e != 0 {
			errs = append(errs, q.d.note(q.d.api.DestroyEvent(e)))
			p.done[i] = 0
		}
	}
	return errors.Join(errs...)
}

// Run implements compute.Program. An id, position, target or document start that its table does not hold is a
// *compute.RangeError, after all calls have run.
func (p *Program) Run(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return p.d.Do(func(q *Queue) error {
		if p.mem.freed {
			return fmt.Errorf("cuda: run: %w", errFreed)
		}
		err := p.checks.Enqueue(q)
		if err == nil {
			err = p.enqueue(ctx, q)
		}
		// The device is idle whenever Run has returned: what the caller writes next must not meet what is still being read.
		if synced := q.Sync(); err == nil && synced != nil {
			err = p.at(len(p.chunks)-1, synced)
		}
		if err != nil {
			return err
		}
		p.ran = true
		return p.checks.wrong(q)
	})
}

// enqueue gives all chunks to the device. It waits for the chunk before the last, so that one is always in the device's hands while
// ctx is looked at and the next is given.
func (p *Program) enqueue(ctx context.Context, q *Queue) error {
	for i := range p.chunks {
		if err := ctx.Err(); err != nil {
			return err
		}
		c := &p.chunks[i]
		var err error
		switch {
		case p.d.options.CallByCall:
			err = c.callByCall(ctx, q)
		case p.ran:
			if err = c.launch(q); err != nil {
				err = p.at(i, err)
			}
		default:
			err = c.enqueue(q)
		}
		if err != nil {
			return err
		}
		if err := p.d.note(p.d.api.RecordEvent(p.done[i%2], q.stream)); err != nil {
			return err
		}
		if i > 0 {
			if err := p.d.note(p.d.api.SyncEvent(p.done[(i-1)%2])); err != nil {
				return p.at(i-1, err)
			}
		}
	}
	return nil
}

// at says of an error that was seen after a chunk which calls it may come from.
func (p *Program) at(chunk int, err error) error {
	if chunk < 0 {
		return fmt.Errorf("cuda: %w", err)
	}
	steps := p.chunks[chunk].steps
	return fmt.Errorf("cuda: among the calls from %s to %s, or soon after: %w", steps[0].name, steps[len(steps)-1].name, err)
}

// enqueue gives the chunk's operations to the device.
func (c *chunk) enqueue(q *Queue) error {
	for _, s := range c.steps {
		if err := s.ops.Enqueue(q); err != nil {
			return fmt.Errorf("cuda: call %s: %w", s.name, err)
		}
	}
	return nil
}

// launch gives the chunk's graph to the device, which is captured if there is none yet.
func (c *chunk) launch(q *Queue) (err error) {
	if c.graph == nil {
		if c.graph, err = q.Capture(func() error { return c.enqueue(q) }); err != nil {
			return err
		}
	}
	return c.graph.Enqueue(q)
}

// callByCall gives the calls to the device one after the other and waits for each, so that an error names its call.
func (c *chunk) callByCall(ctx context.Context, q *Queue) error {
	for _, s := range c.steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := s.ops.Enqueue(q)
		if err == nil {
			err = q.Sync()
		}
		if err != nil {
			return fmt.Errorf("cuda: call %s: %w", s.name, err)
		}
	}
	return nil
}

// CallTime is how long the device took for a call.
type CallTime struct {
	Name string // of the call and its kernel
	Call int    // its index in the plan; of a product and its activation in one, the product's
	Took time.Duration
}

// Profile runs the program call by call and returns how long the device took for each, in the plan's order.
func (p *Program) Profile(ctx context.Context) ([]CallTime, error) {
	var times []CallTime
	err := p.d.Do(func(q *Queue) error {
		if p.mem.freed {
			return fmt.Errorf("cuda: profile: %w", errFreed)
		}
		for _, s := range p.steps {
			if err := ctx.Err(); err != nil {
				return err
			}
			took, err := q.Time(func() error { return s.ops.Enqueue(q) })
			if err != nil {
				return fmt.Errorf("cuda: call %s: %w", s.name, err)
			}
			times = append(times, CallTime{s.name, s.call, took})
		}
		return nil
	})
	return times, err
}
