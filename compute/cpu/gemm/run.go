package gemm

import (
	"sync"

	"autodev/compute/cpu/par"
)

// workPool holds packing space of callers that bring none.
var workPool = sync.Pool{New: func() any { return new([]float32) }}

// run computes the product part by part: pack, then multiply. With a nil pool it does not allocate.
func (j *job) run(p *par.Pool) {
	m, n, kk := j.a.Rows, j.b.Cols, j.a.Cols
	for i0 := 0; i0 < m; i0 += j.s.mb {
		for j0 := 0; j0 < n; j0 += j.s.nb {
			for k0 := 0; k0 < kk; k0 += j.s.kb {
				j.cut = [3]int{i0, j0, k0}
				j.m, j.n, j.kb = min(j.s.mb, m-i0), min(j.s.nb, n-j0), min(j.s.kb, kk-k0)
				j.packA = !j.s.directA && (j0 == 0 || j.s.kb < kk)
				j.group(p.Threads())
				packs, groups := j.packs(), j.groups()
				if p.Threads() == 1 {
					for i := range packs {
						j.pack(i)
					}
					for i := range groups {
						j.multiply(i)
					}
					continue
				}
				j.runShared(p, packs, groups)
			}
		}
	}
}

// runShared is apart from run because its method values make j escape.
func (j *job) runShared(p *par.Pool, packs, groups int) {
	shared := *j
	p.Run(packs, shared.pack)
	p.Run(groups, shared.multiply)
}

// tiles and panels count the present part's row tiles and column panels.
func (j *job) tiles() int  { return ceilDiv(j.m, j.k.mr) }
func (j *job) panelN() int { return ceilDiv(j.n, j.k.nr) }

// packs returns the number of packing items: A's tiles first, then B's panels.
func (j *job) packs() int {
	items := 0
	if j.packA {
		items = j.tiles()
	}
	switch {
	case j.panels != nil:
	case j.s.directB:
		items += min(1, j.n%j.k.nr)
	default:
		items += j.panelN()
	}
	return items
}

func (j *job) pack(item int) {
	k := j.k
	if j.packA {
		if tiles := j.tiles(); item >= tiles {
			item -= tiles
		} else {
			rows := min(k.mr, j.m-item*k.mr)
			k.packTile(j.ap[item*k.mr*j.kb:], j.a, j.cut[0]+item*k.mr, rows, j.cut[2], j.kb)
			return
		}
	}
	if j.s.directB {
		k.packPanel(j.bp, j.b, j.cut[2], j.kb, j.cut[1]+j.n/k.nr*k.nr)
		return
	}
	k.packPanel(j.bp[item*k.nr*j.kb:], j.b, j.cut[2], j.kb, j.cut[1]+item*k.nr)
}

// group chooses mt and nt: a group's A should stay in the second-level cache while panels of B pass by, and there should be
// enough groups to keep the threads busy to the end.
func (j *job) group(threads int) {
	j.mt, j.nt = min(j.tiles(), max(1, 168/j.k.mr)), min(j.panelN(), 16)
	if threads == 1 {
		return
	}
	work := func() int { return j.mt * j.k.mr * j.nt * j.k.nr * j.kb }
	for j.groups() < 4*threads && work() > 1<<19 {
		switch {
		case j.nt > 1 && (j.nt*j.k.nr >= j.mt*j.k.mr || j.mt == 1):
			j.nt = ceilDiv(j.nt, 2)
		case j.mt > 1:
			j.mt = ceilDiv(j.mt, 2)
		default:
			return
		}
	}
}

func (j *job) groups() int { return ceilDiv(j.tiles(), j.mt) * ceilDiv(j.panelN(), j.nt) }

// multiply computes one group of tiles of C over the present part of K.
func (j *job) multiply(item int) {
	k := j.k
	across := ceilDiv(j.tiles(), j.mt)
	t0, p0 := item%across*j.mt, item/across*j.nt
	t1, p1 := min(t0+j.mt, j.tiles()), min(p0+j.nt, j.panelN())
	for kc0 := 0; kc0 < j.kb; kc0 += KC {
		kc := min(KC, j.kb-kc0)
		init := j.init
		if j.cut[2]+kc0 > 0 {
			init = j.c
		}
		for panel := p0; panel < p1; panel++ {
			col := j.cut[1] + panel*k.nr
			cols := min(k.nr, j.n-panel*k.nr)
			b, ldb := j.panel(panel, kc0, cols)
			for tile := t0; tile < t1; tile++ {
				row := j.cut[0] + tile*k.mr
				rows := min(k.mr, j.m-tile*k.mr)
				a := j.tile(tile, kc0, rows)
				c := &j.c.Data[row*j.c.Stride+col]
				var from *float32
				if init.Data != nil {
					from = &init.Data[row*init.Stride+col]
				}
				k.tile[rows](kc, a, b, ldb, c, j.c.Stride, from, init.Stride, cols, j.alpha)
			}
		}
	}
}

// tile returns the address of a row tile of A, from row kc0 of the present part of K on.
func (j *job) tile(tile, kc0, rows int) *float32 {
	if j.s.directA {
		return &j.a.Data[j.cut[2]+kc0]
	}
	return &j.ap[tile*j.k.mr*j.kb+kc0*rows]
}

// panel returns the address and the row stride of a panel of B, from row kc0 of the present part of K on.
func (j *job) panel(panel, kc0, cols int) (*float32, int) {
	nr := j.k.nr
	switch {
	case j.panels != nil:
		return &j.panels[(j.cut[1]/nr+panel)*nr*j.b.Rows+(j.cut[2]+kc0)*nr], nr
	case !j.s.directB:
		return &j.bp[panel*nr*j.kb+kc0*nr], nr
	case cols == nr:
		return &j.b.Data[(j.cut[2]+kc0)*j.b.Stride+j.cut[1]+panel*nr], j.b.Stride
	}
	return &j.bp[kc0*nr], nr
}

// addBias sets c = base + bias.
func addBias(p *par.Pool, c, base Mat, bias []float32) {
	p.Run(c.Rows, func(i int) {
		dst := c.Data[i*c.Stride:][:c.Cols]
		src := base.Data[i*base.Stride:][:c.Cols]
		for j, v := range bias {
			dst[j] = src[j] + v
		}
	})
}

// fill sets c to what a product over nothing is added to.
func fill(c, init Mat) {
	for i := range c.Rows {
		dst := c.Data[i*c.Stride:][:c.Cols]
		if init.Data == nil {
			clear(dst)
		} else {
			copy(dst, init.Data[i*init.Stride:])
		}
	}
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }
func roundUp(a, b int) int { return ceilDiv(a, b) * b }
