package compute

import "fmt"

// operand describes what a kernel expects in one place of its signature.
type operand struct {
	name     string
	dtype    DType
	optional bool
	exact    bool // of a float: never kept in a short type
}

// signature names a kernel's operands; floats are F32 here. Throughout a call they may be F64 in float64 plans, or those that
// are not exact BF16 or F16 in mixed ones.
type signature struct{ in, out []operand }

func f(name string) operand   { return operand{name: name, dtype: F32} }
func x32(name string) operand { return operand{name: name, dtype: F32, exact: true} }
func i(name string) operand   { return operand{name: name, dtype: I32} }
func opt(o operand) operand   { o.optional = true; return o }
func f64(name string) operand { return operand{name: name, dtype: F64} }

func signatureOf(k Kernel) signature {
	switch k {
	case Embed:
		return signature{[]operand{f("table"), f("positions table"), i("ids"), i("positions")}, []operand{f("y")}}
	case EmbedGrad:
		return signature{[]operand{f("dy"), i("ids")}, []operand{x32("dtable")}}
	case LayerNorm:
		return signature{[]operand{f("x"), f("gain"), f("bias")}, []operand{f("y")}}
	case LayerNormGrad:
		return signature{[]operand{f("dy"), f("x"), f("gain"), opt(f("base"))}, []operand{f("dx"), opt(x32("dgain")), opt(x32("dbias"))}}
	case LayerNormGainGrad:
		return signature{[]operand{f("dy"), f("x")}, []operand{x32("dgain")}}
	case Linear:
		return signature{[]operand{f("x"), f("w"), opt(f("bias")), opt(f("base"))}, []operand{f("y")}}
	case LinearGradX:
		return signature{[]operand{f("dy"), f("w"), opt(f("base"))}, []operand{f("dx")}}
	case LinearGradW:
		return signature{[]operand{f("dy"), f("x")}, []operand{x32("dw")}}
	case BiasGrad:
		return signature{[]operand{f("dy")}, []operand{x32("db")}}
	case Attention:
		return signature{[]operand{f("qkv"), i("docStart"), opt(i("key"))}, []operand{f("y"), opt(x32("lse"))}}
	case AttentionGrad:
		return signature{[]operand{f("dy"), f("qkv"), i("docStart"), opt(i("key")), opt(f("y")), opt(x32("lse"))}, []operand{f("dqkv")}}
	case Activation:
		return signature{[]operand{f("x")}, []operand{f("y")}}
	case ActivationGrad:
		return signature{[]operand{f("dy"), f("x")}, []operand{f("dx")}}
	case Add:
		return signature{[]operand{f("a"), f("b")}, []operand{f("y")}}
	case Dropout:
		return signature{[]operand{f("x"), i("key")}, []operand{f("y")}}
	case CrossEntropy:
		return signature{[]operand{f("x"), f("w"), i("targets"), x32("scale")}, []operand{x32("loss"), f("dx"), opt(x32("dw"))}}
	case TokenNLL:
		return signature{[]operand{f("x"), f("w"), i("targets")}, []operand{x32("nll")}}
	case SumSquares:
		return signature{[]operand{x32("x")}, []operand{f64("sum")}}
	case Zero:
		return signature{nil, []operand{x32("x")}}
	case AdamW:
		return signature{[]operand{x32("grad"), x32("hyper")}, []operand{x32("param"), x32("m"), x32("v"), opt(f("copy"))}}
	}
	return signature{}
}

// Check reports whether the call's operands fit its kernel: their number, types and shapes.
func (c *Call) Check() error {
	sig := signatureOf(c.Kernel)
	if sig.out == nil {
		return fmt.Errorf("%s: unknown kernel %v", c.Name, c.Kernel)
	}
	in, err := match(c, "input", sig.in, c.In)
	if err != nil {
		return err
	}
	out, err := match(c, "output", sig.out, c.Out)
	if err != nil {
		return err
	}
	if err := first(sameFloat(sig, in, out), checkShapes(c, in, out)); err != nil {
		return fmt.Errorf("%s: %v: %w", c.Name, c.Kernel, err)
	}
	return nil
}

