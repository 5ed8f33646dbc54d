package graph

import (
	"context"
	"errors"
	"fmt"
	"math"

	"autodev/compute"
)

// run is a Training's memory and its plans made ready on it.
type run struct {
	mem                      compute.Memory
	step, eval, norm, update compute.Program
}

var errNotAllocated = errors.New("graph: no memory: call Alloc first")

// Alloc allocates the memory of a run on the device, zeroed, and makes the plans ready on it.
func (t *Training) Alloc() error {
	if t.run != nil {
		return errors.New("graph: memory is already allocated")
	}
	dev, ok := t.target.(compute.Device)
	if !ok {
		return fmt.Errorf("graph: allocate %d bytes on %s: the plans were made without the device", t.usage.Total(), t.target.Name())
	}
	mem, err := dev.Alloc(t.step.Bytes)
	if err != nil {
		return fmt.Errorf("graph: allocate %d bytes on %s: %w", t.usage.Total(), dev.Name(), err)
	}
	r := &run{mem: mem}
	for i, p := range []*compute.Program{&r.step, &r.eval, &r.norm, &r.update} {
		plan := t.Plans()[i]
		if *p, err = dev.Compile(plan.Plan, mem); err != nil {
			return errors.Join(fmt.Errorf("graph: %s plan: %w", plan.Name, err), mem.Free())
		}
	}
	t.run = r
	return nil
}

// Free releases the memory of the run; Alloc may follow.
func (t *Training) Free() error {
	if t.run == nil {
		return nil
	}
	mem := t.run.mem
	t.run = nil
	return mem.Free()
}

// Batch is a micro-batch of Batch sequences of Seq tokens, one after the other. Each slice has an element per token.
type Batch struct {
	IDs []int32
	// Positions in the table of positions; nil counts from 0 in each sequence.
	Positions []int32
	// DocStart is where in its sequence a token's document starts: attention sees nothing before it. nil is 0.
	DocStart []int32
	// Targets are the tokens to predict; negative ones are not scored.
	Targets []int32
}

// write checks a batch and copies it to the device.
func (t *Training) write(b Batch) error {
	if t.run == nil {
		return errNotAllocated
	}
	n := t.cfg.Batch * t.cfg.Seq
	if b.Positions == nil {
		b.Positions = make([]int32, n)
		for i := range b.Positions {
			b.Positions[i] = int32(i % t.cfg.Seq)
		}
	}
	if b.DocStart == nil {
		b.DocStart = make([]int32, n)
	}
	inputs := []struct {
		name string
		buf  compute.Buffer
		data []int32
	}{
		{inIDs, t.io.IDs, b.IDs}, {inPositions, t.io.Positions, b.Positions},
		{inDocStart, t.io.DocStart, b.DocStart}, {inTargets, t.io.Targets, b.Targets},
	}
	for _, in := range inputs {
		if len(in.data) != n {
			return fmt.Errorf("graph: batch: %s has %d tokens, expected %d sequences of %d", in.name, len(in.data), t.cfg.Batch, t.cfg.Seq)
		}
	}
	if err := t.checkRanges(b); err != nil {
		return fmt.Errorf("graph: batch: %w", err)
	}
	for _, in := range inputs {
		if err := t.run.mem.Write(in.buf, in.data); err != nil {
			return fmt.Errorf("graph: %s: %w", in.name, err)
		}
	}
	return nil
}

// checkRanges reports the first id, position, document start or target that the model's tables do not hold.
func (t *Training) checkRanges(b Batch) error {
	for i := range t.eval.Calls {
		c := &t.eval.Calls[i]
		switch c.Kernel {
		case compute.Embed:
			if err := compute.CheckIDs(inIDs, b.IDs, c.In[0].Shape[0]); err != nil {
				return err
			}
			if err := compute.CheckIDs(inPositions, b.Positions, c.In[1].Shape[0]); err != nil {
				return err
			}
		case compute.TokenNLL:
			if err := compute.CheckTargets(b.Targets, c.Attr.Vocab); err != nil {
				return err
			}
		}
	}
	return compute.CheckDocStart(b.DocStart, t.cfg.Seq)
}

