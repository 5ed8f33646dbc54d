package gemm

import (
	"sync"

	"autodev/compute/cpu/par"
	"autodev/compute/cpu/vec"
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
						j.multiply(0, i)
					}
					continue
				}
				j.runShared(p, packs, groups)
			}
		}
	}
}

// runShared shares a part out among the pool's workers.
func (j *job) runShared(p *par.Pool, packs, groups int) {
	s := sharedJobs.Get().(*sharedJob)
	s.job = *j
	p.Do(packs, (*packTask)(s))
	p.Do(groups, (*multiplyTask)(s))
	s.job = job{}
	sharedJobs.Put(s)
}

// sharedJob is a job that several workers see. It is a copy, so that a product on the caller's goroutine stays on its stack.
type sharedJob struct{ job }

// sharedJobs keeps the memory of those that are over.
var sharedJobs = sync.Pool{New: func() any { return new(sharedJob) }}

// packTask and multiplyTask are the two steps of a part as par.Tasks.
type (
	packTask     sharedJob
	multiplyTask sharedJob
)

func (t *packTask) Item(_, i int)          { t.job.pack(i) }
func (t *multiplyTask) Item(worker, i int) { t.job.multiply(worker, i) }

// tiles and panels count the present part's row tiles and column panels.
func (j *job) tiles() int  { return ceilDiv(j.m, j.k.mr) }
func (j *job) panelN() int { return ceilDiv(j.n, j.k.width) }

// packs returns the number of packing items: A's tiles first, then B's panels.
func (j *job) packs() int {
	items := 0
	if j.packA {
		items = j.tiles()
	}
	switch {
	case j.panels != nil, j.s.fused:
	case j.s.directB:
		items += min(1, j.n%j.k.width)
	default:
		items += ceilDiv(j.panelN(), j.s.together)
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
			k.packTile(j.ap[item*k.mr*k.aWords*k.units(j.kb):], j.a, j.cut[0]+item*k.mr, rows, j.cut[2], j.kb)
			return
		}
	}
	if j.s.directB {
		k.packPanel(j.bp, j.b, j.cut[2], j.kb, j.cut[1]+j.n/k.width*k.width)
		return
	}
	panel, step := item*j.s.together, k.width*k.units(j.kb)
	panels := min(j.s.together, j.panelN()-panel)
	if j.b.T {
		k.packPanels(j.bp[panel*step:], step, j.b, j.cut[2], j.kb, j.cut[1]+panel*k.width, panels)
		return
	}
	// What is written for a block stays in the second-level cache until its lines are whole.
	for kc0 := 0; kc0 < j.kb; kc0 += KC {
		k.packPanels(j.bp[panel*step+kc0/k.unit*k.width:], step, j.b, j.cut[2]+kc0, min(KC, j.kb-kc0), j.cut[1]+panel*k.width, panels)
	}
}

// group chooses mt and nt: a group's A should stay in the second-level cache while panels of B pass by, and there should be
// enough groups to keep the threads busy to the end.
func (j *job) group(threads int) {
	j.mt, j.nt = min(j.tiles(), max(1, 168/j.k.mr)), min(j.panelN(), 32)
	if j.s.fused {
		j.mt = j.tiles()
	}
	if threads == 1 {
		return
	}
	work := func() int { return j.mt * j.k.mr * j.nt * j.k.width * j.kb }
	for j.groups() < 4*threads && work() > 1<<19 {
		switch {
		case j.nt > 1 && (j.s.fused || j.nt*j.k.width >= j.mt*j.k.mr || j.mt == 1):
			j.nt = ceilDiv(j.nt, 2)
		case j.mt > 1 && !j.s.fused:
			j.mt = ceilDiv(j.mt, 2)
		default:
			return
		}
	}
}

func (j *job) groups() int { return ceilDiv(j.tiles(), j.mt) * ceilDiv(j.panelN(), j.nt) }

