package infer

import "autodev/compute/cuda"

// norms says which layer norms are within the products of short spans that read them, which saves their launches.
type norms struct {
	within []bool // by step, of norms
	of     []int  // by step, of products: the norm that is within it, or −1
}

// normsWithin finds the norms that nothing but products reads, which find what was normed still in its register and do not write over it.
func normsWithin(p *program) norms {
	n := norms{make([]bool, len(p.steps)), make([]int, len(p.steps))}
	for i := range n.of {
		n.of[i] = -1
	}
	for i := range p.steps {
		norm := &p.steps[i]
		if norm.op != opLayerNorm {
			continue
		}
		var readers []int
		within, there := true, true // there: the register of what is normed has it
		for j := i + 1; j < len(p.steps) && within; j++ {
			st := &p.steps[j]
			there = there && st.out != norm.x
			if st.x == norm.out || st.y == norm.out {
				within = there && st.y != norm.out && (st.op == opLinear || st.op == opHead)
				readers = append(readers, j)
			}
			if st.out == norm.out {
				break
			}
		}
		if n.within[i] = within && len(readers) > 0; n.within[i] {
			for _, j := range readers {
				n.of[j] = i
			}
		}
	}
	return n
}

// normed returns what a product of a pass reads, and the norm within it.
func (c *card) normed(p *pass, i int) (cuda.Ptr, cuda.Norm) {
	x := c.register(p, c.program.steps[i].x)
	k := c.norms.of[i]
	if !p.kind.short || k < 0 {
		return x, cuda.Norm{}
	}
	st := &c.program.steps[k]
	return c.register(p, st.x), cuda.Norm{Gain: c.at.gain[k], Shift: c.at.bias[k], Scratch: x, Epsilon: st.epsilon}
}

// layerNorm prepares step i, a norm, by itself.
func (c *card) layerNorm(q *cuda.Queue, p *pass, i int) (cuda.Sequence, error) {
	st := &c.program.steps[i]
	return c.operations(q).LayerNorm(c.register(p, st.out), c.register(p, st.x), c.at.gain[i], c.at.bias[i], p.rows, len(st.gain), st.epsilon)
}
