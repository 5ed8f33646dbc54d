package cpu

import (
	"context"
	"fmt"

	"autodev/compute"
)

// program implements compute.Program.
type program struct {
	mem   *memory
	steps []func() error
}

// Compile implements compute.Device.
func (d *Device) Compile(p *compute.Plan, mem compute.Memory) (compute.Program, error) {
	m, ok := mem.(*memory)
	if !ok {
		return nil, fmt.Errorf("cpu: memory is a %T, expected that of the same device", mem)
	}
	prog := &program{mem: m, steps: make([]func() error, 0, len(p.Calls))}
	for i := range p.Calls {
		step, err := d.compile(&p.Calls[i], m)
		if err != nil {
			return nil, fmt.Errorf("cpu: call %d: %w", i, err)
		}
		prog.steps = append(prog.steps, step)
	}
	return prog, nil
}

func (d *Device) compile(c *compute.Call, m *memory) (func() error, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	if err := c.CheckOverlap(); err != nil {
		return nil, err
	}
	hosts := func(role string, buffers []compute.Buffer) (all [compute.MaxOperands]compute.Host, err error) {
		for i, b := range buffers {
			if all[i], err = m.host(b); err != nil {
				return all, fmt.Errorf("%s: %v: %s %d: %w", c.Name, c.Kernel, role, i, err)
			}
		}
		return all, nil
	}
	in, err := hosts("input", c.In)
	if err != nil {
		return nil, err
	}
	out, err := hosts("output", c.Out)
	if err != nil {
		return nil, err
	}
	var work []float32
	if need := d.kernels.work(c); need > 0 {
		b, err := m.region(c.Work)
		if err != nil {
			return nil, fmt.Errorf("%s: %v: work: %w", c.Name, c.Kernel, err)
		}
		if work = view[float32](b); len(work) < need {
			return nil, fmt.Errorf("%s: %v: work has %d bytes, expected at least %d", c.Name, c.Kernel, len(b), 4*need)
		}
	}
	call := *c
	step, err := d.kernels.bind(&call, in, out, work)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Name, err)
	}
	return step, nil
}

// Run implements compute.Program.
func (p *program) Run(ctx context.Context) error {
	if p.mem.freed {
		return fmt.Errorf("cpu: run: %w", errFreed)
	}
	for _, step := range p.steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
