package graph

import (
	"cmp"
	"slices"

	"autodev/compute"
)

// placement is where a program's values lie.
type placement struct {
	calls     []compute.Call
	arena     int64            // bytes
	live      int64            // the most bytes of values that are alive at once: a lower bound of arena without work space
	workspace int64            // the largest work space of a call
	grads     map[string]int64 // offsets of the gradients in the arena, by the values' names
}

// region is a part of the arena for the calls from first to last: a value, several that pass their memory on, or a call's
// work space.
type region struct {
	bytes       int64
	first, last int
	offset      int64
}

// place assigns every value of the program a place in the arena and returns its calls. A value may lie where another lies
// that is no longer used; calls that allow it write over their last-used input.
func (p *program) place(dev compute.Target) placement {
	last := map[*value]int{}
	for i, c := range p.code {
		for _, v := range c.in {
			if v != nil {
				last[v] = i
			}
		}
		for _, v := range c.out {
			if v != nil {
				last[v] = i
			}
			if v != nil && v.grad {
				last[v] = len(p.code)
			}
		}
	}
	var regions []*region
	of := map[*value]*region{}
	work := make([]*region, len(p.code))
	var pl placement
	for i, c := range p.code {
		call := c.call
		call.In, call.Out = buffers(c.in), buffers(c.out)
		if call.Kernel == compute.Zero {
			call.Out[0].Shape = []int{call.Out[0].Len()}
		}
		for j, v := range c.out {
			if v == nil || v.fixed || of[v] != nil {
				continue
			}
			if j == 0 {
				if r := reuse(c, i, last, of); r != nil {
					r.last = last[v]
					of[v] = r
					continue
				}
			}
			r := &region{bytes: v.buf.Bytes(), first: i, last: last[v]}
			regions = append(regions, r)
			of[v] = r
		}
		if n := dev.WorkBytes(&call); n > 0 {
			work[i] = &region{bytes: n, first: i, last: i}
			pl.workspace = max(pl.workspace, n)
		}
		pl.calls = append(pl.calls, call)
	}
	alive := make([]int64, len(p.code)+1)
	for _, r := range regions {
		for i := r.first; i <= r.last; i++ {
			alive[i] += align(r.bytes)
			pl.live = max(pl.live, alive[i])
		}
	}
	for _, r := range work {
		if r != nil {
			regions = append(regions, r)
		}
	}
	pl.arena = assign(regions)
	pl.grads = map[string]int64{}
	for v, r := range of {
		if v.grad {
			pl.grads[v.name] = r.offset
		}
	}
	for i, c := range p.code {
		set := func(bs []compute.Buffer, vs []*value) {
			for j, v := range vs {
				if r := of[v]; r != nil {
					bs[j].Offset = r.offset
				}
			}
		}
		set(pl.calls[i].In, c.in)
		set(pl.calls[i].Out, c.out)
		if r := work[i]; r != nil {
			pl.calls[i].Work = compute.Buffer{Space: compute.Arena, Offset: r.offset, DType: compute.F32, Shape: []int{int((r.bytes + 3) / 4)}}
		}
	}
	return pl
}

// reuse returns the region of the input that call c, at i, may overwrite with its first output, nil when there is none: the
// kernel must allow it, and nothing may use the input afterwards or beside.
func reuse(c *instr, i int, last map[*value]int, of map[*value]*region) *region {
	var slots []int
	switch c.call.Kernel {
	case compute.Add, compute.ActivationGrad:
		slots = []int{0, 1}
	case compute.Dropout, compute.Activation:
		slots = []int{0}
	case compute.Linear:
		slots = []int{3}
	case compute.LinearGradX:
		slots = []int{2}
	case compute.LayerNormGrad:
		slots = []int{3, 0}
	}
	for _, s := range slots {
		if s >= len(c.in) {
			continue
		}
		v := c.in[s]
		r := of[v]
		if r == nil || last[v] != i || r.last != i {
			continue
		}
		uses := 0
		for _, w := range c.in {
			if w != nil && of[w] == r {
				uses++
			}
		}
		if uses == 1 {
			return r
		}
	}
	return nil
}

// assign gives every region an offset so that no two that are alive at the same call overlap, and returns the bytes needed.
// Largest first, each in the tightest gap that holds it.
func assign(regions []*region) int64 {
	order := slices.Clone(regions)
	slices.SortStableFunc(order, func(a, b *region) int {
		return cmp.Or(cmp.Compare(b.bytes, a.bytes), cmp.Compare(a.first, b.first))
	})
	var placed []*region // by offset
	var total int64
	for _, r := range order {
		var end, best, gap int64
		gap = -1
		for _, q := range placed {
			if q.last < r.first || r.last < q.first {
				continue
			}
			if room := q.offset - end; room >= r.bytes && (gap < 0 || room < gap) {
				best, gap = end, room
			}
			end = max(end, align(q.offset+q.bytes))
		}
		if gap < 0 {
			best = end
		}
		r.offset = best
		total = max(total, align(best+r.bytes))
		at, _ := slices.BinarySearchFunc(placed, r.offset, func(q *region, o int64) int { return cmp.Compare(q.offset, o) })
		placed = slices.Insert(placed, at, r)
	}
	return total
}

func align(n int64) int64 { return (n + compute.Align - 1) &^ (compute.Align - 1) }

func buffers(vs []*value) []compute.Buffer {
	bs := make([]compute.Buffer, len(vs))
	for i, v := range vs {
		if v != nil {
			bs[i] = v.buf
		}
	}
	return bs
}
