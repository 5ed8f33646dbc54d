package quant

import (
	"fmt"
	"sync"

	"autodev/compute/cpu/par"
)

// Epilogue is what happens to a product: y = Then(x·Wᵀ + Bias) + Base. Zero fields are left out.
type Epilogue struct {
	Bias []float32            // [out]
	Then func(y, x []float32) // element-wise, such as vec.GELUTanh; y and x are the same memory
	Base []float32            // [n, out]; may be y
	// Rows, which must not be x, gets y quantised while it is in cache: what Rows.Set would make of it. y itself is scratch then, and
	// Base must be nil.
	Rows *Rows
	// Stop is asked now and then, by any thread. Once it is true the rest of the product is left out.
	Stop func() bool
}

// Mul writes x·Wᵀ with its epilogue to y [n, out].
func Mul(p *par.Pool, y []float32, x *Rows, w *Matrix, e Epilogue) {
	if r := e.Rows; r != nil {
		if !fuses(x, w) {
			e.Rows = nil
			Mul(p, y, x, w, e)
			r.set(x.k, p, y, x.n, w.out)
			return
		}
		r.reset(x.k, x.n, w.out, p.Threads())
	}
	if x.n == 0 {
		return
	}
	if x.in != w.in || len(y) != x.n*w.out || e.Bias != nil && len(e.Bias) != w.out || e.Base != nil && (len(e.Base) != len(y) || e.Rows != nil) {
		panic(fmt.Sprintf("quant: y of %d, x [%d %d], w [%d %d], bias of %d, base of %d", len(y), x.n, x.in, w.out, w.in, len(e.Bias), len(e.Base)))
	}
	j := jobs.Get().(*job)
	j.y, j.x, j.w, j.e = y, x, w, e
	j.cut(p.Threads())
	j.workers = grow(j.workers, p.Threads())
	p.Do(j.items(), j)
	j.y, j.x, j.w, j.e = nil, nil, nil, Epilogue{}
	jobs.Put(j)
}

// jobs keeps the memory of products that are over.
var jobs = sync.Pool{New: func() any { return new(job) }}

// job is one product, a par.Task. Its items are runs of neighbouring panels.
type job struct {
	y       []float32
	x       *Rows
	w       *Matrix
	e       Epilogue
	perItem int // panels
	parts   int // of the tiles, each an item for the same panels
	workers []worker
}

// worker is one worker's memory. What kernels get by address is kept here because it would not stay on the stack.
type worker struct {
	c    []float32 // the tile's outputs
	tile tile
	out  output
}

func (j *job) panels() int { return ceilDiv(j.w.out, panelOut) }
func (j *job) items() int  { return ceilDiv(j.panels(), j.perItem) * j.parts }

const (
	// groupPanels is how many panels' outputs are quantised together.
	groupPanels = ActGroup / panelOut
	// groupCodes is how much their codes may be for the second-level cache to hold them, with what else a batch needs there.
	groupCodes = 640 << 10
)

// fuses reports whether outputs are quantised by the items that compute them.
func fuses(x *Rows, w *Matrix) bool {
	codes, _ := w.format.panelBytes(w.in)
	return x.tiles() <= 1 || groupPanels*codes <= groupCodes
}

// cut chooses the items. A batch's tiles pass over an item's weights one after the other, so these should stay in the
// second-level cache; few rows only need items large enough to be one stream from memory. More items than threads, so
// that a thread that is held up leaves its work to others.
func (j *job) cut(threads int) {
	j.parts = 1
	if j.e.Rows != nil {
		// A group's outputs are one item's.
		j.perItem = groupPanels
		if threads > 1 && j.x.tiles() >= 8 {
			j.parts = 2
		}
		return
	}
	codes, _ := j.w.format.panelBytes(j.w.in)
	size := 256 << 10
	if j.x.tiles() == 1 {
		size = 512 << 10
	}
	run := max(size/codes, 1)
	if threads > 1 {
		run = min(run, ceilDiv(j.panels(), 8*threads))
	}
	j.perItem = min(roundUp(run, 2), 64)
}

// Item computes an item.
func (j *job) Item(number, item int) {
	if j.e.Stop != nil && j.e.Stop() {
		return
	}
	w := &j.workers[number]
	part := item % j.parts
	first := item / j.parts * j.perItem
	panels := min(j.perItem, j.panels()-first)
	// Rows of the tile do not start a power of two apart, which would put them on each other in the first-level cache.
	ldc := panels*panelOut + panelOut
	w.c = grow(w.c, j.x.k.mr*ldc)
	f := j.w.format
	codeStep, scaleStep := f.panelBytes(j.w.in)
	padded := j.x.padded()
	for n := part * j.x.tiles() / j.parts; n < (part+1)*j.x.tiles()/j.parts; n++ {
		row, rows := j.x.tile(n)
		t := &w.tile
		*t = tile{
			codeStep: codeStep, scaleStep: scaleStep,
			x: &j.x.codes[row*padded], scale: &j.x.scale[row*ceilDiv(j.x.in, ActGroup)],
			c: &w.c[0], ldc: ldc, in: padded, panels: panels, stream: j.x.tiles() == 1,
			codes: &j.w.codes[first*codeStep], scales: &j.w.scales[first*scaleStep],
		}
		if f == Int4 {
			t.sums = &j.x.sum4[row*padded/64]
		} else {
			t.sums = &j.x.sum8[row*ceilDiv(j.x.in, ActGroup)]
		}
		at := row*j.w.out + first*panelOut
		if !t.stream && j.e.Rows == nil {
			t.ldy, t.y = j.w.out, &j.y[at]
			if j.e.Base != nil && &j.e.Base[at] != t.y {
				t.base = &j.e.Base[at]
			}
		}
		j.x.k.multiply(t, f, rows)
		o, length := first*panelOut, min(panels*panelOut, j.w.out-first*panelOut)
		j.finish(w, ldc, row, rows, o, length)
		if to := j.e.Rows; to != nil {
			for i := range rows {
				to.setRow(&to.tail[number], row, rows, i, o, w.c[i*ldc:][:length])
			}
		}
	}
	w.tile, w.out = tile{}, output{}
}

// finish applies the epilogue to n outputs from output o on of a tile's rows in w.c, which it may overwrite.
func (j *job) finish(w *worker, ldc, row, rows, o, n int) {
	at := row*j.w.out + o
	out := &w.out
	*out = output{y: &j.y[at], c: &w.c[0], ldy: j.w.out, ldc: ldc, rows: rows, length: n}
	if j.e.Bias != nil {
		out.bias = &j.e.Bias[o]
	}
	if then := j.e.Then; then != nil {
		// First the bias alone, c to c, for then to find the rows there.
		out.y, out.ldy = out.c, ldc
		if out.bias != nil {
			j.x.k.finish(out)
		}
		for i := range rows {
			part := w.c[i*ldc:][:n]
			then(part, part)
		}
		out.y, out.ldy, out.bias = &j.y[at], j.w.out, nil
	}
	if j.e.Base != nil {
		out.base = &j.e.Base[at]
	}
	if j.e.Rows != nil {
		if out.bias == nil {
			return
		}
		out.y, out.ldy = out.c, ldc // from where it is quantised
	}
	j.x.k.finish(out)
}
