package gemm

import (
	"math"
	"sync"
	"unsafe"

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
	tiles, panels := [2]int{t0, t1}, [2]int{p0, p1}
	soon := aheads.Get().(*ahead)
	switch {
	case j.panels != nil && j.tiles() == 1:
		j.stream(p0, p1, init, soon)
	case j.s.fused:
		j.fused(worker, tiles, panels, init, soon)
	default:
		for kc0 := 0; kc0 < j.kb; kc0 += KC {
			for panel := p0; panel < p1; panel++ {
				j.block(panel, kc0, tiles, panels, init, soon)
			}
			init = j.c
		}
	}
	aheads.Put(soon)
	if j.cut[2]+j.kb == j.a.Cols {
		j.finish(row0, row1, col0, col1)
	}
}

// block computes a block of K of the row tiles from tiles[0] to tiles[1] and a panel, beside which the group has the panels from
// group[0] to group[1].
func (j *job) block(panel, kc0 int, tiles, group [2]int, init Mat, soon *ahead) {
	b, ldb := j.panel(panel, kc0)
	soon.set(j.k, b, 0, 0, 0)
	if (j.panels != nil || !j.s.directB) && panel+1 < group[1] {
		next, _ := j.panel(panel+1, kc0)
		soon.set(j.k, next, 1, j.k.units(min(KC, j.kb-kc0))*j.k.width, 0)
	}
	j.multiplyPanel(b, ldb, panel, kc0, tiles, init, soon, nil)
}

// multiplyPanel computes a block of K of row tiles and a panel, whose block b is. After every tile next packs its share.
func (j *job) multiplyPanel(b []float32, ldb, panel, kc0 int, tiles [2]int, init Mat, soon *ahead, next *packing) {
	k := j.k
	kc := k.units(min(KC, j.kb-kc0))
	// A tile takes a microsecond or two: what can be is computed here.
	step, skip := k.mr*k.units(j.kb)*k.aWords, k.units(kc0)*k.aWords
	var direct *float32
	if j.s.directA {
		direct = &j.a.Data[j.cut[2]+kc0]
	}
	row0, left := j.cut[0]+tiles[0]*k.mr, j.m-tiles[0]*k.mr
	for at := 0; at < k.width && panel*k.width+at < j.n; at += k.nr {
		col := j.cut[1] + panel*k.width + at
		cols := min(k.nr, j.n-panel*k.width-at)
		row, a := row0, tiles[0]*step
		for tile := range tiles[1] - tiles[0] {
			rows := min(k.mr, left-tile*k.mr)
			pa := direct
			if pa == nil {
				pa = &j.ap[a+skip*rows]
			}
			if soon.turns <= 0 {
				soon.stay(k)
			}
			k.tile[rows](kc, pa, &b[at], ldb, &j.c.Data[row*j.c.Stride+col], j.c.Stride, init.from(row, col), init.Stride,
				cols, &soon.walk, j.alpha)
			soon.turns -= kc / 4
			if next != nil {
				if next.pause--; next.pause == 0 {
					next.share(j, soon)
				}
			}
			row += k.mr
			a += step
		}
	}
}

// packing is a block of K of some panels of a fused B that is being packed, share by share, while the block before is multiplied.
// Rows of B may lie a large power of two apart, on few lines of a cache: what is brought there must be used at once.
type packing struct {
	panel, panels int // the first and how many
	kc0, kc       int
	dst           []float32
	done          int // rows of the block that are packed
	rows, every   int // rows to a share, and tiles
	pause         int // tiles until the next share
}

// shareRows is the least rows of K in a share, a multiple of what every packing function takes at a time.
const shareRows = 16

// begin makes p the block of some panels that follows in a group, or none (no rows), to be packed into dst during so many tiles.
func (p *packing) begin(j *job, dst []float32, panel, kc0 int, group [2]int, tiles int, soon *ahead) {
	if panel >= group[1] {
		panel, kc0 = group[0], kc0+KC
	}
	*p = packing{panel: panel, panels: min(j.s.together, group[1]-panel), kc0: kc0, kc: min(KC, max(0, j.kb-kc0)), dst: dst}
	p.every = max(1, tiles*shareRows/KC)
	p.rows = roundUp(ceilDiv(p.kc*p.every, tiles), shareRows)
	p.pause = p.every
	p.ask(j, soon)
}

