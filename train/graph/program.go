package graph

import (
	"fmt"
	"slices"

	G "gorgonia.org/gorgonia"

	"autodev/compute"
)

// A program is a list of calls over values. A value is computed by one call and never changes, but for those with a fixed
// buffer that is an accumulator (a parameter's gradient), which several calls may add to.
type program struct {
	code []*instr
}

// value is a tensor of a program. fixed values are the caller's and the parameters'; the others get their buffer from place.
// A gradient that is not fixed stays to the end of the program.
type value struct {
	buf   compute.Buffer
	fixed bool
	grad  bool   // a parameter's gradient, which several calls may add to
	name  string // of a fixed value or a gradient
}

// phase is the part of a training step that a call belongs to.
type phase uint8

const (
	forward       phase = iota
	computedAgain       // of a checkpointed block, before its gradients
	backward
)

// instr is one call of a program; in and out follow the kernel's signature, nil where an operand is absent.
type instr struct {
	call    compute.Call // kernel, attributes, name
	in, out []*value
	phase   phase
	block   int

	// of orders the backward phase: gradients of later operations come first. fan marks a sum of gradients, which follows
	// its terms at once.
	of  int
	fan bool
}

// lowering turns a differentiated graph into a program.
type lowering struct {
	values map[*G.Node]*value
	code   []*instr
	byNode map[*G.Node]*instr
}

// lower lists the graph's operations as a program. gradOf gives the gradient node of every trained parameter and is empty
// for a graph that was not differentiated; fixed are the buffers of parameters and inputs by name, grads those of trained
// parameters' gradients, result that of the builder's result.
func lower(b *builder, gradOf map[string]*G.Node, fixed, grads map[string]compute.Buffer, result compute.Buffer) (*program, error) {
	l := &lowering{values: map[*G.Node]*value{}, byNode: map[*G.Node]*instr{}}
	for name, n := range b.params {
		l.values[n] = &value{buf: fixed[name], fixed: true, name: name}
	}
	for name, n := range b.inputs {
		l.values[n] = &value{buf: fixed[name], fixed: true, name: name}
	}
	l.values[b.result] = &value{buf: result, fixed: true, name: "result"}
	nodes := b.g.AllNodes()
	// A node is created after its children, so the order of creation is a valid one to execute.
	slices.SortFunc(nodes, func(x, y *G.Node) int { return int(x.ID() - y.ID()) })
	for _, n := range nodes {
		if err := l.add(b, n); err != nil {
			return nil, err
		}
	}
	for _, p := range sortedKeys(gradOf) {
		if err := l.accumulate(b, gradOf[p], &value{buf: grads[p], fixed: grads[p].Space != compute.Arena, grad: true, name: "d " + p}); err != nil {
			return nil, fmt.Errorf("gradient of %s: %w", p, err)
		}
	}
	p := &program{code: zeroed(schedule(l.code))}
	return p, p.check()
}

// add lists node n's operation.
func (l *lowering) add(b *builder, n *G.Node) error {
	children := childrenOf(b.g, n)
	if len(children) == 0 {
		return nil // a parameter, an input or the constant 1
	}
	o, ours := n.Op().(*op)
	if !ours {
		return l.addSum(n, children)
	}
	if o.pick > 0 {
		ce := l.byNode[children[0]]
		l.values[n] = ce.out[o.pick]
		return nil
	}
	in := &instr{call: compute.Call{Kernel: o.call.Kernel, Attr: o.call.Attr, Name: o.call.Name}, block: o.block, of: o.id}
	if o.of >= 0 {
		in.phase, in.of = backward, o.of
	}
	in.in = make([]*value, len(o.call.In))
	for i, c := range children {
		v := l.values[c]
		if v == nil {
			return fmt.Errorf("%s: operand %d is not computed before it", o.call.Name, i)
		}
		in.in[o.slot[i]] = v
	}
	for i, out := range o.call.Out {
		switch v := l.values[n]; {
		case i == 0 && v != nil:
			in.out = append(in.out, v)
		case out.Space == compute.None:
			in.out = append(in.out, nil)
		default:
			role := compute.Flow
			if accumulates(o.call.Kernel, i) {
				role = compute.Exact
			}
			out.DType = b.store.Of(role)
			v = &value{buf: out}
			in.out = append(in.out, v)
			if i == 0 {
				l.values[n] = v
			}
		}
	}
	l.byNode[n] = in
	l.code = append(l.code, in)
	return nil
}