// MicroStep computes scale·Σ −log p(target) over the batch's scored tokens and adds its gradients to those there are. key
// is dropout's: every micro-batch of a run needs its own. With Config.Once there are no gradients before.
func (t *Training) MicroStep(ctx context.Context, b Batch, scale float32, key [2]int32) (loss float64, err error) {
	if err := t.write(b); err != nil {
		return 0, err
	}
	if err := t.run.mem.Write(t.io.Key, key[:]); err != nil {
		return 0, fmt.Errorf("graph: key: %w", err)
	}
	if err := t.writeFloats(t.io.Scale, []float32{scale}); err != nil {
		return 0, fmt.Errorf("graph: scale: %w", err)
	}
	if err := t.run.step.Run(ctx); err != nil {
		return 0, fmt.Errorf("graph: step: %w", err)
	}
	l, err := t.readFloats(t.io.Loss)
	if err != nil {
		return 0, fmt.Errorf("graph: loss: %w", err)
	}
	return l[0], nil
}

// NLL returns −log p(target) of every token, in nats, 0 where the target is negative. There is no dropout.
func (t *Training) NLL(ctx context.Context, b Batch) ([]float32, error) {
	if err := t.write(b); err != nil {
		return nil, err
	}
	if err := t.run.eval.Run(ctx); err != nil {
		return nil, fmt.Errorf("graph: evaluation: %w", err)
	}
	return t.read(t.io.NLL)
}

// ZeroGrads forgets the gradients. With Config.Once it need not be called.
func (t *Training) ZeroGrads() error {
	if t.run == nil {
		return errNotAllocated
	}
	return t.run.mem.Zero(compute.Grads)
}

// GradNorm returns the Euclidean norm of all gradients.
func (t *Training) GradNorm(ctx context.Context) (float64, error) {
	if t.run == nil {
		return 0, errNotAllocated
	}
	if err := t.run.norm.Run(ctx); err != nil {
		return 0, fmt.Errorf("graph: gradient norm: %w", err)
	}
	// They lie side by side: one copy brings them all.
	all := t.io.SumSquares[0]
	size := int64(all.DType.Size())
	end := t.io.SumSquares[len(t.io.SumSquares)-1].Offset + size
	all.Shape = []int{int((end - all.Offset) / size)}
	sums := make([]float64, all.Len())
	if err := t.run.mem.Read(all, sums); err != nil {
		return 0, fmt.Errorf("graph: gradient norm: %w", err)
	}
	total := 0.0
	for _, b := range t.io.SumSquares {
		total += sums[(b.Offset-all.Offset)/size]
	}
	return math.Sqrt(total), nil
}

// Hyper is the settings of one AdamW step for a group of parameters (Loshchilov, Hutter 2019).
type Hyper struct {
	LearningRate, Beta1, Beta2, Epsilon, WeightDecay float64
}

// Update takes AdamW's step number step, counted from 1, with the gradients times multiplier (for clipping) and a Hyper per
// group.
func (t *Training) Update(ctx context.Context, step int, multiplier float64, groups ...Hyper) error {
	if t.run == nil {
		return errNotAllocated
	}
	if step < 1 {
		return fmt.Errorf("graph: update: step %d, expected at least 1", step)
	}
	if len(groups) != len(t.io.Hyper) {
		return fmt.Errorf("graph: update: settings of %d groups, expected %d", len(groups), len(t.io.Hyper))
	}
	for i, h := range groups {
		n := float64(step)
		v := []float64{
			h.LearningRate, h.Beta1, h.Beta2, h.Epsilon, h.WeightDecay,
			1 - math.Pow(h.Beta1, n), 1 - math.Pow(h.Beta2, n), multiplier,
		}
		var err error
		if t.cfg.DType == compute.F64 {
			err = t.run.mem.Write(t.io.Hyper[i], v)
		} else {
			err = t.run.mem.Write(t.io.Hyper[i], convert[float32](v))
		}
		if err != nil {
			return fmt.Errorf("graph: update: %w", err)
		}
	}
	if err := t.run.update.Run(ctx); err != nil {
		return fmt.Errorf("graph: update: %w", err)
	}
	return nil
}

// SetParam sets a parameter's weights, rounded where they are kept in a shorter type. Those that float16 cannot hold are an error where it is that.
func (t *Training) SetParam(name string, data []float32) error {
	if p, ok := t.Lookup(name); ok && p.Master.Space != compute.None {
		if err := t.set(name, "master", data, func(p Param) compute.Buffer { return p.Master }); err != nil {
			return err
		}
	}
	return t.set(name, "weights", data, func(p Param) compute.Buffer { return p.Weight })
}

// Param returns a parameter's weights, in full where they are kept so (Param.Master).
func (t *Training) Param(name string) ([]float32, error) { return t.get(name, "weights", Param.full) }

// full returns where the parameter's weights are in full.
func (p Param) full() compute.Buffer {
	if p.Master.Space != compute.None {
		return p.Master
	}
	return p.Weight
}

// Grad returns a trained parameter's gradient.
func (t *Training) Grad(name string) ([]float32, error) {
	return t.get(name, "gradient", func(p Param) compute.Buffer { return p.Grad })
}

