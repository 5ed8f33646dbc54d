package pack

import "autodev/data/fim"

// filling is a window that is not full. The three slices are equally long.
type filling struct {
	IDs     ints `json:"ids"`
	Targets ints `json:"targets"`
	Start   ints `json:"start"` // DocStart
}

func (f *filling) room(sequence int) int { return sequence - len(f.IDs) }

// packer places examples. Its results depend only on the order of calls.
type packer struct {
	opts Options
	pad  int32
	open []*filling // oldest first
	full []*filling // closed and not handed out, in order
}

// minPart is the fewest positions worth cutting a plain example for.
const minPart = 32

// place puts the tokens of ex from offset on into windows, at most one part, and returns the offset of what is left; at
// len(ex.IDs)-1 (in crossing mode len(ex.IDs)) nothing is.
func (p *packer) place(ex *fim.Example, offset int) int {
	if p.opts.CrossDocuments {
		return p.placeCrossing(ex, offset)
	}
	need := len(ex.IDs) - 1 - offset
	if need <= 0 {
		return len(ex.IDs) - 1
	}
	if best := p.bestFit(need); best >= 0 {
		return p.put(best, ex, offset, need)
	}
	if !ex.Whole {
		// The roomiest window takes the head. The rest goes wherever it fits then.
		roomy := -1
		for i, w := range p.open {
			if r := w.room(p.opts.Sequence); r >= minPart && (roomy < 0 || r > p.open[roomy].room(p.opts.Sequence)) {
				roomy = i
			}
		}
		if roomy >= 0 {
			return p.put(roomy, ex, offset, p.open[roomy].room(p.opts.Sequence))
		}
	}
	if len(p.open) == OpenWindows {
		p.close(p.fullest())
	}
	p.open = append(p.open, &filling{})
	return p.put(len(p.open)-1, ex, offset, min(need, p.opts.Sequence))
}

// bestFit returns the open window with the least room that holds n positions, the oldest of equals, or -1.
func (p *packer) bestFit(n int) int {
	best := -1
	for i, w := range p.open {
		if r := w.room(p.opts.Sequence); r >= n && (best < 0 || r < p.open[best].room(p.opts.Sequence)) {
			best = i
		}
	}
	return best
}

func (p *packer) fullest() int {
	best := 0
	for i, w := range p.open {
		if w.room(p.opts.Sequence) < p.open[best].room(p.opts.Sequence) {
			best = i
		}
	}
	return best
}

// put appends n positions of ex from offset on to open window i.
func (p *packer) put(i int, ex *fim.Example, offset, n int) int {
	w := p.open[i]
	start := int32(len(w.IDs))
	for k := offset; k < offset+n; k++ {
		target := int32(NotScored)
		if p.learns(ex, k+1) {
			target = ex.IDs[k+1]
		}
		w.IDs = append(w.IDs, ex.IDs[k])
		w.Targets = append(w.Targets, target)
		w.Start = append(w.Start, start)
	}
	if w.room(p.opts.Sequence) == 0 {
		p.close(i)
	}
	return offset + n
}

// learns reports whether token k of ex is a target.
func (p *packer) learns(ex *fim.Example, k int) bool {
	return p.opts.LossOn == All || ex.Kind == fim.Plain || k >= ex.Middle
}

func (p *packer) placeCrossing(ex *fim.Example, offset int) int {
	if len(p.open) == 0 {
		p.open = append(p.open, &filling{})
	}
	w := p.open[0]
	n := min(w.room(p.opts.Sequence), len(ex.IDs)-offset)
	for k := offset; k < offset+n; k++ {
		if last := len(w.IDs) - 1; last >= 0 && p.learns(ex, k) {
			w.Targets[last] = ex.IDs[k]
		}
		w.IDs = append(w.IDs, ex.IDs[k])
		w.Targets = append(w.Targets, NotScored)
		w.Start = append(w.Start, 0)
	}
	if w.room(p.opts.Sequence) == 0 {
		p.close(0)
	}
	return offset + n
}

// left reports whether place has more to do for ex at offset.
func (p *packer) left(ex *fim.Example, offset int) bool {
	if p.opts.CrossDocuments {
		return offset < len(ex.IDs)
	}
	return offset < len(ex.IDs)-1
}

func (p *packer) close(i int) {
	p.full = append(p.full, p.open[i])
	p.open = append(p.open[:i], p.open[i+1:]...)
}

// flush closes all windows, oldest first.
func (p *packer) flush() {
	for len(p.open) > 0 {
		p.close(0)
	}
}

// next hands out the window that was closed first, or false.
func (p *packer) next(stats *Stats) (Window, bool) {
	if len(p.full) == 0 {
		return Window{}, false
	}
	f := p.full[0]
	p.full = p.full[1:]
	n := p.opts.Sequence
	w := Window{IDs: make([]int32, n), Targets: make([]int32, n), Positions: make([]int32, n), DocStart: make([]int32, n)}
	used := copy(w.IDs, f.IDs)
	copy(w.Targets, f.Targets)
	copy(w.DocStart, f.Start)
	for i := used; i < n; i++ {
		// Padding is a document of its own.
		w.IDs[i], w.Targets[i], w.DocStart[i] = p.pad, NotScored, int32(used)
		if p.opts.CrossDocuments {
			w.DocStart[i] = 0
		}
	}
	for i, s := range w.DocStart {
		w.Positions[i] = int32(i) - s
	}
	stats.Windows++
	stats.Padding += int64(n - used)
	stats.Scored += int64(w.Scored())
	return w, true
}
