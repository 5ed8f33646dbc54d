package graph

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash"

	"github.com/chewxy/hm"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	// gorgonia.org/tensor v0.9.24 panics at init under Go 1.20 and later unless this module, which it imports, is of 2023 or
	// later. Importing it here keeps the newer version in go.mod.
	_ "go4.org/unsafe/assume-no-moving-gc"

	"autodev/compute"
)

// op is a fused operation of the Gorgonia graph: one call of the compute vocabulary, whose children are the operands that
// are present. It implements gorgonia.SDOp; Do runs it on host memory, for Gorgonia's TapeMachine in tests.
type op struct {
	b    *builder
	id   int          // creation number, unique in the graph
	call compute.Call // kernel, attributes, name; operands with type and shape
	slot []int        // operand index of each child
	want []bool       // whether the gradient with respect to each child is needed
	typ  hm.Type

	block int // the transformer layer it belongs to, −1 outside
	of    int // for a gradient, the id of the operation differentiated; else −1

	// pick > 0 makes this a node that only hands out side output pick of its child, a CrossEntropy: Gorgonia's operations
	// have one output.
	pick int
	side []compute.Host // CrossEntropy's outputs of the last Do
}

var errNoKernels = errors.New("graph: this graph was built to be planned, not executed")

// apply adds a forward operation over operands, nil where an optional one is absent.
func (b *builder) apply(k compute.Kernel, attr compute.Attr, name string, shape []int, operands ...*G.Node) *G.Node {
	if b.err != nil {
		return nil
	}
	n, err := b.node(&op{call: compute.Call{Kernel: k, Attr: attr, Name: name}, of: -1, block: b.block}, shape, operands...)
	if err != nil {
		b.err = err
		return nil
	}
	return n
}

// gradient adds a gradient kernel of the forward operation f.
func (f *op) gradient(k compute.Kernel, name string, shape []int, operands ...*G.Node) (*G.Node, error) {
	return f.b.node(&op{call: compute.Call{Kernel: k, Attr: f.call.Attr, Name: name}, of: f.id, block: f.block}, shape, operands...)
}

// node completes o and applies it.
func (b *builder) node(o *op, shape []int, operands ...*G.Node) (*G.Node, error) {
	o.b, o.id = b, b.ops
	b.ops++
	var children G.Nodes
	var types []hm.Type
	needed := false
	for i, n := range operands {
		if n == nil {
			o.call.In = append(o.call.In, compute.Buffer{})
			continue
		}
		o.call.In = append(o.call.In, operand(n))
		children = append(children, n)
		types = append(types, n.Type())
		o.slot = append(o.slot, i)
		w := o.of < 0 && b.needs[n]
		o.want = append(o.want, w)
		needed = needed || w
	}
	out := compute.Buffer{Space: compute.Arena, DType: b.dtype, Shape: shape}
	o.call.Out = []compute.Buffer{out}
	o.typ = hm.NewFnType(append(types, nodeType(b.dtype, shape))...)
	if o.isLoss() {
		// The loss is a scalar for Gorgonia, a vector of one for the kernel.
		o.typ = hm.NewFnType(append(types, gorgoniaType(b.dtype))...)
		out.Shape = o.call.In[0].Shape
		o.call.Out = append(o.call.Out, out, compute.Buffer{})
		if o.want[1] {
			out.Shape = o.call.In[1].Shape
			o.call.Out[2] = out
		}
	}
	if o.pick == 0 {
		if err := o.call.Check(); err != nil {
			return nil, err
		}
	}
	n, err := G.ApplyOp(o, children...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.call.Name, err)
	}
	if needed {
		b.needs[n] = true
	}
	return n, nil
}

// isLoss reports whether the operation has a scalar output and two on the side.
func (o *op) isLoss() bool { return o.call.Kernel == compute.CrossEntropy && o.pick == 0 }

func operand(n *G.Node) compute.Buffer {
	b := compute.Buffer{Space: compute.Arena, Shape: n.Shape()}
	switch n.Dtype() {
	case tensor.Float32:
		b.DType = compute.F32
	case tensor.Float64:
		b.DType = compute.F64
	default:
		b.DType = compute.I32
	}
	if len(b.Shape) == 0 {
		b.Shape = []int{1}
	}
	return b
}