// sameFloat checks that the operands that may be F32 or F64 are all the one or all the other, and that those that may be
// short too are all of one type.
func sameFloat(sig signature, in, out []Buffer) error {
	var seen [2]operand // that is exact, that is not
	var dtype [2]DType
	for _, side := range []struct {
		ops     []operand
		buffers []Buffer
	}{{sig.in, in}, {sig.out, out}} {
		for i, o := range side.ops {
			b := side.buffers[i]
			if b.Space == None || o.dtype != F32 {
				continue
			}
			kind := 0
			if !o.exact {
				kind = 1
			}
			if dtype[kind] == 0 {
				seen[kind], dtype[kind] = o, b.DType
			}
			if b.DType != dtype[kind] {
				return fmt.Errorf("%s is %v where %s is %v, expected one type of float throughout the call", o.name, b.DType, seen[kind].name, dtype[kind])
			}
		}
	}
	if exact, short := dtype[0], dtype[1]; exact != 0 && short != 0 && exact != short && (exact != F32 || !short.Short()) {
		return fmt.Errorf("%s is %v where %s is %v, expected one type of float throughout the call, or %v beside %v or %v", seen[0].name, exact, seen[1].name, short, F32, BF16, F16)
	}
	return nil
}

// match pads the operands given to the signature's length and checks their presence and types.
func match(c *Call, role string, want []operand, got []Buffer) ([]Buffer, error) {
	if len(got) > len(want) {
		return nil, fmt.Errorf("%s: %v: %d %ss, expected at most %d", c.Name, c.Kernel, len(got), role, len(want))
	}
	all := make([]Buffer, len(want))
	copy(all, got)
	for i, w := range want {
		b := all[i]
		if b.Space == None {
			if !w.optional {
				return nil, fmt.Errorf("%s: %v: %s %s is missing", c.Name, c.Kernel, role, w.name)
			}
			continue
		}
		if b.DType != w.dtype && !(w.dtype == F32 && (b.DType == F64 || b.DType.Short() && !w.exact)) {
			return nil, fmt.Errorf("%s: %v: %s %s is %v, expected %v", c.Name, c.Kernel, role, w.name, b.DType, w.dtype)
		}
		if !countable(b.Shape) {
			return nil, fmt.Errorf("%s: %v: %s %s has shape %v, expected positive dimensions of at most %d elements", c.Name, c.Kernel, role, w.name, b.Shape, maxElements)
		}
	}
	return all, nil
}

// maxElements bounds a buffer's size, so that no product of dimensions or byte offset overflows.
const maxElements = 1 << 48

func countable(shape []int) bool {
	n := 1
	for _, d := range shape {
		if d <= 0 || d > maxElements/n {
			return false
		}
		n *= d
	}
	return true
}

type dimError struct {
	operand string
	found   []int
	want    []int
}

func (e *dimError) Error() string {
	return fmt.Sprintf("%s has shape %v, expected %v", e.operand, e.found, e.want)
}

