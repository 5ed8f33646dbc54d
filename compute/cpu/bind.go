package cpu

import (
	"fmt"
	"slices"

	"autodev/compute"
	"autodev/compute/cpu/vec"
	"autodev/compute/ref"
)

// operands pads hosts with absent ones to the longest signature's length.
func operands(hosts []compute.Host) [compute.MaxOperands]compute.Host {
	var all [compute.MaxOperands]compute.Host
	copy(all[:], hosts)
	return all
}

// inFloat64 reports whether the call's floats are float64.
func inFloat64(c *compute.Call) bool { return slices.Concat(c.In, c.Out)[0].DType == compute.F64 }

// work returns the scratch of a checked call in float32 elements.
func (k Kernels) work(c *compute.Call) int {
	if inFloat64(c) {
		return 0
	}
	rows := func(b compute.Buffer) int { return b.Shape[0] }
	columns := func(b compute.Buffer) int { return b.Shape[len(b.Shape)-1] }
	switch c.Kernel {
	case compute.EmbedGrad:
		return EmbedGradWork(rows(c.In[0]))
	case compute.LayerNormGrad:
		if len(c.Out) < 2 {
			return 0
		}
		return LayerNormGradsWork(rows(c.In[0]), columns(c.In[0]))
	case compute.LayerNormGainGrad:
		return LayerNormGainGradWork(rows(c.In[0]), columns(c.In[0]))
	case compute.BiasGrad:
		return BiasGradWork(rows(c.In[0]), columns(c.In[0]))
	case compute.Linear:
		return LinearWork(rows(c.In[0]), columns(c.In[0]), rows(c.In[1]))
	case compute.LinearGradX:
		return LinearWork(rows(c.In[0]), columns(c.In[1]), rows(c.In[1]))
	case compute.LinearGradW:
		return LinearWork(rows(c.In[0]), columns(c.In[1]), columns(c.In[0]))
	case compute.Attention:
		return k.AttentionWork(c.Attr)
	case compute.AttentionGrad:
		return k.AttentionGradWork(rows(c.In[0]), c.Attr)
	case compute.CrossEntropy:
		return CrossEntropyWork(rows(c.In[0]), columns(c.In[0]), c.Attr.Vocab)
	case compute.TokenNLL:
		return TokenNLLWork(rows(c.In[0]), columns(c.In[0]), c.Attr.Vocab)
	case compute.SumSquares:
		return SumSquaresWork(c.In[0].Len())
	}
	return 0
}

// bind returns the function that runs a checked call on its operands, with work of at least k.work(c) elements. The function's
// errors name the call.
func (k Kernels) bind(c *compute.Call, in, out [compute.MaxOperands]compute.Host, work []float32) (func() error, error) {
	if inFloat64(c) {
		ins, outs := in[:len(c.In)], out[:len(c.Out)]
		return func() error { return ref.Kernels{}.Do(c, ins, outs) }, nil
	}
	if c.Kernel == compute.Zero {
		return func() error { k.Zero(out[0].F32); return nil }, nil
	}
	a := c.Attr
	k = k.BF16(a.BF16)
	x, y := in[0].F32, out[0].F32
	second, third := in[1].F32, in[2].F32
	rows, columns := c.In[0].Shape[0], c.In[0].Shape[len(c.In[0].Shape)-1]
	always := func(f func()) (func() error, error) { return func() error { f(); return nil }, nil }
	may := func(f func() error) (func() error, error) {
		return func() error {
			if err := f(); err != nil {
				return fmt.Errorf("%s: %v: %w", c.Name, c.Kernel, err)
			}
			return nil
		}, nil
	}
	switch c.Kernel {
	case compute.Embed:
		return may(func() error { return k.Embed(y, x, second, in[2].I32, in[3].I32, columns) })
	case compute.EmbedGrad:
		return may(func() error { return k.EmbedGrad(y, x, in[1].I32, columns, work) })
	case compute.LayerNorm:
		return always(func() { k.LayerNorm(y, x, second, third, rows, columns, a.Epsilon) })
	case compute.LayerNormGrad:
		return always(func() {
			k.LayerNormGrads(y, out[1].F32, out[2].F32, x, second, third, in[3].F32, rows, columns, a.Epsilon, work)
		})
	case compute.LayerNormGainGrad:
		return always(func() { k.LayerNormGainGrad(y, x, second, rows, columns, a.Epsilon, work) })
	case compute.Linear:
		outs := c.In[1].Shape[0]
		return always(func() { k.Linear(y, x, second, third, in[3].F32, rows, columns, outs, float32(a.Alpha), work) })
	case compute.LinearGradX:
		ins := c.In[1].Shape[1]
		return always(func() { k.LinearGradX(y, x, second, third, rows, ins, columns, float32(a.Alpha), work) })
	case compute.LinearGradW:
		ins := c.In[1].Shape[1]
		return always(func() { k.LinearGradW(y, x, second, rows, ins, columns, float32(a.Alpha), work) })
	case compute.BiasGrad:
		return always(func() { k.BiasGrad(y, x, rows, columns, work) })
	case compute.Attention:
		return may(func() error { return k.Attention(y, out[1].F32, x, in[1].I32, keyOf(in[2]), a, work) })
	case compute.AttentionGrad:
		return may(func() error { return k.AttentionGrad(y, x, second, in[2].I32, keyOf(in[3]), a, work) })
	case compute.Activation:
		return always(func() { k.Activation(y, x, a.Act) })
	case compute.ActivationGrad:
		return always(func() { k.ActivationGrad(y, x, second, a.Act) })
	case compute.Add:
		return always(func() { k.Add(y, x, second) })
	case compute.Dropout:
		return always(func() { k.Dropout(y, x, keyOf(in[1]), a.Salt, a.Drop) })
	case compute.CrossEntropy:
		return may(func() (err error) {
			y[0], err = k.CrossEntropy(out[1].F32, out[2].F32, x, second, in[2].I32, in[3].F32[0], columns, a.Vocab, work)
			return err
		})
	case compute.TokenNLL:
		return may(func() error { return k.TokenNLL(y, x, second, in[2].I32, columns, a.Vocab, work) })
	case compute.SumSquares:
		return always(func() { out[0].F64[0] = k.SumSquares(x, work) })
	case compute.AdamW:
		return always(func() {
			k.AdamW(y, out[1].F32, out[2].F32, x, vec.AdamWStep{
				LearningRate: second[0], Beta1: second[1], Beta2: second[2], Epsilon: second[3], Decay: second[4],
				Correction1: second[5], Correction2: second[6], Multiplier: second[7],
			})
		})
	}
	return nil, fmt.Errorf("no kernel %v", c.Kernel)
}

// keyOf returns the two words of a dropout key as they are when the call runs, zeros when it is absent.
func keyOf(h compute.Host) (key [2]int32) {
	copy(key[:], h.I32)
	return key
}
