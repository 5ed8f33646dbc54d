package compute

// Operations returns the multiplications and additions of a call that multiplies matrices, 0 for others. Causal attention has half of a full
// one's, and its gradient the five products that it needs at least.
func (c *Call) Operations() float64 {
	size := func(b Buffer) float64 { return float64(b.Len()) }
	a := &c.Attr
	attention := func() float64 {
		return 2 * float64(c.In[0].Shape[0]) * float64(a.Seq) * float64(a.Heads*a.HeadDim)
	}
	switch c.Kernel {
	case Linear, LinearGradX:
		return 2 * float64(c.In[0].Shape[0]) * size(c.In[1])
	case LinearGradW:
		return 2 * float64(c.In[0].Shape[0]) * size(c.Out[0])
	case Attention:
		return attention()
	case AttentionGrad:
		return 2.5 * attention()
	case CrossEntropy, TokenNLL:
		products := 1.0
		if c.Kernel == CrossEntropy {
			products = 2
		}
		if len(c.Out) > 2 && c.Out[2].Space != None {
			products = 3
		}
		return products * 2 * float64(c.In[0].Shape[0]) * size(c.In[1])
	}
	return 0
}

// Traffic returns the bytes that a call must move: operands that it reads, those that it writes, and again those that it adds to.
func (c *Call) Traffic() int64 {
	var n int64
	for _, b := range c.In {
		n += b.Bytes()
	}
	for i, b := range c.Out {
		times := int64(1)
		if updated(c.Kernel, i) {
			times = 2
		}
		n += times * b.Bytes()
	}
	return n
}

// updated says whether a kernel reads what it writes as its output i.
func updated(k Kernel, i int) bool {
	switch k {
	case AdamW:
		return i < 3
	case EmbedGrad, LinearGradW, BiasGrad, LayerNormGainGrad:
		return true
	case LayerNormGrad:
		return i > 0
	case CrossEntropy:
		return i == 2
	}
	return false
}