func shape(name string, b Buffer, want ...int) error {
	if b.Space == None {
		return nil
	}
	if len(b.Shape) != len(want) {
		return &dimError{name, b.Shape, want}
	}
	for i := range want {
		if b.Shape[i] != want[i] {
			return &dimError{name, b.Shape, want}
		}
	}
	return nil
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func probability(p float64) error {
	if !(p >= 0 && p < 1) {
		return fmt.Errorf("probability of dropping %v, expected at least 0 and below 1", p)
	}
	return nil
}

func checkShapes(c *Call, in, out []Buffer) error {
	matrix := func(name string, b Buffer) (rows, cols int, err error) {
		if len(b.Shape) != 2 || b.Shape[0] <= 0 || b.Shape[1] <= 0 {
			return 0, 0, fmt.Errorf("%s has shape %v, expected two positive dimensions", name, b.Shape)
		}
		return b.Shape[0], b.Shape[1], nil
	}
	switch c.Kernel {
	case Embed:
		_, e, err := matrix("table", in[0])
		if err != nil {
			return err
		}
		p, _, err := matrix("positions table", in[1])
		if err != nil {
			return err
		}
		n := in[2].Len()
		return first(shape("positions table", in[1], p, e), shape("ids", in[2], n), shape("positions", in[3], n), shape("y", out[0], n, e))
	case EmbedGrad:
		n, e, err := matrix("dy", in[0])
		if err != nil {
			return err
		}
		v, _, err := matrix("dtable", out[0])
		return first(err, shape("ids", in[1], n), shape("dtable", out[0], v, e))
	case LayerNorm, LayerNormGrad, LayerNormGainGrad:
		n, e, err := matrix("x", in[0])
		if err != nil {
			return err
		}
		switch c.Kernel {
		case LayerNorm:
			return first(shape("gain", in[1], e), shape("bias", in[2], e), shape("y", out[0], n, e))
		case LayerNormGrad:
			return first(shape("x", in[1], n, e), shape("gain", in[2], e), shape("base", in[3], n, e), shape("dx", out[0], n, e),
				shape("dgain", out[1], e), shape("dbias", out[2], e))
		default:
			return first(shape("x", in[1], n, e), shape("dgain", out[0], e))
		}
	case Linear:
		n, k, err := matrix("x", in[0])
		if err != nil {
			return err
		}
		m, _, err := matrix("w", in[1])
		return first(err, shape("w", in[1], m, k), shape("bias", in[2], m), shape("base", in[3], n, m), shape("y", out[0], n, m))
	case LinearGradX:
		n, m, err := matrix("dy", in[0])
		if err != nil {
			return err
		}
		_, k, err := matrix("w", in[1])
		return first(err, shape("w", in[1], m, k), shape("base", in[2], n, k), shape("dx", out[0], n, k))
	case LinearGradW:
		n, m, err := matrix("dy", in[0])
		if err != nil {
			return err
		}
		_, k, err := matrix("x", in[1])
		return first(err, shape("x", in[1], n, k), shape("dw", out[0], m, k))
	case BiasGrad:
		_, m, err := matrix("dy", in[0])
		return first(err, shape("db", out[0], m))
	case Attention, AttentionGrad:
		a := c.Attr
		if a.Heads <= 0 || a.KVHeads <= 0 || a.HeadDim <= 0 || a.Seq <= 0 || a.Heads%a.KVHeads != 0 {
			return fmt.Errorf("heads %d, key heads %d, head dimension %d, sequence %d: expected positive and heads a multiple of key heads", a.Heads, a.KVHeads, a.HeadDim, a.Seq)
		}
		w, d := (a.Heads+2*a.KVHeads)*a.HeadDim, a.Heads*a.HeadDim
		qkv, doc, key, y, yName := in[0], in[1], in[2], out[0], "y"
		if c.Kernel == AttentionGrad {
			qkv, doc, key, y, yName = in[1], in[2], in[3], in[0], "dy"
		}
		n, _, err := matrix("qkv", qkv)
		if err != nil {
			return err
		}
		if n%a.Seq != 0 {
			return fmt.Errorf("qkv has %d tokens, expected a multiple of the sequence length %d", n, a.Seq)
		}
		if err := probability(a.Drop); err != nil {
			return err
		}
		if a.Drop > 0 && key.Space == None {
			return fmt.Errorf("dropout %v without a key", a.Drop)
		}
		err = first(shape("qkv", qkv, n, w), shape("docStart", doc, n), shape("key", key, 2), shape(yName, y, n, d))
		if c.Kernel == Attention {
			return first(err, shape("lse", out[1], n, a.Heads))
		}
		if (in[4].Space == None) != (in[5].Space == None) {
			err = first(err, fmt.Errorf("y and lse, expected both or neither"))
		}
		return first(err, shape("y", in[4], n, d), shape("lse", in[5], n, a.Heads), shape("dqkv", out[0], n, w))
	case Activation, ActivationGrad, Add, Dropout:
		err := shape("output", out[0], in[0].Shape...)
		switch c.Kernel {
		case Dropout:
			err = first(err, probability(c.Attr.Drop))
		case Activation, ActivationGrad:
			if c.Attr.Act < GELUTanh || c.Attr.Act > ReLU {
				err = first(err, fmt.Errorf("unknown activation %v", c.Attr.Act))
			}
		}
		if c.Kernel == ActivationGrad || c.Kernel == Add {
			err = first(err, shape("second input", in[1], in[0].Shape...))
		}
		if c.Kernel == Dropout {
			err = first(err, shape("key", in[1], 2))
		}
		return err
	case CrossEntropy, TokenNLL:
		n, e, err := matrix("x", in[0])
		if err != nil {
			return err
		}
		v, _, err := matrix("w", in[1])
		if err != nil {
			return err
		}
		if c.Attr.Vocab <= 0 || c.Attr.Vocab > v {
			return fmt.Errorf("%d scored vocabulary rows, expected 1 to %d", c.Attr.Vocab, v)
		}
		err = first(shape("w", in[1], v, e), shape("targets", in[2], n))
		if c.Kernel == TokenNLL {
			return first(err, shape("nll", out[0], n))
		}
		return first(err, shape("scale", in[3], 1), shape("loss", out[0], 1), shape("dx", out[1], n, e), shape("dw", out[2], v, e))
	case SumSquares:
		return shape("sum", out[0], 1)
	case Zero:
		return shape("x", out[0], out[0].Len())
	case AdamW:
		n := in[0].Len()
		for i, name := range []string{"param", "m", "v"} {
			if out[i].Len() != n {
				return fmt.Errorf("%s has %d elements, expected the gradient's %d", name, out[i].Len(), n)
			}
		}
		if copied := out[3]; copied.Space != None && (copied.Len() != n || !copied.DType.Short()) {
			return fmt.Errorf("copy has %d elements of %v, expected the gradient's %d of %v or %v", copied.Len(), copied.DType, n, BF16, F16)
		}
		return shape("hyper", in[1], 8)
	}
	return nil
}