// ask lets soon lead through the next share.
func (p *packing) ask(j *job, soon *ahead) {
	rows, row, col := min(p.rows, p.kc-p.done), j.cut[2]+p.kc0+p.done, j.cut[1]+p.panel*j.k.width
	cols := min(p.panels*j.k.width, j.b.Cols-col)
	switch {
	case rows <= 0:
		soon.stay(j.k)
	case j.b.T:
		soon.set(j.k, j.b.Data[col*j.b.Stride+row:], cols, rows, j.b.Stride)
	default:
		soon.set(j.k, j.b.Data[row*j.b.Stride+col:], rows, cols, j.b.Stride)
	}
}

// share packs the next share.
func (p *packing) share(j *job, soon *ahead) {
	p.pack(j, p.rows)
	p.pause = p.every
	p.ask(j, soon)
}

// pack packs the next rows, as far as there are any.
func (p *packing) pack(j *job, rows int) {
	k := j.k
	if rows = min(rows, p.kc-p.done); rows > 0 {
		k.packPanels(p.dst[k.units(p.done)*k.width:], len(p.dst)/j.s.together, j.b, j.cut[2]+p.kc0+p.done, rows, j.cut[1]+p.panel*k.width, p.panels)
		p.done += rows
	}
}

// fused computes the row tiles and the panels of a group, whose panels it packs.
func (j *job) fused(worker int, tiles, group [2]int, init Mat, soon *ahead) {
	size := len(j.bp) / j.threads / 2
	space := j.bp[worker*2*size:][:2*size]
	var next packing
	next.begin(j, space[:size], group[0], 0, group, 1, soon)
	for buffer := 1; next.kc > 0; buffer = 1 - buffer {
		next.pack(j, KC)
		present := next
		next.begin(j, space[buffer*size:][:size], present.panel+j.s.together, present.kc0, group, present.panels*(tiles[1]-tiles[0]), soon)
		for i := range present.panels {
			from := init
			if present.kc0 > 0 {
				from = j.c
			}
			j.multiplyPanel(present.dst[i*size/j.s.together:], j.k.width, present.panel+i, present.kc0, tiles, from, soon, &next)
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
func (j *job) stream(p0, p1 int, init Mat, soon *ahead) {
	k := j.k
	if j.m <= maxStream && k.stream[j.m] != nil {
		if whole := min(p1, j.n/k.width) - p0; whole > 0 {
			pa := unsafe.SliceData(j.ap)
			if j.s.directA {
				pa = &j.a.Data[j.cut[2]]
			}
			b, _ := j.panel(p0, 0)
			row, col := j.cut[0], j.cut[1]+p0*k.width
			k.stream[j.m](whole, k.units(j.kb), KC/k.unit, pa, &b[0], &j.c.Data[row*j.c.Stride+col], j.c.Stride, init.from(row, col), init.Stride, j.alpha)
			p0 += whole
		}
	}
	for panel := p0; panel < p1; panel++ {
		from := init
		for kc0 := 0; kc0 < j.kb; kc0 += KC {
			j.block(panel, kc0, [2]int{0, 1}, [2]int{panel, panel + 1}, from, soon)
			from = j.c
		}
	}
}

// panel returns a panel of a B that is packed or read where it is, from row kc0 of the present part of K on, and the stride of its
// rows.
func (j *job) panel(panel, kc0 int) ([]float32, int) {
	k := j.k
	width := k.width
	switch {
	case j.panels != nil:
		return j.panels[(j.cut[1]/width+panel)*width*k.units(j.b.Rows)+k.units(j.cut[2]+kc0)*width:], width
	case !j.s.directB:
		return j.bp[panel*width*k.units(j.kb)+k.units(kc0)*width:], width
	case (panel+1)*width <= j.n:
		return j.b.Data[(j.cut[2]+kc0)*j.b.Stride+j.cut[1]+panel*width:], j.b.Stride
	}
	return j.bp[kc0*width:], width
}

// ahead is a walk and how many turns of it are left.
type ahead struct {
	walk  walk
	turns int
}

// aheads keeps the memory of walks: what an indirect call is given does not stay on the stack.
var aheads = sync.Pool{New: func() any { return new(ahead) }}

// set begins a walk through rows of n words, stride words apart.
func (a *ahead) set(k *kernel, words []float32, rows, n, stride int) {
	turns := ceilDiv(n, 16*max(1, k.lines))
	a.walk = walk{address(words), turns, turns, 4*stride - turns*64*k.lines}
	a.turns = rows * turns
}

// stay makes the walk one on the spot, which costs nothing.
func (a *ahead) stay(k *kernel) {
	a.walk[1], a.walk[2], a.walk[3] = 1, 1, -64*k.lines
	a.turns = math.MaxInt
}

// address is where x begins, for a walk.
func address(x []float32) int { return int(uintptr(unsafe.Pointer(unsafe.SliceData(x)))) }

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