func gorgoniaType(d compute.DType) tensor.Dtype {
	switch d {
	case compute.F64:
		return tensor.Float64
	case compute.I32:
		return tensor.Int32
	}
	return tensor.Float32
}

func nodeType(d compute.DType, shape []int) hm.Type {
	return G.TensorType{Dims: len(shape), Of: gorgoniaType(d)}
}

// Arity implements gorgonia.Op.
func (o *op) Arity() int { return len(o.slot) }

// Type implements gorgonia.Op.
func (o *op) Type() hm.Type { return o.typ }

// InferShape implements gorgonia.Op: shapes are static.
func (o *op) InferShape(...G.DimSizer) (tensor.Shape, error) {
	if o.isLoss() {
		return tensor.ScalarShape(), nil
	}
	return append(tensor.Shape(nil), o.call.Out[0].Shape...), nil
}

// ReturnsPtr implements gorgonia.Op.
func (o *op) ReturnsPtr() bool { return true }

// CallsExtern implements gorgonia.Op: false lets Do allocate its own result.
func (o *op) CallsExtern() bool { return false }

// OverwritesInput implements gorgonia.Op: none.
func (o *op) OverwritesInput() int { return -1 }

// WriteHash implements gorgonia.Op. The unique id keeps Gorgonia from merging equal nodes, such as two dropouts.
func (o *op) WriteHash(h hash.Hash) {
	var id [8]byte
	binary.LittleEndian.PutUint64(id[:], uint64(o.id))
	h.Write(id[:])
}

// Hashcode implements gorgonia.Op; equality of hash codes is identity.
func (o *op) Hashcode() uint32 { return uint32(o.id) }

func (o *op) String() string { return fmt.Sprintf("%v %s", o.call.Kernel, o.call.Name) }

// DiffWRT implements gorgonia.SDOp: the children whose gradient is needed. A frozen parameter is not among them, nor is an
// activation that no trained parameter influences.
func (o *op) DiffWRT(int) []bool { return o.want }

// SymDiff implements gorgonia.SDOp by rules.go.
func (o *op) SymDiff(inputs G.Nodes, output, grad *G.Node) (G.Nodes, error) {
	operands := make([]*G.Node, len(o.call.In))
	wanted := make([]bool, len(o.call.In))
	for i, n := range inputs {
		operands[o.slot[i]], wanted[o.slot[i]] = n, o.want[i]
	}
	grads, err := o.rule(operands, wanted, output, grad)
	if err != nil {
		return nil, err
	}
	children := make(G.Nodes, len(inputs))
	for i := range inputs {
		children[i] = grads[o.slot[i]]
	}
	return children, nil
}

// Do implements gorgonia.Op on the builder's host kernels.
func (o *op) Do(values ...G.Value) (G.Value, error) {
	if o.b.host == nil {
		return nil, errNoKernels
	}
	if o.pick > 0 {
		h := o.b.source[o].side[o.pick]
		return dense(h, o.call.Out[0].Shape), nil
	}
	in := make([]compute.Host, len(o.call.In))
	for i, v := range values {
		in[o.slot[i]] = hostOf(v)
	}
	out := make([]compute.Host, len(o.call.Out))
	for i, b := range o.call.Out {
		switch {
		case b.Space == compute.None:
		case b.DType == compute.F64:
			out[i].F64 = make([]float64, b.Len())
		default:
			out[i].F32 = make([]float32, b.Len())
		}
	}
	if err := o.b.host.Do(&o.call, in, out); err != nil {
		return nil, fmt.Errorf("%s: %w", o.call.Name, err)
	}
	if !o.isLoss() {
		return dense(out[0], o.call.Out[0].Shape), nil
	}
	o.side = out
	if out[0].F64 != nil {
		return G.NewF64(out[0].F64[0]), nil
	}
	return G.NewF32(out[0].F32[0]), nil
}

func hostOf(v G.Value) compute.Host {
	switch d := v.Data().(type) {
	case []float32:
		return compute.Host{F32: d}
	case []float64:
		return compute.Host{F64: d}
	case []int32:
		return compute.Host{I32: d}
	}
	return compute.Host{}
}

func dense(h compute.Host, shape []int) G.Value {
	if h.F64 != nil {
		return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(h.F64))
	}
	return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(h.F32))
}
