package graph

import "autodev/compute"

// recompute returns the program with selective recomputation (Korthikanti et al. 2022): outputs of cheap calls, which are
// as large as any but take no longer to compute than to read, are not kept from the forward phase but computed again just
// before their first use by a gradient, but for those of kept calls. The calls and their inputs are the same, so the bits are.
func (p *program) recompute(kept map[*instr]bool) *program {
	producer, last := map[*value]*instr{}, map[*value]int{}
	for i, c := range p.code {
		for _, v := range c.out {
			if v != nil && !v.fixed {
				producer[v] = c
			}
		}
		for _, v := range c.in {
			if v != nil {
				last[v] = i
			}
		}
	}
	// again reports whether v can be computed at call i from what is in memory then anyway.
	var again func(v *value, i int) bool
	again = func(v *value, i int) bool {
		f := producer[v]
		if f == nil || f.phase != forward || !cheap(f.call.Kernel) || kept[f] {
			return false
		}
		for _, in := range f.in {
			if in != nil && !in.fixed && last[in] < i && !again(in, i) {
				return false
			}
		}
		return true
	}
	q := &program{}
	copies := map[*value]*value{}
	var repeat func(v *value, i int)
	repeat = func(v *value, i int) {
		if copies[v] != nil || !again(v, i) {
			return
		}
		f := *producer[v]
		f.phase = computedAgain
		for _, in := range f.in {
			if in != nil && !in.fixed {
				repeat(in, i)
			}
		}
		f.in = substitute(f.in, copies)
		w := &value{buf: v.buf}
		f.out = []*value{w}
		q.code = append(q.code, &f)
		copies[v] = w
	}
	for i, c := range p.code {
		if c.phase == backward {
			for _, v := range c.in {
				if v != nil {
					repeat(v, i)
				}
			}
			d := *c
			d.in = substitute(c.in, copies)
			c = &d
		}
		q.code = append(q.code, c)
	}
	return q
}

// cheap reports whether a kernel's only output costs about a pass over its input.
func cheap(k compute.Kernel) bool {
	switch k {
	case compute.LayerNorm, compute.Activation, compute.Dropout:
		return true
	}
	return false
}

// substitute returns vs with the values that have copies replaced by them.
func substitute(vs []*value, copies map[*value]*value) []*value {
	replaced := make([]*value, len(vs))
	for i, v := range vs {
		if replaced[i] = v; copies[v] != nil {
			replaced[i] = copies[v]
		}
	}
	return replaced
}