// Moments returns AdamW's first and second moments of a trained parameter.
func (t *Training) Moments(name string) (m, v []float32, err error) {
	if m, err = t.get(name, "first moment", func(p Param) compute.Buffer { return p.M }); err != nil {
		return nil, nil, err
	}
	v, err = t.get(name, "second moment", func(p Param) compute.Buffer { return p.V })
	return m, v, err
}

// SetMoments sets AdamW's first and second moments of a trained parameter.
func (t *Training) SetMoments(name string, m, v []float32) error {
	if err := t.set(name, "first moment", m, func(p Param) compute.Buffer { return p.M }); err != nil {
		return err
	}
	return t.set(name, "second moment", v, func(p Param) compute.Buffer { return p.V })
}

// View returns a parameter's weights and, of a trained one, AdamW's moments where they lie, valid until Free, if they are
// float32 in memory that the host sees; else ok is false. A run that saves through it needs no second copy of them.
func (t *Training) View(name string) (weights, m, v []float32, ok bool) {
	if t.run == nil {
		return nil, nil, nil, false
	}
	visible, ok := t.run.mem.(compute.Visible)
	p, found := t.Lookup(name)
	full := p.full()
	if !ok || !found || full.DType != compute.F32 {
		return nil, nil, nil, false
	}
	for b, dst := range map[*compute.Buffer]*[]float32{&full: &weights, &p.M: &m, &p.V: &v} {
		if b.Space == compute.None {
			continue
		}
		h, err := visible.View(*b)
		if err != nil {
			return nil, nil, nil, false
		}
		*dst = h.F32
	}
	return weights, m, v, true
}

func (t *Training) buffer(name, part string, of func(Param) compute.Buffer) (compute.Buffer, error) {
	if t.run == nil {
		return compute.Buffer{}, errNotAllocated
	}
	p, ok := t.Lookup(name)
	if !ok {
		return compute.Buffer{}, fmt.Errorf("graph: no parameter %q", name)
	}
	b := of(p)
	if b.Space == compute.None {
		return b, fmt.Errorf("graph: parameter %s is frozen: it has no %s", name, part)
	}
	return b, nil
}

func (t *Training) get(name, part string, of func(Param) compute.Buffer) ([]float32, error) {
	b, err := t.buffer(name, part, of)
	if err != nil {
		return nil, err
	}
	data, err := t.read(b)
	if err != nil {
		return nil, fmt.Errorf("graph: %s of %s: %w", part, name, err)
	}
	return data, nil
}

func (t *Training) set(name, part string, data []float32, of func(Param) compute.Buffer) error {
	b, err := t.buffer(name, part, of)
	if err != nil {
		return err
	}
	if len(data) != b.Len() {
		return fmt.Errorf("graph: %s of %s: %d elements, expected %d for shape %v", part, name, len(data), b.Len(), b.Shape)
	}
	if err := t.writeFloats(b, data); err != nil {
		return fmt.Errorf("graph: %s of %s: %w", part, name, err)
	}
	return nil
}

// writeFloats writes floats in the buffer's type.
func (t *Training) writeFloats(b compute.Buffer, data []float32) error {
	switch b.DType {
	case compute.F64:
		return t.run.mem.Write(b, convert[float64](data))
	case compute.BF16, compute.F16:
		if b.DType == compute.F16 {
			if err := compute.CheckF16(data); err != nil {
				return err
			}
		}
		return t.run.mem.Write(b, compute.ToShort(b.DType, data))
	}
	return t.run.mem.Write(b, data)
}

// read returns a buffer's floats, rounded if the plans are of float64.
func (t *Training) read(b compute.Buffer) ([]float32, error) {
	switch b.DType {
	case compute.F64:
		d, err := t.readFloats(b)
		return convert[float32](d), err
	case compute.BF16, compute.F16:
		bits := make([]uint16, b.Len())
		err := t.run.mem.Read(b, bits)
		return compute.FromShort(b.DType, bits), err
	}
	d := make([]float32, b.Len())
	return d, t.run.mem.Read(b, d)
}

// readFloats returns a buffer's floats as float64.
func (t *Training) readFloats(b compute.Buffer) ([]float64, error) {
	if b.DType == compute.F32 {
		d, err := t.read(b)
		return convert[float64](d), err
	}
	d := make([]float64, b.Len())
	return d, t.run.mem.Read(b, d)
}

func convert[To, From float32 | float64](from []From) []To {
	to := make([]To, len(from))
	for i, x := range from {
		to[i] = To(x)
	}
	return to
}
