package infer

import (
	"errors"
	"fmt"

	"autodev/compute/cuda"
)

// passKind is what the launches of a pass depend on.
type passKind struct {
	rows  int  // tokens, with those that only fill it up
	short bool // the rows are of spans of up to cuda.FewRows tokens
	fresh bool // nothing is before the tokens of the (long) spans
}

// pass is what is launched for a number of tokens.
type pass struct {
	inputs
	kind  passKind
	which int             // ofShort or ofLong
	first int             // of its rows, in the registers
	steps []cuda.Sequence // by step of the program; the head for short spans alone
	graph *cuda.Graph     // of all of them
	ran   bool
	end   ending        // of short spans, whose logits are among steps
	norm  cuda.Sequence // of short spans: the norm before the head, if the head has it in itself, for those who read what the head reads
}

// ending is what comes behind the last register of a number of rows.
type ending struct {
	logits cuda.Sequence
	chooser
}

// passRows returns how many rows a pass of n tokens has: some more than n, so that not every number of tokens is prepared on its own.
func passRows(n, most int) int {
	step := 16
	switch {
	case n <= 2:
		return n
	case n <= 4:
		step = 4
	case n <= cuda.FewRows:
		step = 8
	}
	for 8*step < n {
		step *= 2
	}
	return min((n+step-1)/step*step, most)
}

// pass returns what is launched for n tokens.
func (c *card) pass(q *cuda.Queue, n int, short, fresh bool) (_ *pass, err error) {
	most := c.chunk
	if short {
		most, fresh = cuda.FewRows, false
	}
	kind := passKind{passRows(n, most), short, fresh}
	if p := c.passes[kind]; p != nil {
		return p, nil
	}
	p := &pass{inputs: c.inputsFor(kind.rows, short), kind: kind}
	if !short {
		p.which, p.first = ofLong, cuda.FewRows
	}
	for i := range c.program.steps {
		ops, err := c.prepare(q, p, i)
		if err != nil {
			return nil, err
		}
		p.steps = append(p.steps, ops)
	}
	if short {
		if last := len(c.program.steps) - 1; c.norms.of[last] >= 0 {
			if p.norm, err = c.layerNorm(q, p, c.norms.of[last]); err != nil {
				return nil, err
			}
		}
		if p.end.chooser, err = c.chooser(q, ofShort, p.rows); err != nil {
			return nil, err
		}
	}
	c.passes[kind] = p
	return p, nil
}

// register returns where a register's rows begin that a pass has; none has the number −1.
func (c *card) register(p *pass, r int) cuda.Ptr {
	if r < 0 {
		return 0
	}
	return c.at.registers[r] + cuda.Ptr(p.first*c.program.widths[r]*c.store.Size())
}

// word returns the address of a word of a pass's inputs.
func (c *card) word(p *pass, i int) cuda.Ptr { return c.at.inputs[p.which] + cuda.Ptr(4*i) }

// prepare returns a step's launches.
func (c *card) prepare(q *cuda.Queue, p *pass, i int) (cuda.Sequence, error) {
	k, n, st := c.operations(q), p.rows, &c.program.steps[i]
	x, y, out := c.register(p, st.x), c.register(p, st.y), c.register(p, st.out)
	switch st.op {
	case opEmbed:
		w := st.weight
		return k.Embed(out, c.at.matrices[w], c.at.gain[i], c.word(p, p.ids), c.word(p, p.positions), n, w.out, len(st.positions)/w.in, w.in)
	case opLayerNorm:
		if p.kind.short && c.norms.within[i] {
			return nil, nil
		}
		return c.layerNorm(q, p, i)
	case opLinear:
		x, norm := c.normed(p, i)
		return k.Linear(cuda.Product{Norm: norm, Y: out, X: x, W: c.at.matrices[st.weight], Bias: c.at.bias[i], Base: y, N: n, In: st.weight.in, Out: st.weight.out, Activate: st.fused, Act: st.act})
	case opAttention:
		return c.attention(k, p, st, out, x)
	case opActivate:
		return k.Activation(out, x, n*c.program.widths[st.x], st.act)
	case opAdd:
		return k.Add(out, x, y, n*c.program.widths[st.x])
	case opHead:
		if !p.kind.short {
			return nil, nil
		}
		x, norm := c.normed(p, i)
		return k.Logits(c.at.logits, x, norm, c.at.matrices[st.weight], n, st.weight.in, st.weight.out)
	}
	return nil, fmt.Errorf("step %d of the model has no kernel on cards", i)
}

