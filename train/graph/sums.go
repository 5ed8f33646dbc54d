package graph

import (
	"slices"

	"autodev/compute"
)

// foldSums returns the program with sums taken over by the products behind them: an Add of what a product alone computes for it, and of
// something else, becomes the product's base. Of two products the larger one adds, since reading a base hides behind its arithmetic. A
// product that has a base already gives it to that, if it is a product's own. The order of the roundings changes, the sum does not.
func (p *program) foldSums() *program {
	code := slices.Clone(p.code)
	at, uses := map[*value]int{}, map[*value]int{}
	for i, c := range code {
		for _, v := range c.out {
			at[v] = i
		}
		for _, v := range c.in {
			uses[v]++
		}
	}
	// product returns where v is computed, if that is by a product and for one use alone, else −1.
	product := func(v *value) int {
		if v == nil || v.fixed || uses[v] != 1 {
			return -1
		}
		if i := at[v]; baseSlot(code[i].call.Kernel) >= 0 {
			return i
		}
		return -1
	}
	// adder returns the product of the chain of bases behind v that has none itself, −1 where there is none.
	adder := func(v *value) int {
		for i := product(v); i >= 0; i = product(code[i].base()) {
			if code[i].base() == nil {
				return i
			}
		}
		return -1
	}
	for i, sum := range code {
		if sum.call.Kernel != compute.Add || sum.in[0] == sum.in[1] {
			continue
		}
		first, other := -1, (*value)(nil) // the product that will add other
		last := -1                        // the product that computes the sum then
		for slot, v := range sum.in {
			o := sum.in[1-slot]
			f, l := adder(v), product(v)
			if f < 0 || code[l].phase != sum.phase || f != l && !o.fixed && at[o] >= f {
				continue
			}
			if last < 0 || code[l].placeless().Operations() > code[last].placeless().Operations() {
				first, other, last = f, o, l
			}
		}
		if last < 0 {
			continue
		}
		code[first] = code[first].withBase(other)
		d := *code[last]
		d.out = sum.out
		code[last], code[i] = nil, &d // what it adds may be computed after its own place
		at[sum.out[0]] = i
	}
	return &program{code: slices.DeleteFunc(code, func(c *instr) bool { return c == nil })}
}

// baseSlot is the operand that a product adds, −1 for other kernels.
func baseSlot(k compute.Kernel) int {
	switch k {
	case compute.Linear:
		return 3
	case compute.LinearGradX:
		return 2
	}
	return -1
}

// base is what a product adds, nil if nothing.
func (c *instr) base() *value {
	if s := baseSlot(c.call.Kernel); s < len(c.in) {
		return c.in[s]
	}
	return nil
}

// withBase returns the product with another base.
func (c *instr) withBase(v *value) *instr {
	s, d := baseSlot(c.call.Kernel), *c
	d.in = append(slices.Clone(c.in), make([]*value, max(0, s+1-len(c.in)))...)
	d.in[s] = v
	return &d
}

// placeless is the call with operands that have types and shapes alone.
func (c *instr) placeless() *compute.Call {
	call := c.call
	call.In, call.Out = buffers(c.in), buffers(c.out)
	return &call
}