// multiply computes one group of tiles of C over the present part of K.
func (j *job) multiply(worker, item int) {
	k := j.k
	across := ceilDiv(j.tiles(), j.mt)
	t0, p0 := item%across*j.mt, item/across*j.nt
	t1, p1 := min(t0+j.mt, j.tiles()), min(p0+j.nt, j.panelN())
	// The group's part of C.
	row0, row1 := j.cut[0]+t0*k.mr, j.cut[0]+min(t1*k.mr, j.m)
	col0, col1 := j.cut[1]+p0*k.width, j.cut[1]+min(p1*k.width, j.n)
	init := j.init
	if j.cut[2] > 0 {
		init = j.c
	} else if j.bias != nil {
		j.addBias(row0, row1, col0, col1)
		init = j.c
	}
	if j.panels != nil && j.tiles() == 1 {
		j.stream(p0, p1, init)
	} else {
		for kc0 := 0; kc0 < j.kb; kc0 += KC {
			for panel := p0; panel < p1; panel++ {
				j.block(worker, panel, kc0, [2]int{t0, t1}, [2]int{p0, p1}, init)
			}
			init = j.c
		}
	}
	if j.cut[2]+j.kb == j.a.Cols {
		j.finish(row0, row1, col0, col1)
	}
}

// block computes a block of K of the row tiles from tiles[0] to tiles[1] and a panel of a group that has those from group[0] to group[1].
func (j *job) block(worker, panel, kc0 int, tiles, group [2]int, init Mat) {
	k := j.k
	kc := k.units(min(KC, j.kb-kc0))
	b, ldb := j.panel(worker, panel, kc0, group)
	next := j.next(b, panel, group[1], kc0, kc)
	// A tile takes a microsecond or two: what it needs to know is computed here.
	step, skip := k.mr*k.units(j.kb)*k.aWords, k.units(kc0)*k.aWords
	row0, left := j.cut[0]+tiles[0]*k.mr, j.m-tiles[0]*k.mr
	for at := 0; at < k.width && panel*k.width+at < j.n; at += k.nr {
		col := j.cut[1] + panel*k.width + at
		cols := min(k.nr, j.n-panel*k.width-at)
		prefetches := j.s.fused && at == 0
		row, a := row0, tiles[0]*step
		for tile := range tiles[1] - tiles[0] {
			if prefetches {
				j.prefetch(panel, kc0, group, tile, tiles[1]-tiles[0])
			}
			rows := min(k.mr, left-tile*k.mr)
			var pa *float32
			if j.s.directA {
				pa = &j.a.Data[j.cut[2]+kc0]
			} else {
				pa = &j.ap[a+skip*rows]
			}
			k.tile[rows](kc, pa, &b[at], ldb, &j.c.Data[row*j.c.Stride+col], j.c.Stride, init.from(row, col), init.Stride,
				cols, next.line(tile), j.alpha)
			row += k.mr
			a += step
		}
	}
}

// from returns the address of an element, nil without data.
func (m Mat) from(row, col int) *float32 {
	if m.Data == nil {
		return nil
	}
	return &m.Data[row*m.Stride+col]
}

// stream computes panels of a B packed beforehand and a single tile of A, one panel after the other through the whole part of K:
// what few rows wait for is memory, which delivers most when it is read in order.
func (j *job) stream(p0, p1 int, init Mat) {
	k := j.k
	if j.m <= maxStream && k.stream[j.m] != nil {
		if whole := min(p1, j.n/k.width) - p0; whole > 0 {
			b, _ := j.panel(0, p0, 0, [2]int{p0, p1})
			row, col := j.cut[0], j.cut[1]+p0*k.width
			k.stream[j.m](whole, k.units(j.kb), KC/k.unit, j.tile(0, 0, j.m), &b[0], &j.c.Data[row*j.c.Stride+col], j.c.Stride, init.from(row, col), init.Stride, j.alpha)
			p0 += whole
		}
	}
	for panel := p0; panel < p1; panel++ {
		from := init
		for kc0 := 0; kc0 < j.kb; kc0 += KC {
			j.block(0, panel, kc0, [2]int{0, 1}, [2]int{panel, panel + 1}, from)
			from = j.c
		}
	}
}

// tile returns the address of a row tile of A, from row kc0 of the present part of K on.
func (j *job) tile(tile, kc0, rows int) *float32 {
	if j.s.directA {
		return &j.a.Data[j.cut[2]+kc0]
	}
	k := j.k
	return &j.ap[(tile*k.mr*k.units(j.kb)+k.units(kc0)*rows)*k.aWords]
}

