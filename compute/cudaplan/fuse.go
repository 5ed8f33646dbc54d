package cudaplan

import (
	"slices"

	"autodev/compute"
)

// auxColumns divides the columns of products whose epilogue has a second matrix.
const auxColumns = 8

// Fusions finds products that take the activation that follows them, or its gradient, as their epilogue: what they would have written for it to
// read again stays in registers, and the activation is of the product, with what it adds, before it is rounded. It gives the index of the activation's call by
// that of the product's. A plan stays what it is for all other calls: between the product and the activation nothing may touch what is
// written earlier or no longer. Where there are gradients, activations are computed again from products that were kept, rounded: there
// they are not fused the first time either, so that they have the same bits.
func Fusions(calls []compute.Call) map[int]int {
	found := map[int]int{}
	gradients := slices.ContainsFunc(calls, func(c compute.Call) bool {
		return c.Kernel == compute.LinearGradX || c.Kernel == compute.LinearGradW || c.Kernel == compute.ActivationGrad
	})
	for i := range calls {
		c := &calls[i]
		if c.Check() != nil || c.Kernel != compute.Linear && c.Kernel != compute.LinearGradX || c.Out[0].Shape[1]%auxColumns != 0 {
			continue
		}
		j, ok := 0, false
		switch {
		case c.Kernel == compute.LinearGradX:
			j, ok = gradientAfter(calls, i)
		case !gradients:
			j, ok = i+1, i+1 < len(calls) && activates(c, &calls[i+1])
		}
		if ok {
			found[i] = j
		}
	}
	return found
}

// activates reports whether a is GELU of what the Linear c writes, and may be written at once: not over what c reads, but for a base where
// the product itself is not wanted.
func activates(c, a *compute.Call) bool {
	if a.Kernel != compute.Activation || a.Attr.Act != compute.GELUTanh || a.Check() != nil || !c.Out[0].Same(a.In[0]) {
		return false
	}
	inPlace := a.Out[0].Same(a.In[0])
	for i, b := range c.In {
		switch {
		case i == 3 && inPlace && b.Same(a.Out[0]):
		case a.Out[0].Overlaps(b), i == 3 && b.Overlaps(c.Out[0]):
			return false
		}
	}
	return inPlace || !a.Out[0].Overlaps(a.In[0])
}

// gradientAfter finds the call that turns what LinearGradX number i writes into the gradient of GELU, in the same place, with nothing
// between that touches it or writes GELU's input.
func gradientAfter(calls []compute.Call, i int) (j int, ok bool) {
	dy := calls[i].Out[0]
	for j = i + 1; j < len(calls); j++ {
		c := &calls[j]
		touches := c.Work.Overlaps(dy)
		for _, side := range [][]compute.Buffer{c.In, c.Out} {
			for _, b := range side {
				touches = touches || b.Overlaps(dy)
			}
		}
		if !touches {
			continue
		}
		if c.Kernel != compute.ActivationGrad || c.Attr.Act != compute.GELUTanh || c.Check() != nil || !c.In[0].Same(dy) || !c.Out[0].Same(dy) || c.In[1].Overlaps(dy) {
			return 0, false
		}
		for k := i; k < j; k++ {
			for _, b := range append([]compute.Buffer{calls[k].Work}, calls[k].Out...) {
				if b.Overlaps(c.In[1]) {
					return 0, false
				}
			}
		}
		return j, true
	}
	return 0, false
}

// Overwrites reports whether a call adds a product to what the call before it has cleared: then the product alone is enough.
func Overwrites(zero, c *compute.Call) bool {
	return zero.Kernel == compute.Zero && c.Kernel == compute.LinearGradW && zero.Out[0].Same(c.Out[0])
}
