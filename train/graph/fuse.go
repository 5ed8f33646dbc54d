package graph

import (
	"slices"

	"autodev/compute"
)

// fuse returns the program with calls that pass over the same memory made one, where the vocabulary has a kernel that computes
// the bits of all: the gradients of a LayerNorm's gain, bias and input, and the sum of the last with what else flows to the
// residual stream.
func (p *program) fuse() *program {
	uses, at := map[*value]int{}, map[*value]int{}
	for i, c := range p.code {
		for _, v := range c.in {
			uses[v]++
		}
		for _, v := range c.out {
			at[v] = i
		}
	}
	code := slices.Clone(p.code)
	for i, norm := range p.code {
		if norm.call.Kernel != compute.LayerNormGrad {
			continue
		}
		fused := *norm
		fused.in, fused.out = append(slices.Clone(norm.in), nil), append(slices.Clone(norm.out), nil, nil)
		for j, c := range p.code[:i] {
			if c.of != norm.of || c.phase != norm.phase || len(c.in) == 0 || c.in[0] != norm.in[0] {
				continue
			}
			switch c.call.Kernel {
			case compute.LayerNormGainGrad:
				fused.out[1], code[j] = c.out[0], nil
			case compute.BiasGrad:
				fused.out[2], code[j] = c.out[0], nil
			}
		}

		for j, c := range p.code[i+1:] {
			if c.call.Kernel != compute.Add || uses[norm.out[0]] != 1 || !slices.Contains(c.in, norm.out[0]) {
				continue
			}
			base := c.in[0]
			if base == norm.out[0] {
				base = c.in[1]
			}
			// What the sum needs must exist by then.
			if base != norm.out[0] && (base.fixed || at[base] < i) {
				fused.in[3], fused.out[0] = base, c.out[0]
				code[i+1+j] = nil
			}
			break
		}
		for len(fused.in) > 3 && fused.in[len(fused.in)-1] == nil {
			fused.in = fused.in[:len(fused.in)-1]
		}
		for fused.out[len(fused.out)-1] == nil {
			fused.out = fused.out[:len(fused.out)-1]
		}
		code[i] = &fused
	}
	return &program{code: slices.DeleteFunc(code, func(c *instr) bool { return c == nil })}
}
