package infer

import (
	"fmt"
	"slices"

	"autodev/compute"
	"autodev/model"
)

type opcode uint8

const (
	opEmbed opcode = iota
	opLayerNorm
	opLinear
	opAttention
	opActivate
	opAdd
	opHead
)

// step is one kernel of the forward pass. x, y and out are registers: rows of scratch memory, one row per token.
type step struct {
	op        opcode
	x, y, out int
	block     int // −1 outside the blocks

	positions  []float32 // embed
	gain, bias []float32 // layer norm; bias also linear
	epsilon    float64
	weight     *matrix // embed: the table; linear, head
	// What follows a linear at once on its rows: act when fused, or the sum with y unless it is −1.
	fused bool
	codes bool // only products with quantised weights read out, the next steps: it may be left in their codes alone
	layer int  // attention
	spec  model.AttentionSpec
	act   compute.Act
}

// program is a model's forward pass, traced once: steps over registers that are used again as soon as their value is.
type program struct {
	steps  []step
	widths []int // of the registers
	layers int   // of the key/value cache
	// From step narrow on, the last attention, which still puts the keys and values of all tokens into the cache, there are rows for
	// those tokens alone whose logits are wanted. The registers kept hold what was computed before it and is read behind it.
	narrow int
	kept   []int
	kv     int // floats per token and layer of K (and of V)
}

// head returns the matrix of the last step.
func (p *program) head() *matrix { return p.steps[len(p.steps)-1].weight }

// bytes returns the memory of the matrices.
func (p *program) bytes() (n int64) {
	var seen []*matrix
	for i := range p.steps {
		w := p.steps[i].weight
		if w == nil || slices.Contains(seen, w) {
			continue
		}
		seen = append(seen, w)
		if f := w.now(); f.quant != nil {
			n += int64(f.quant.Bytes())
		} else if f.packed != nil {
			n += int64(f.packed.Bytes())
		}
	}
	return n
}

// value is a traced activation: what a register holds from the step that makes it to the last that reads it.
type value struct{ width, lastUse, register int }

// tracer records model.Forward as a program. It implements model.Builder; its handle is the index of a value.
type tracer struct {
	source weightSource
	block  int
	steps  []step // registers are indexes of values until allocate
	values []value
	err    error
}

// weightSource gives the tracer a model's parameters.
type weightSource interface {
	vector(name string, n int) ([]float32, error)
	table(name string) (data []float32, cols int, err error) // [rows, cols]
	matrix(name string) (*matrix, error)                     // the same one for the same name
	has(name string) bool
}

func (t *tracer) fail(err error) int {
	if t.err == nil && err != nil {
		t.err = err
	}
	return -1
}

// add records a step that makes a value of the given width and returns it.
func (t *tracer) add(s step, width int) int {
	s.block = t.block
	if width > 0 {
		s.out = len(t.values)
		t.values = append(t.values, value{width: width})
	} else {
		s.out = -1
	}
	t.steps = append(t.steps, s)
	return s.out
}

func (t *tracer) Block(i int) { t.block = i }

func (t *tracer) Embed(table, positions string) int {
	if t.err != nil {
		return -1
	}
	w, err := t.source.matrix(table)
	if err != nil {
		return t.fail(err)
	}
	p, pe, err := t.source.table(positions)
	if err != nil {
		return t.fail(err)
	}
	if w.in != pe {
		return t.fail(fmt.Errorf("tensor %s: %d columns, expected the %d of %s", positions, pe, w.in, table))
	}
	return t.add(step{op: opEmbed, x: -1, y: -1, weight: w, positions: p}, w.in)
}

func (t *tracer) LayerNorm(x int, module string, epsilon float64) int {
	if t.err != nil {
		return -1
	}
	n := t.values[x].width
	gain, err := t.source.vector(module+".weight", n)
	if err != nil {
		return t.fail(err)
	}
	bias, err := t.source.vector(module+".bias", n)
	if err != nil {
		return t.fail(err)
	}
	return t.add(step{op: opLayerNorm, x: x, y: -1, gain: gain, bias: bias, epsilon: epsilon}, n)
}

