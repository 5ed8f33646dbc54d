package ref

import (
	"fmt"
	"slices"

	"autodev/compute"
)

// Kernels executes calls with the functions of this package, in float64 when the call's floats are compute.F64, else in
// float32. It implements compute.HostKernels.
type Kernels struct{}

// Do checks the call and runs it. Its errors name the call.
func (Kernels) Do(c *compute.Call, in, out []compute.Host) error {
	if err := c.CheckHost(in, out); err != nil {
		return err
	}
	var err error
	if first := slices.Concat(in, out)[0]; first.F64 != nil {
		err = dispatch[float64](c, operands(in), operands(out), func(h compute.Host) []float64 { return h.F64 })
	} else {
		err = dispatch[float32](c, operands(in), operands(out), func(h compute.Host) []float32 { return h.F32 })
	}
	if err != nil {
		return fmt.Errorf("%s: %v: %w", c.Name, c.Kernel, err)
	}
	return nil
}

// operands pads hosts with absent ones to the longest signature's length.
func operands(hosts []compute.Host) [compute.MaxOperands]compute.Host {
	var all [compute.MaxOperands]compute.Host
	copy(all[:], hosts)
	return all
}

func dispatch[T Float](c *compute.Call, in, out [compute.MaxOperands]compute.Host, f func(compute.Host) []T) error {
	a := c.Attr
	columns := func(b compute.Buffer) int { return b.Shape[len(b.Shape)-1] }
	switch c.Kernel {
	case compute.Embed:
		return Embed(f(out[0]), f(in[0]), f(in[1]), in[2].I32, in[3].I32, columns(c.In[0]))
	case compute.EmbedGrad:
		return EmbedGrad(f(out[0]), f(in[0]), in[1].I32, columns(c.In[0]))
	case compute.LayerNorm:
		LayerNorm(f(out[0]), f(in[0]), f(in[1]), f(in[2]), a.Epsilon)
	case compute.LayerNormGrad:
		dx, dy, x, base := f(out[0]), f(in[0]), f(in[1]), f(in[3])
		if dgain := f(out[1]); dgain != nil {
			LayerNormGainGrad(dgain, dy, x, a.Epsilon)
		}
		if dbias := f(out[2]); dbias != nil {
			BiasGrad(dbias, dy)
		}
		grad := make([]T, len(dx)) // dx may be dy or base
		LayerNormGrad(grad, dy, x, f(in[2]), a.Epsilon)
		if base != nil {
			Add(dx, base, grad)
		} else {
			copy(dx, grad)
		}
	case compute.LayerNormGainGrad:
		LayerNormGainGrad(f(out[0]), f(in[0]), f(in[1]), a.Epsilon)
	case compute.Linear:
		Linear(f(out[0]), operandsOf(f(in[0]), a.BF16), operandsOf(f(in[1]), a.BF16), f(in[2]), f(in[3]), c.In[0].Shape[0], columns(c.In[0]), columns(c.Out[0]), a.Alpha)
	case compute.LinearGradX:
		LinearGradX(f(out[0]), operandsOf(f(in[0]), a.BF16), operandsOf(f(in[1]), a.BF16), f(in[2]), c.In[0].Shape[0], columns(c.Out[0]), columns(c.In[0]), a.Alpha)
	case compute.LinearGradW:
		LinearGradW(f(out[0]), operandsOf(f(in[0]), a.BF16), operandsOf(f(in[1]), a.BF16), c.In[0].Shape[0], columns(c.In[1]), columns(c.In[0]), a.Alpha)
	case compute.BiasGrad:
		BiasGrad(f(out[0]), f(in[0]))
	case compute.Attention:
		if err := Attention(f(out[0]), f(in[0]), in[1].I32, keyOf(in[2]), a); err != nil {
			return err
		}
		if lse := f(out[1]); lse != nil {
			LogSumExp(lse, f(in[0]), in[1].I32, a)
		}
	case compute.AttentionGrad:
		return AttentionGrad(f(out[0]), f(in[0]), f(in[1]), in[2].I32, keyOf(in[3]), a)
	case compute.Activation:
		Activation(f(out[0]), f(in[0]), a.Act)
	case compute.ActivationGrad:
		ActivationGrad(f(out[0]), f(in[0]), f(in[1]), a.Act)
	case compute.Add:
		Add(f(out[0]), f(in[0]), f(in[1]))
	case compute.Dropout:
		Dropout(f(out[0]), f(in[0]), keyOf(in[1]), a.Salt, a.Drop)
	case compute.CrossEntropy:
		return CrossEntropy(f(out[0]), f(out[1]), f(out[2]), f(in[0]), f(in[1]), in[2].I32, f(in[3])[0], columns(c.In[0]), a)
	case compute.TokenNLL:
		return TokenNLL(f(out[0]), f(in[0]), f(in[1]), in[2].I32, columns(c.In[0]), a)
	case compute.SumSquares:
		out[0].F64[0] = SumSquares(f(in[0]))
	case compute.AdamW:
		h := f(in[1])
		AdamW(f(out[0]), f(out[1]), f(out[2]), f(in[0]), Hyper[T]{h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7]})
	case compute.Zero:
		clear(f(out[0]))
	default:
		return fmt.Errorf("no reference")
	}
	return nil
}

// keyOf returns the two words of a dropout key, zeros when it is absent.
func keyOf(h compute.Host) (key [2]int32) {
	copy(key[:], h.I32)
	return key
}