// attention puts the new tokens' keys and values into their pages. Those of short spans do so in attention itself. Of long ones, tokens with nothing before
// them attend to one another directly; others to what is in the pages, some at a time.
func (c *card) attention(k cuda.Inference, p *pass, st *step, y, qkv cuda.Ptr) (cuda.Sequence, error) {
	a, size := attributes(st.spec), c.store.Size()
	operands := func(part int) cuda.PagedOperands {
		row := part * attendRows
		return cuda.PagedOperands{
			Cache: c.at.cache[st.layer], Table: c.word(p, p.table), Sequences: c.word(p, p.sequences+row), Positions: c.word(p, p.positions+row),
			Tiles: c.word(p, p.runs+2*part*p.tiles), Work: c.at.work, Counts: c.at.counts,
		}
	}
	if p.kind.short {
		o := operands(0)
		o.Starts = c.word(p, p.starts)
		return k.Attend(y, qkv, c.paged(st, p.rows, p.tiles), o)
	}
	seq, err := k.Append(qkv, c.paged(st, p.rows, p.tiles), operands(0))
	if err != nil {
		return nil, err
	}
	if p.kind.fresh {
		ops, err := k.Attention(y, qkv, c.word(p, p.starts), p.rows, a)
		return append(seq, ops...), err
	}
	for part := range p.parts {
		row := part * attendRows
		ops, err := k.Attend(y+cuda.Ptr(row*a.Heads*a.HeadDim*size), qkv+cuda.Ptr(row*(a.Heads+2*a.KVHeads)*a.HeadDim*size), c.paged(st, p.partRows(part), p.tiles), operands(part))
		if err != nil {
			return nil, err
		}
		seq = append(seq, ops...)
	}
	return seq, nil
}

// ending returns the head of n gathered rows.
func (c *card) ending(q *cuda.Queue, n int) (*ending, error) {
	if e := c.heads[n]; e != nil {
		return e, nil
	}
	w := c.program.head()
	logits, err := c.operations(q).Logits(c.at.logits+cuda.Ptr(4*cuda.FewRows*c.rows), c.at.gathered, cuda.Norm{}, c.at.matrices[w], n, w.in, w.out)
	if err != nil {
		return nil, err
	}
	by, err := c.chooser(q, ofLong, n)
	if err != nil {
		return nil, err
	}
	c.heads[n] = &ending{logits, by}
	return c.heads[n], nil
}

// enqueue gives a pass to the device: that of short spans as a graph when it has run before, so that the libraries have loaded what
// they need, unless graphs are not wanted.
func (p *pass) enqueue(q *cuda.Queue) (err error) {
	all := func(each func(op cuda.Op) error) error {
		for _, step := range p.steps {
			for _, op := range step {
				if err := each(op); err != nil {
					return err
				}
			}
		}
		return nil
	}
	direct := func(op cuda.Op) error { return op.Enqueue(q) }
	switch {
	case !p.kind.short || !p.ran:
		p.ran = true
		return all(direct)
	case q.CallByCall():
		return all(func(op cuda.Op) error { return errors.Join(op.Enqueue(q), q.Sync()) })
	case p.graph == nil:
		if p.graph, err = q.Capture(func() error { return all(direct) }); err != nil {
			return err
		}
	}
	return p.graph.Enqueue(q)
}

// enqueueBeside gives the passes of short and of long spans to the device step by step, so that the second finds weights in the card's cache.
func enqueueBeside(q *cuda.Queue, short, long *pass) error {
	for i := range short.steps {
		if err := errors.Join(short.steps[i].Enqueue(q), long.steps[i].Enqueue(q)); err != nil {
			return err
		}
	}
	return nil
}