func (t *tracer) Linear(x int, module string) int {
	if t.err != nil {
		return -1
	}
	w, err := t.source.matrix(module + ".weight")
	if err != nil {
		return t.fail(err)
	}
	if w.in != t.values[x].width {
		return t.fail(fmt.Errorf("tensor %s.weight: %d columns, expected %d", module, w.in, t.values[x].width))
	}
	s := step{op: opLinear, x: x, y: -1, weight: w}
	if t.source.has(module + ".bias") {
		if s.bias, err = t.source.vector(module+".bias", w.out); err != nil {
			return t.fail(err)
		}
	}
	return t.add(s, w.out)
}

func (t *tracer) Attention(qkv, layer int, spec model.AttentionSpec) int {
	if t.err != nil {
		return -1
	}
	want := (spec.Heads + 2*spec.KVHeads) * spec.HeadDim
	if got := t.values[qkv].width; got != want {
		return t.fail(fmt.Errorf("attention of layer %d: queries, keys and values are %d wide, expected %d", layer, got, want))
	}
	return t.add(step{op: opAttention, x: qkv, y: -1, layer: layer, spec: spec}, spec.Heads*spec.HeadDim)
}

func (t *tracer) Activate(x int, act compute.Act) int {
	if t.err != nil {
		return -1
	}
	return t.add(step{op: opActivate, x: x, y: -1, act: act}, t.values[x].width)
}

func (t *tracer) Add(x, y int) int {
	if t.err != nil {
		return -1
	}
	if a, b := t.values[x].width, t.values[y].width; a != b {
		return t.fail(fmt.Errorf("sum of activations %d and %d wide, expected equal widths", a, b))
	}
	return t.add(step{op: opAdd, x: x, y: y}, t.values[x].width)
}

// Dropout is the identity: nothing is dropped outside training.
func (t *tracer) Dropout(x int, _ float64) int { return x }

func (t *tracer) Head(x int, weight string) {
	if t.err != nil {
		return
	}
	w, err := t.source.matrix(weight)
	if err != nil {
		t.fail(err)
		return
	}
	if w.in != t.values[x].width {
		t.fail(fmt.Errorf("tensor %s: %d columns, expected %d", weight, w.in, t.values[x].width))
		return
	}
	t.add(step{op: opHead, x: x, y: -1, weight: w}, 0)
}

// fuse makes an activation that alone reads a linear, and a sum of a linear that nothing else reads with something older,
// part of the linear's step: its rows are in the cache then.
func (t *tracer) fuse() {
	uses := make([]int, len(t.values))
	maker := make([]int, len(t.values))
	for i, s := range t.steps {
		for _, v := range []int{s.x, s.y} {
			if v >= 0 {
				uses[v]++
			}
		}
		if s.out >= 0 {
			maker[s.out] = i
		}
	}
	// linear returns the step that makes v when what follows it can become part of it.
	linear := func(v int) *step {
		if s := &t.steps[maker[v]]; s.op == opLinear && uses[v] == 1 && s.y < 0 {
			return s
		}
		return nil
	}
	gone := make([]bool, len(t.steps))
	for i, s := range t.steps {
		switch s.op {
		case opActivate:
			if l := linear(s.x); l != nil && !l.fused {
				l.fused, l.act, l.out = true, s.act, s.out
				gone[i], maker[s.out] = true, maker[s.x]
			}
		case opAdd:
			for _, v := range [][2]int{{s.y, s.x}, {s.x, s.y}} {
				if l := linear(v[0]); l != nil && !l.fused && v[0] != v[1] && maker[v[1]] < maker[v[0]] {
					l.y, l.out = v[1], s.out
					gone[i], maker[s.out] = true, maker[v[0]]
					break
				}
			}
		}
	}
	var kept []step
	for i, s := range t.steps {
		if !gone[i] {
			kept = append(kept, s)
		}
	}
	t.steps = kept
}

