package cuda

import (
	"errors"
	"fmt"
	"slices"

	"autodev/compute"
	"autodev/compute/cudaplan"
)

// bound is a call with the addresses of its operands, 0 for absent ones.
type bound struct {
	*compute.Call
	store   Store // of the floats that may be short
	in, out [compute.MaxOperands]Ptr
	work    Ptr
	fresh   bool // what it adds to counts as zero
}

// storeOf returns how the call's activations and parameters lie in memory, F32 for calls without.
func storeOf(c *compute.Call) (Store, error) {
	short := compute.F32
	for _, b := range slices.Concat(c.In, c.Out) {
		switch {
		case b.Space == compute.None:
		case b.DType == compute.F64 && c.Kernel != compute.SumSquares:
			return 0, fmt.Errorf("%s: %v: operands of type %v, expected %v, %v or %v: plans in float64 run on the CPU", c.Name, c.Kernel, b.DType, compute.F32, compute.BF16, compute.F16)
		case b.DType.Short():
			short = b.DType
		}
	}
	if c.Attr.BF16 && short != compute.BF16 {
		return 0, fmt.Errorf("%s: %v: products of %v operands rounded to bfloat16, expected operands of type %v (storage %v)", c.Name, c.Kernel, short, compute.BF16, compute.Mixed(compute.BF16))
	}
	return map[compute.DType]Store{compute.F32: F32, compute.BF16: BF16, compute.F16: F16}[short], nil
}

// resolve checks a call against the vocabulary, the device and the memory, and finds its operands.
func (d *Device) resolve(c *compute.Call, m *Memory) (bound, error) {
	b := bound{Call: c}
	if err := errors.Join(c.Check(), c.CheckOverlap()); err != nil {
		return b, err
	}
	var err error
	if b.store, err = storeOf(c); err != nil {
		return b, err
	}
	if b.store == BF16 && d.properties.Short() != compute.BF16 {
		return b, fmt.Errorf("%s: %v: %s has no bfloat16 products (compute capability %d.%d, expected at least 8.0): precision float16 and float32 work", c.Name, c.Kernel, d.properties.Name, d.properties.Capability/10, d.properties.Capability%10)
	}
	for _, side := range []struct {
		role    string
		buffers []compute.Buffer
		to      *[compute.MaxOperands]Ptr
	}{{"input", c.In, &b.in}, {"output", c.Out, &b.out}} {
		for i, buffer := range side.buffers {
			if side.to[i], err = m.Ptr(buffer); err != nil {
				return b, fmt.Errorf("%s: %v: %s %d: %w", c.Name, c.Kernel, side.role, i, err)
			}
		}
	}
	if need := cudaplan.WorkBytes(c); need > 0 {
		if b.work, err = m.Ptr(c.Work); err != nil {
			return b, fmt.Errorf("%s: %v: work: %w", c.Name, c.Kernel, err)
		}
		if b.work == 0 || c.Work.Bytes() < need {
			return b, fmt.Errorf("%s: %v: work has %d bytes, expected at least %d", c.Name, c.Kernel, c.Work.Bytes(), need)
		}
	}
	return b, nil
}

// rows and columns are the extents of input i as a matrix.
func (b *bound) rows(i int) int    { return b.In[i].Shape[0] }
func (b *bound) columns(i int) int { return b.In[i].Shape[len(b.In[i].Shape)-1] }

// sequence makes what a kernel's launch function returns a Sequence.
func sequence[T Op](op T, err error) (Sequence, error) {
	if err != nil {
		return nil, err
	}
	return Sequence{op}, nil
}