// panel returns a panel of B from row kc0 of the present part of K on, and the stride of its rows.
func (j *job) panel(worker, panel, kc0 int, group [2]int) ([]float32, int) {
	k := j.k
	width := k.width
	switch {
	case j.s.fused:
		size := len(j.bp) / j.threads
		b := j.bp[worker*size:][:size]
		step := size / j.s.together
		place := (panel - group[0]) % j.s.together
		if place == 0 {
			k.packPanels(b, step, j.b, j.cut[2]+kc0, min(KC, j.kb-kc0), j.cut[1]+panel*width, min(j.s.together, group[1]-panel))
		}
		return b[place*step:], width
	case j.panels != nil:
		return j.panels[(j.cut[1]/width+panel)*width*k.units(j.b.Rows)+k.units(j.cut[2]+kc0)*width:], width
	case !j.s.directB:
		return j.bp[panel*width*k.units(j.kb)+k.units(kc0)*width:], width
	case (panel+1)*width <= j.n:
		return j.b.Data[(j.cut[2]+kc0)*j.b.Stride+j.cut[1]+panel*width:], j.b.Stride
	}
	return j.bp[kc0*width:], width
}

// ahead is a part of B that the tiles of a panel ask for while they are computed, each for share words.
type ahead struct {
	words []float32
	share int
}

// next returns what follows the block b of kc units of a panel: the same block of the group's next panel, if it is packed, or b
// itself, which costs nothing.
func (j *job) next(b []float32, panel, end, kc0, kc int) ahead {
	width := j.k.width
	step := width * j.k.units(j.kb)
	switch {
	case j.panels != nil:
		step = width * j.k.units(j.b.Rows)
	case j.s.directB || j.s.fused:
		return ahead{words: b}
	}
	if panel+1 == end {
		return ahead{words: b}
	}
	return ahead{words: b[step:][:kc*width], share: kc / 4 * 16}
}

// prefetch asks for a tile's share of what is packed after the panels that are packed together with the given one of a fused B.
func (j *job) prefetch(panel, kc0 int, group [2]int, tile, tiles int) {
	k := j.k
	if k.prefetch == nil {
		return
	}
	place := (panel - group[0]) % j.s.together
	first := panel - place
	present := min(j.s.together, group[1]-first)
	if first += present; first == group[1] {
		first, kc0 = group[0], kc0+KC
	}
	if kc0 >= j.kb {
		return
	}
	b := j.b
	row, col := j.cut[2]+kc0, j.cut[1]+first*k.width
	rows, cols := min(KC, j.kb-kc0), min(min(j.s.together, group[1]-first)*k.width, b.Cols-col)
	if b.T {
		row, col, rows, cols = col, row, cols, rows
	}
	share := ceilDiv(rows, present*tiles)
	if from := (place*tiles + tile) * share; from < rows {
		k.prefetch(min(share, rows-from), &b.Data[(row+from)*b.Stride+col], b.Stride, ceilDiv(cols, 16))
	}
}

// line returns the address from which on the given tile of a panel asks.
func (a ahead) line(tile int) *float32 {
	if at := tile * a.share; at < len(a.words) {
		return &a.words[at]
	}
	return &a.words[0]
}

// addBias sets a part of C to init + bias.
func (j *job) addBias(row0, row1, col0, col1 int) {
	for i := row0; i < row1; i++ {
		vec.Add(j.c.Data[i*j.c.Stride+col0:i*j.c.Stride+col1], j.init.Data[i*j.init.Stride+col0:i*j.init.Stride+col1], j.bias[col0:col1])
	}
}

// finish does to a part of C what comes after the product.
func (j *job) finish(row0, row1, col0, col1 int) {
	if j.then == nil {
		return
	}
	for i := row0; i < row1; i++ {
		c := j.c.Data[i*j.c.Stride+col0 : i*j.c.Stride+col1]
		j.then(c, c)
		if j.last.Data != nil {
			vec.Add(c, c, j.last.Data[i*j.last.Stride+col0:i*j.last.Stride+col1])
		}
	}
}

// empty sets C to what a product over nothing is.
func (j *job) empty() {
	rows, cols := j.c.Rows, j.c.Cols
	switch {
	case j.bias != nil:
		j.addBias(0, rows, 0, cols)
	case j.init.Data != nil:
		for i := range rows {
			copy(j.c.Data[i*j.c.Stride:][:cols], j.init.Data[i*j.init.Stride:])
		}
	default:
		for i := range rows {
			clear(j.c.Data[i*j.c.Stride:][:cols])
		}
	}
	j.finish(0, rows, 0, cols)
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }
func roundUp(a, b int) int { return ceilDiv(a, b) * b }
