package graph

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"sort"

	"autodev/compute"
)

// placeWithin returns the placement of the program that computes again what its gradients need, with gradient checkpointing whole blocks, else
// what is cheap (recompute); and the calls whose results are kept all the same: attention where its gradient reads them, since computing it
// again takes long for what it would save, and then, in the order of keepOrder, as many as fit. fits reports that of a placement; nil: no
// more are kept.
func (p *program) placeWithin(dev compute.Target, checkpointing bool, fits func(placement) bool) (placement, []*instr) {
	blocks := map[int]bool{}
	if checkpointing {
		blocks = p.blocks()
	}
	var kept []*instr
	for _, c := range p.code {
		if dev.KeepsAttention() && c.call.Kernel == compute.Attention && blocks[c.block] {
			kept = append(kept, c)
		}
	}
	place := func(kept []*instr) placement {
		keep := set(kept)
		return p.checkpoint(blocks, keep).recompute(keep).place(dev)
	}
	best := place(kept)
	if len(blocks) > 0 {
		// The last block's gradients follow its forward calls almost at once, so that keeping its values often costs no memory; then they are
		// not computed again.
		last := slices.Max(slices.Collect(maps.Keys(blocks)))
		delete(blocks, last)
		if q := place(kept); q.arena <= best.arena {
			best = q
		} else {
			blocks[last] = true
		}
	}
	if fits == nil {
		return best, kept
	}
	order := p.keepOrder(blocks, kept)
	n := sort.Search(len(order), func(n int) bool { return !fits(place(slices.Concat(kept, order[:n+1]))) })
	if n > 0 {
		kept = slices.Concat(kept, order[:n])
		best = place(kept)
	}
	return best, kept
}

func set(calls []*instr) map[*instr]bool {
	m := map[*instr]bool{}
	for _, c := range calls {
		m[c] = true
	}
	return m
}

// checkpoint returns the program with gradient checkpointing (Chen et al. 2016): of every block in blocks only what flows
// to the next block and what kept calls compute stays in memory; what else the block's gradients need is computed again before them. The
// calls are the same with the same inputs, so the bits are.
func (p *program) checkpoint(blocks map[int]bool, kept map[*instr]bool) *program {
	dropped := p.dropped(blocks)
	needed := map[int]map[*instr]bool{}
	for b := range blocks {
		needed[b] = p.repeated(b, dropped, kept)
	}
	q := &program{}
	copies := map[*value]*value{}
	repeated := map[int]bool{}
	for _, c := range p.code {
		if c.phase == backward {
			for _, v := range c.in {
				f := dropped[v]
				if f == nil || kept[f] || repeated[f.block] {
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

// dropped returns the forward calls of the blocks by the values that they compute for their own block alone.
func (p *program) dropped(blocks map[int]bool) map[*value]*instr {
	producer := map[*value]*instr{}
	for _, c := range p.code {
		if c.phase != forward {
			continue
		}
		for _, v := range c.in {
			if f := producer[v]; f != nil && f.block != c.block {
				delete(producer, v)
			}
		}
		for _, v := range c.out {
			if v != nil && !v.fixed && blocks[c.block] {
				producer[v] = c
			}
		}
	}
	return producer
}

// repeated returns the calls of a block that its gradients need again.
func (p *program) repeated(block int, dropped map[*value]*instr, kept map[*instr]bool) map[*instr]bool {
	needed := map[*instr]bool{}
	var need func(v *value)
	need = func(v *value) {
		f := dropped[v]
		if f == nil || f.block != block || kept[f] || needed[f] {
			return
		}
		needed[f] = true
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
	return needed
}

// keepOrder lists calls whose results may be kept beside those that are, the one first that saves most time for its memory given those before.
// Of blocks that are not checkpointed it is the cheap ones. Calls that save as much come by block, the last one's first.
func (p *program) keepOrder(checkpointed map[int]bool, kept []*instr) []*instr {
	type candidate struct {
		*instr
		rate float64 // operations saved for each byte
	}
	var all []candidate
	blocks := p.blocks()
	dropped := p.dropped(blocks)
	for _, b := range slices.Backward(slices.Sorted(maps.Keys(blocks))) {
		keep := set(kept)
		for _, c := range p.code {
			if c.phase == forward && c.block == b && !checkpointed[b] && !cheap(c.call.Kernel) {
				keep[c] = true
			}
		}
		limit := math.Inf(1) // a call that saves more with those before it does not come before them
		for {
			needed := p.repeated(b, dropped, keep)
			best := candidate{rate: math.Inf(-1)}
			for _, c := range p.code {
				if !needed[c] {
					continue
				}
				keep[c] = true
				saved := p.cost(needed) - p.cost(p.repeated(b, dropped, keep))
				delete(keep, c)
				if rate := saved / float64(c.outBytes()); rate > best.rate {
					best = candidate{c, rate}
				}
			}
			if best.instr == nil {
				break
			}
			keep[best.instr] = true
			limit = min(limit, best.rate)
			best.rate = limit
			all = append(all, best)
		}
	}
	slices.SortStableFunc(all, func(a, b candidate) int { return cmp.Compare(b.rate, a.rate) })
	order := make([]*instr, len(all))
	for i, c := range all {
		order[i] = c.instr
	}
	return order
}

// operationsPerByte is how much a large GPU computes while it moves a byte, by which times are compared. CPUs compute less; the order that
// comes of it is nearly the same.
const operationsPerByte = 240

// cost is the time of some of the program's calls, as operations.
func (p *program) cost(calls map[*instr]bool) float64 {
	total := 0.0
	for _, c := range p.code {
		if calls[c] {
			call := c.placeless()
			total += max(call.Operations(), operationsPerByte*float64(call.Traffic()))
		}
	}
	return total
}

func (c *instr) outBytes() int64 {
	var n int64
	for _, v := range c.out {
		if v != nil {
			n += v.buf.Bytes()
		}
	}
	return n
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
