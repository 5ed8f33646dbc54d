package graph

// checkpoint returns the program with gradient checkpointing (Chen et al. 2016): of every block in blocks only what flows
// to the next block stays in memory; what the block's gradients need is computed again before them. The calls are the same
// with the same inputs, so the bits are.
func (p *program) checkpoint(blocks map[int]bool) *program {
	producer := map[*value]*instr{}
	outside := map[*value]bool{} // values that forward calls of another block use
	for _, c := range p.code {
		if c.phase != forward {
			continue
		}
		for _, v := range c.in {
			if f := producer[v]; f != nil && f.block != c.block {
				outside[v] = true
			}
		}
		for _, v := range c.out {
			if v != nil && !v.fixed {
				producer[v] = c
			}
		}
	}
	// dropped reports the call that computes v again, nil when v stays.
	dropped := func(v *value) *instr {
		if f := producer[v]; f != nil && f.block >= 0 && blocks[f.block] && !outside[v] {
			return f
		}
		return nil
	}

	needed := map[int]map[*instr]bool{} // per block, the calls to repeat
	var need func(v *value)
	need = func(v *value) {
		f := dropped(v)
		if f == nil {
			return
		}
		if needed[f.block] == nil {
			needed[f.block] = map[*instr]bool{}
		}
		if needed[f.block][f] {
			return
		}
		needed[f.block][f] = true
		for _, in := range f.in {
			need(in)
		}
	}
	for _, c := range p.code {
		if c.phase == backward {
			for _, v := range c.in {
				need(v)
			}
		}
	}

	q := &program{}
	copies := map[*value]*value{}
	repeated := map[int]bool{}
	for _, c := range p.code {
		if c.phase == backward {
			for _, v := range c.in {
				f := dropped(v)
				if f == nil || repeated[f.block] {
					continue
				}
				repeated[f.block] = true
				for _, r := range p.code {
					if !needed[f.block][r] {
						continue
					}
					d := *r
					d.phase = computedAgain
					d.in = substitute(r.in, copies)
					d.out = make([]*value, len(r.out))
					for i, v := range r.out {
						if v != nil {
							d.out[i] = &value{buf: v.buf}
							copies[v] = d.out[i]
						}
					}
					q.code = append(q.code, &d)
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

// blocks lists the blocks of the program's forward calls.
func (p *program) blocks() map[int]bool {
	blocks := map[int]bool{}
	for _, c := range p.code {
		if c.phase == forward && c.block >= 0 {
			blocks[c.block] = true
		}
	}
	return blocks
}