// addSum lists a sum that gorgonia.Grad made of the gradients of a value used more than once.
func (l *lowering) addSum(n *G.Node, children []*G.Node) error {
	if !isSum(n) || len(children) != 2 {
		return fmt.Errorf("gorgonia made the operation %v, expected only sums", n.Op())
	}
	a, b := l.values[children[0]], l.values[children[1]]
	v := &value{buf: compute.Buffer{Space: compute.Arena, DType: a.buf.DType, Shape: a.buf.Shape}}
	in := &instr{call: compute.Call{Kernel: compute.Add, Name: "fan-out"}, in: []*value{a, b}, out: []*value{v}, phase: backward, fan: true, block: -1}
	in.of = 1 << 62
	for _, c := range l.code {
		if c.phase == backward && (slices.Contains(c.out, a) || slices.Contains(c.out, b)) {
			in.of = min(in.of, c.of)
			in.block = c.block
		}
	}
	l.values[n] = v
	l.byNode[n] = in
	l.code = append(l.code, in)
	return nil
}

// accumulate makes the kernels behind gradient node n of a parameter add to its gradient buffer directly. A sum of
// contributions becomes one accumulation after the other: the same bits as the sum, since a gradient kernel sums its own
// contribution before it adds it.
func (l *lowering) accumulate(b *builder, n *G.Node, dst *value) error {
	if in := l.byNode[n]; in != nil && in.fan {
		l.code = slices.DeleteFunc(l.code, func(c *instr) bool { return c == in })
		for _, c := range childrenOf(b.g, n) {
			if err := l.accumulate(b, c, dst); err != nil {
				return err
			}
		}
		return nil
	}
	src := l.values[n]
	for _, c := range l.code {
		if slices.Contains(c.in, src) {
			return fmt.Errorf("%s uses it as an operand", c.call.Name)
		}
		for i, v := range c.out {
			if v != src {
				continue
			}
			if !accumulates(c.call.Kernel, i) {
				return fmt.Errorf("%s: kernel %v does not accumulate", c.call.Name, c.call.Kernel)
			}
			c.out[i] = dst
		}
	}
	return nil
}

// accumulates reports whether a kernel adds to its output i.
func accumulates(k compute.Kernel, i int) bool {
	switch k {
	case compute.EmbedGrad, compute.LayerNormGainGrad, compute.LinearGradW, compute.BiasGrad:
		return true
	case compute.CrossEntropy:
		return i == 2
	}
	return false
}

// schedule orders calls: forward as created, then the gradients of the last operation first, so that a weight's gradient
// is computed as soon as its inputs exist and their memory is free again; a sum follows its last term.
func schedule(code []*instr) []*instr {
	code = slices.Clone(code)
	slices.SortStableFunc(code, func(a, b *instr) int {
		switch {
		case a.phase != b.phase:
			return int(a.phase) - int(b.phase)
		case a.phase == forward:
			return a.of - b.of
		case a.of != b.of:
			return b.of - a.of
		case a.fan != b.fan:
			if b.fan {
				return -1
			}
			return 1
		}
		return 0
	})
	return code
}

// zeroed returns code with a call of Zero before the first that adds to a gradient in the arena.
func zeroed(code []*instr) []*instr {
	var all []*instr
	done := map[*value]bool{}
	for _, c := range code {
		for _, v := range c.out {
			if v == nil || !v.grad || v.fixed || done[v] {
				continue
			}
			done[v] = true
			call := compute.Call{Kernel: compute.Zero, Name: v.name}
			all = append(all, &instr{call: call, out: []*value{v}, phase: c.phase, block: -1, of: c.of})
		}
		all = append(all, c)
	}
	return all
}

// check reports a value that is used before it is computed, or computed twice.
func (p *program) check() error {
	done := map[*value]bool{}
	for i, c := range p.code {
		for j, v := range c.in {
			if v != nil && !v.fixed && !done[v] {
				return fmt.Errorf("call %d, %s: operand %d is not computed before it", i, c.call.Name, j)
			}
		}
		for j, v := range c.out {
			if v == nil || v.fixed {
				continue
			}
			if v.grad && done[v] == (c.call.Kernel == compute.Zero) {
				return fmt.Errorf("call %d, %s: gradient %d is not zeroed once, before all else", i, c.call.Name, j)
			}
			if done[v] && !v.grad {
				return fmt.Errorf("call %d, %s: output %d is computed twice", i, c.call.Name, j)
			}
			done[v] = true
		}
	}
	return nil
}

// childrenOf returns the operands of a node in order.
func childrenOf(g *G.ExprGraph, n *G.Node) []*G.Node {
	var children []*G.Node
	if it := g.From(n.ID()); it != nil {
		for it.Next() {
			children = append(children, it.Node().(*G.Node))
		}
	}
	return children
}

// isSum reports whether n is Gorgonia's own elementwise addition.
func isSum(n *G.Node) bool {
	b, ok := n.Op().(interface {
		G.BinaryOp
		String() string
	})
	return ok && b.IsBinary() && b.String()[0] == '+'
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
