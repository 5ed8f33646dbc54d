package main

import (
	"cmp"
	"fmt"
	"slices"

	"autodev/compute"
	"autodev/compute/cudaplan"
)

// group is calls of the step with the same kernel and shapes.
type group struct {
	Kernel  string  `json:"kernel"`
	Shape   string  `json:"shape"`
	Calls   int     `json:"calls"`
	Seconds float64 `json:"seconds"`
	Share   float64 `json:"share"`            // of the time of all calls
	TFLOPS  float64 `json:"tflops,omitempty"` // of kernels that multiply matrices
	Bytes   float64 `json:"bytes_per_second"` // of operands, each read and written once
}

// groups sums up launches by kernel and shapes. While it grows, TFLOPS and Bytes are sums, not rates.
type groups struct {
	all     []group
	at      map[string]int
	seconds float64
}

// add counts a launch that is made so many times, seconds each.
func (g *groups) add(l launch, times int, seconds float64) {
	if g.at == nil {
		g.at = map[string]int{}
	}
	shape := describe(l.Call)
	key := l.kernel + " " + shape
	k, seen := g.at[key]
	if !seen {
		k, g.at[key] = len(g.all), len(g.all)
		g.all = append(g.all, group{Kernel: l.kernel, Shape: shape})
	}
	n := float64(times)
	a := &g.all[k]
	a.Calls += times
	a.Seconds += n * seconds
	a.TFLOPS += n * l.operations / 1e12
	a.Bytes += n * l.bytes
	g.seconds += n * seconds
}

// sorted returns the groups, the longest first, with rates in place of sums.
func (g *groups) sorted() []group {
	all := slices.Clone(g.all)
	for i := range all {
		a := &all[i]
		s := max(a.Seconds, 1e-9)
		a.Share, a.TFLOPS, a.Bytes = a.Seconds/max(g.seconds, 1e-9), a.TFLOPS/s, a.Bytes/s
	}
	slices.SortStableFunc(all, func(a, b group) int { return cmp.Compare(b.Seconds, a.Seconds) })
	return all
}

// launch is a call as a card runs it, with what it costs.
type launch struct {
	*compute.Call
	kernel            string // with that of its epilogue
	operations, bytes float64
}

// launched lists what becomes of a plan's calls on a card, by their indexes: activations that are a product's epilogue (fused, as
// cudaplan.Fusions has it) are no calls of their own, and a gradient that the next product would be the first to add to is neither cleared
// nor read.
func launched(calls []compute.Call, fused map[int]int) map[int]launch {
	all := map[int]launch{}
	for i := range calls {
		c := &calls[i]
		if i+1 < len(calls) && cudaplan.Overwrites(c, &calls[i+1]) {
			continue
		}
		l := launch{c, c.Kernel.String(), c.Operations(), float64(c.Traffic())}
		if i > 0 && cudaplan.Overwrites(&calls[i-1], c) {
			l.bytes -= float64(c.Out[0].Bytes())
		}
		if j, ok := fused[i]; ok {
			a := &calls[j]
			l.kernel += " with " + a.Kernel.String()
			switch {
			case a.Kernel == compute.ActivationGrad:
				l.bytes += float64(a.In[1].Bytes()) // the activation's input; the gradient takes the product's place
			case !a.Out[0].Same(c.Out[0]):
				l.bytes += float64(a.Out[0].Bytes())
			}
		}
		all[i] = l
	}
	for _, j := range fused {
		delete(all, j)
	}
	return all
}

// describe names a call's shapes in short.
func describe(c *compute.Call) string {
	switch c.Kernel {
	case compute.Linear, compute.LinearGradX:
		return fmt.Sprintf("%dx%d w %dx%d", c.In[0].Shape[0], c.In[0].Shape[1], c.In[1].Shape[0], c.In[1].Shape[1])
	case compute.LinearGradW:
		return fmt.Sprintf("%d tokens, w %dx%d", c.In[0].Shape[0], c.Out[0].Shape[0], c.Out[0].Shape[1])
	case compute.Attention, compute.AttentionGrad:
		return fmt.Sprintf("%dx%d, %d/%d heads of %d", c.In[0].Shape[0]/c.Attr.Seq, c.Attr.Seq, c.Attr.Heads, c.Attr.KVHeads, c.Attr.HeadDim)
	case compute.CrossEntropy:
		return fmt.Sprintf("%dx%d, vocabulary %d", c.In[0].Shape[0], c.In[0].Shape[1], c.In[1].Shape[0])
	case compute.AdamW, compute.Zero, compute.SumSquares:
		return "" // of all parameters together
	}
	return fmt.Sprint(c.In[0].Shape)
}