// prepare returns the operations that do the call.
func (b *bound) prepare(q *Queue) (Sequence, error) {
	a, s, in, out, work := &b.Attr, b.store, &b.in, &b.out, b.work
	length := int64(b.Out[0].Len())
	epsilon := float32(a.Epsilon)
	switch b.Kernel {
	case compute.Embed:
		return sequence(embed(q, out[0], in[0], in[1], in[2], in[3], b.In[2].Len(), b.rows(0), b.rows(1), b.columns(0), s))
	case compute.EmbedGrad:
		return embedGrad(q, out[0], in[0], in[1], work, b.rows(0), b.Out[0].Shape[0], b.columns(0), s)
	case compute.LayerNorm:
		return sequence(layerNorm(q, out[0], in[0], in[1], in[2], b.rows(0), b.columns(0), epsilon, s))
	case compute.LayerNormGrad:
		o := layerNormGrads{DX: out[0], DGain: out[1], DBias: out[2], DY: in[0], X: in[1], Gain: in[2], Base: in[3], Work: work}
		return layerNormGrad(q, o, b.rows(0), b.columns(0), epsilon, s)
	case compute.LayerNormGainGrad:
		return layerNormGainGrad(q, out[0], in[0], in[1], work, b.rows(0), b.columns(0), epsilon, s)
	case compute.Linear:
		l := linear{n: b.rows(0), in: b.columns(0), out: b.rows(1), alpha: float32(a.Alpha), store: s}
		return sequence(l.forward(q, out[0], in[0], in[1], in[2], in[3]))
	case compute.LinearGradX:
		l := linear{n: b.rows(0), in: b.columns(1), out: b.columns(0), alpha: float32(a.Alpha), store: s}
		return sequence(l.gradX(q, out[0], in[0], in[1], in[2]))
	case compute.LinearGradW:
		l := linear{n: b.rows(0), in: b.columns(1), out: b.columns(0), alpha: float32(a.Alpha), store: s}
		return sequence(l.gradW(q, out[0], in[0], in[1], b.fresh))
	case compute.BiasGrad:
		return biasGrad(q, out[0], in[0], work, b.rows(0), b.columns(0), s)
	case compute.Attention:
		return sequence(attention(q, out[0], out[1], in[0], in[1], in[2], b.rows(0), *a, s))
	case compute.AttentionGrad:
		return attentionGrad(q, out[0], in[0], in[4], in[5], in[1], in[2], in[3], work, b.rows(0), *a, s)
	case compute.Activation:
		return sequence(activation(q, out[0], in[0], length, a.Act, s))
	case compute.ActivationGrad:
		return sequence(activationGrad(q, out[0], in[0], in[1], length, a.Act, s))
	case compute.Add:
		return sequence(add(q, out[0], in[0], in[1], length, s))
	case compute.Dropout:
		return sequence(dropout(q, out[0], in[0], in[1], length, a.Salt, a.Drop, s))
	case compute.CrossEntropy:
		return crossEntropy(q, out[0], out[1], out[2], b.head(), in[3], s)
	case compute.TokenNLL:
		return tokenNLL(q, out[0], b.head(), s)
	case compute.SumSquares:
		return sumSquares(q, out[0], in[0], work, int64(b.In[0].Len()))
	case compute.AdamW:
		return sequence(adamW(q, out[0], out[1], out[2], out[3], in[0], in[1], length, s))
	case compute.Zero:
		return sequence(zero(q, out[0], length))
	}
	return nil, fmt.Errorf("no kernel %v", b.Kernel)
}

// head is what CrossEntropy and TokenNLL work on.
func (b *bound) head() head {
	return head{x: b.in[0], w: b.in[1], targets: b.in[2], work: b.work, n: b.rows(0), width: b.columns(0), rows: b.rows(1), vocab: b.Attr.Vocab}
}

// indexes lists the operands that index tables, and what their elements may be. A document's start is bounded by its sequence alone: the
// kernels take one behind its token for the token.
func (b *bound) indexes() []rangeCheck {
	check := func(operand string, i int, least, limit int) rangeCheck {
		return rangeCheck{call: b.Call, operand: operand, buffer: b.In[i], at: b.in[i], least: least, limit: limit}
	}
	switch b.Kernel {
	case compute.Embed:
		return []rangeCheck{check("ids", 2, 0, b.rows(0)), check("positions", 3, 0, b.rows(1))}
	case compute.EmbedGrad:
		return []rangeCheck{check("ids", 1, 0, b.Out[0].Shape[0])}
	case compute.Attention:
		return []rangeCheck{check("docStart", 1, 0, b.Attr.Seq)}
	case compute.AttentionGrad:
		return []rangeCheck{check("docStart", 2, 0, b.Attr.Seq)}
	case compute.CrossEntropy, compute.TokenNLL:
		return []rangeCheck{check("targets", 2, minTarget, b.Attr.Vocab)}
	}
	return nil
}