// quantised marks the norms and products that are read by products with quantised weights alone, which follow at once.
func (t *tracer) quantised() {
	uses := make([]int, len(t.values))
	for _, s := range t.steps {
		for _, v := range []int{s.x, s.y} {
			if v >= 0 {
				uses[v]++
			}
		}
	}
	product := func(s *step) bool { return s.op == opLinear && s.weight.quant != nil }
	for i := range t.steps {
		s := &t.steps[i]
		if s.op != opLayerNorm && (!product(s) || s.y >= 0) {
			continue
		}
		n := 0
		for j := i + 1; j < len(t.steps) && product(&t.steps[j]) && t.steps[j].x == s.out && t.steps[j].y != s.out; j++ {
			n++
		}
		s.codes = n > 0 && n == uses[s.out]
	}
}

// program gives every value a register and returns the finished program. Element-wise steps write over an input that ends
// with them, linear ones over what they add.
func (t *tracer) program() (*program, error) {
	if t.err != nil {
		return nil, t.err
	}
	if n := len(t.steps); n == 0 || t.steps[n-1].op != opHead {
		return nil, fmt.Errorf("model: its forward pass does not end with a head")
	}
	t.fuse()
	t.quantised()
	for i, s := range t.steps {
		for _, v := range []int{s.x, s.y, s.out} {
			if v >= 0 {
				t.values[v].lastUse = i
			}
		}
	}
	p := &program{steps: t.steps}
	free := map[int][]int{} // width → registers
	for i := range p.steps {
		s := &p.steps[i]
		if s.op == opAttention {
			p.layers = max(p.layers, s.layer+1)
			kv := s.spec.KVHeads * s.spec.HeadDim
			if p.kv != 0 && p.kv != kv {
				return nil, fmt.Errorf("attention of layer %d: keys are %d wide, expected %d as in the layers before", s.layer, kv, p.kv)
			}
			p.kv = kv
		}
		ends := func(v int) bool { return v >= 0 && t.values[v].lastUse == i }
		x, y, out := s.x, s.y, s.out
		release := func(v int) {
			if ends(v) {
				free[t.values[v].width] = append(free[t.values[v].width], t.values[v].register)
			}
		}
		inPlace := s.op == opAdd || s.op == opActivate
		if inPlace {
			release(x)
		}
		if y != x {
			release(y)
		}
		if out >= 0 {
			v := &t.values[out]
			if f := free[v.width]; len(f) > 0 {
				v.register, free[v.width] = f[len(f)-1], f[:len(f)-1]
			} else {
				v.register = len(p.widths)
				p.widths = append(p.widths, v.width)
			}
			s.out = v.register
		}
		if !inPlace {
			release(x)
		}
		if x >= 0 {
			s.x = t.values[x].register
		}
		if y >= 0 {
			s.y = t.values[y].register
		}
	}
	p.narrowing()
	return p, nil
}

// narrowing sets narrow and kept. In a model without attention, or one that reads what its last attention reads again, it is the
// head where rows get fewer.
func (p *program) narrowing() {
	for i := len(p.steps) - 1; i >= 0; i-- {
		s := &p.steps[i]
		p.kept = slices.DeleteFunc(p.kept, func(r int) bool { return r == s.out })
		if s.op == opAttention && !slices.Contains(p.kept, s.x) {
			p.narrow = i
			return
		}
		for _, r := range []int{s.x, s.y} {
			if r >= 0 && !slices.Contains(p.kept, r) {
				p.kept = append(p.kept, r)
			}
		}
		if s.op == opAttention {
			break
		}
	}
	p.narrow = len(p.steps) - 1
	p.kept = []int{p.steps[p.narrow].x}
}
