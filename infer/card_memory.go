package infer

import (
	"errors"
	"fmt"

	"autodev/compute/cuda"
)

const (
	// cardChunk is the longest part of a prompt that a card evaluates at once: enough for its products to be bound by arithmetic.
	cardChunk = 2048
	// attendRows is how many new tokens attend to cached ones at a time, which bounds the scratch of that.
	attendRows = 128
	// scoreRows is how many tokens' logits exist at a time while tokens are scored.
	scoreRows = 256
	// cardContexts is for how many of the longest sequences there are pages of keys and values, if there is memory.
	cardContexts = 16
)

// places are the addresses of what is on the device.
type places struct {
	base       cuda.Ptr
	matrices   map[*matrix]cuda.Weight
	gain       []cuda.Ptr // by step; also an embedding's positions
	bias       []cuda.Ptr // by step
	masked     cuda.Ptr   // [vocab] bytes: 1 for tokens that are never generated
	registers  []cuda.Ptr // [cuda.FewRows+chunk, width]: the rows of short spans, then those of long ones
	cache      []cuda.Ptr // by layer
	inputs     [2]cuda.Ptr
	work       cuda.Ptr // of attention
	wide       cuda.Ptr // matrices of codes, widened
	wideBytes  int64
	counts     cuda.Ptr // of attention: zeros
	countBytes int64
	gathered   cuda.Ptr // [cuda.FewRows, width] what the head reads of long spans
	logits     cuda.Ptr // [2·cuda.FewRows, rows]: of short spans, then of long ones
	choices    cuda.Ptr // [2·cuda.FewRows], of the same
	draws      cuda.Ptr // [2·cuda.FewRows, cuda.DrawWords], of the same
	targets    cuda.Ptr // [chunk]
	nll        cuda.Ptr // [chunk]
}

// arena hands out parts of an allocation that need not exist yet.
type arena struct {
	base cuda.Ptr
	used int64
}

func (a *arena) take(bytes int64) cuda.Ptr {
	p := a.base + cuda.Ptr(a.used)
	a.used += (bytes + 255) &^ 255
	return p
}

// place finds the places of everything but the pages of keys and values, from base on, and returns the bytes that they take.
func (c *card) place(base cuda.Ptr, l layout) (places, int64) {
	p, a, size := c.program, &arena{base: base}, int64(l.store.Size())
	at := places{base: base, matrices: map[*matrix]cuda.Weight{}, gain: make([]cuda.Ptr, len(p.steps)), bias: make([]cuda.Ptr, len(p.steps))}
	for i := range p.steps {
		st := &p.steps[i]
		if w := st.weight; w != nil {
			if _, ok := at.matrices[w]; !ok {
				at.matrices[w] = c.placeMatrix(a, l, w)
			}
			if at.matrices[w].Bits != 0 && st.op != opEmbed {
				at.wideBytes = max(at.wideBytes, l.store.WideBytes(w.in, w.out))
			}
		}
		if n := len(st.gain) + len(st.positions); n > 0 {
			at.gain[i] = a.take(size * int64(n))
		}
		if len(st.bias) > 0 {
			at.bias[i] = a.take(size * int64(len(st.bias)))
		}
	}
	at.masked = a.take(int64(c.vocab))
	for _, width := range p.widths {
		at.registers = append(at.registers, a.take(size*int64(cuda.FewRows+c.chunk)*int64(width)))
	}
	for i, in := range c.mostInputs() {
		at.inputs[i] = a.take(4 * int64(in.words))
	}
	work := int64(0)
	for i := range p.steps {
		if st := &p.steps[i]; st.op == opAttention {
			for _, in := range c.mostInputs() {
				at.countBytes = max(at.countBytes, c.paged(st, 1, in.tiles).CountBytes())
			}
			work = max(work, c.paged(st, max(cuda.FewRows, min(attendRows, c.chunk)), 0).WorkBytes())
		}
	}
	at.work, at.counts, at.wide = a.take(work), a.take(at.countBytes), a.take(at.wideBytes)
	at.gathered = a.take(size * cuda.FewRows * int64(p.head().in))
	at.logits = a.take(max(4*2*cuda.FewRows*int64(c.rows), cuda.NLLWork(min(scoreRows, c.chunk), c.vocab)))
	at.choices, at.draws = a.take(4*2*cuda.FewRows), a.take(4*2*cuda.FewRows*cuda.DrawWords)
	at.targets, at.nll = a.take(4*int64(c.chunk)), a.take(4*int64(c.chunk))
	return at, a.used
}

// paged is a step's attention of n rows in that many tiles.
func (c *card) paged(st *step, n, tiles int) cuda.Paged {
	return cuda.Paged{Attr: attributes(st.spec), Rows: n, Tiles: tiles, Pages: pagesFor(c.context)}
}

func pagesFor(tokens int) int { return (tokens + cuda.PageTokens - 1) / cuda.PageTokens }

// layerPages returns the bytes of a page of each layer.
func (c *card) layerPages(s cuda.Store) (bytes []int64, all int64) {
	bytes = make([]int64, c.program.layers)
	for i := range c.program.steps {
		if st := &c.program.steps[i]; st.op == opAttention {
			bytes[st.layer] = c.paged(st, 1, 1).PageBytes(s)
		}
	}
	for _, n := range bytes {
		all += n
	}
	return bytes, all
}

// least returns the memory without which the model does not run in a layout: it has pages for one sequence.
func (c *card) least(l layout) int64 {
	_, fixed := c.place(0, l)
	_, page := c.layerPages(l.store)
	return fixed + int64(pagesFor(c.context))*page
}

// allocate takes the device memory.
func (c *card) allocate() error {
	_, fixed := c.place(0, c.layout)
	layers, page := c.layerPages(c.store)
	c.pageBytes = page
	return c.d.Do(func(q *cuda.Queue) error {
		free, _, err := q.MemInfo()
		if err != nil {
			return err
		}
		// A tenth of what is left stays free for others.
		one := pagesFor(c.context)
		c.pages = one
		if page > 0 {
			c.pages = int(max(int64(one), min(int64(cardContexts*one), (free-fixed)*9/10/page)))
		}
		total := fixed + 256*int64(len(layers)) + int64(c.pages)*page
		base, err := q.Alloc(total)
		if err != nil {
			return fmt.Errorf("the model takes %d MiB with keys and values for %d tokens: %w", total>>20, c.pages*cuda.PageTokens, err)
		}
		var used int64
		c.at, used = c.place(base, c.layout)
		a := &arena{base: base, used: used}
		for _, n := range layers {
			c.at.cache = append(c.at.cache, a.take(n*int64(c.pages)))
		}
		for i := range c.pages {
			c.free = append(c.free, int32(c.pages-1-i))
		}
		for i, in := range c.mostInputs() {
			var failed error
			c.inputs[i], failed = c.pin(q, 4*int64(in.words))
			err = errors.Join(err, failed)
		}
		var failed [2]error
		c.chosen, failed[0] = c.pin(q, 4*2*cuda.FewRows)
		c.draws, failed[1] = c.pin(q, 4*2*cuda.FewRows*cuda.DrawWords)
		if c.at.countBytes > 0 {
			err = errors.Join(err, q.Fill(c.at.counts, 0, c.at.countBytes))
		}
		return errors.Join(err, failed[0], failed[1], c.mask(q))
	})
}

// mask tells the device which tokens are never generated.
func (c *card) mask(q *cuda.Queue) error {
	masked := make([]uint8, c.vocab)
	for _, id := range c.masked {
		masked[id] = 1
	}
	return cuda.Write(q, c.at.masked, masked)
}

// pin allocates pinned memory, which close frees.
func (c *card) pin(q *cuda.Queue, bytes int64) ([]byte, error) {
	b, err := q.Pinned(bytes)
	if err == nil {
		c.mu.Lock()
		c.pinned = append(c.pinned, b)
		c.mu.Unlock()
	}
	return b, err
}

// keep returns how many of at most limit bytes of keys and values may be kept beside the calls under way, each of which may need a whole
// context, and one more while it is copied from. Negative limits mean what there is.
func (c *card) keep(limit int64, calls int) int64 {
	contexts := c.pages / pagesFor(c.context)
	if contexts <= calls {
		return 0
	}
	return min(limit, int64(c.pages-calls*pagesFor(c.context))*c.pageBytes)
}

// cardLogits is pinned memory for the logits of the passes of a session or an engine. It is a use of the model from the first rows to free.
type cardLogits struct {
	m      *Model
	memory []byte
	used   bool
}

// rows returns memory for the logits [n, Model.rows], valid until the next call.
func (l *cardLogits) rows(n int) ([]float32, error) {
	if !l.used {
		if err := l.m.begin(); err != nil {
			return nil, err
		}
		l.used = true
	}
	c := l.m.card
	if need := 4 * n * c.rows; need > len(l.memory) {
		l.giveBack()
		var err error
		if l.memory, err = c.memoryFor(need); err != nil {
			return nil, err
		}
	}
	return floats(l.memory)[:n*c.rows], nil
}

// memoryFor returns pinned memory of at least so many bytes, which goes back to idle.
func (c *card) memoryFor(bytes int) (b []byte, err error) {
	c.mu.Lock()
	for i, idle := range c.idle {
		if len(idle) >= bytes {
			c.idle[i] = c.idle[len(c.idle)-1]
			c.idle = c.idle[:len(c.idle)-1]
			c.mu.Unlock()
			return idle, nil
		}
	}
	c.mu.Unlock()
	// Of few sizes, so that what one gives back is of use to others.
	size := 4 * headTokens * c.rows
	for size < bytes {
		size *= 2
	}
	err = c.d.Do(func(q *cuda.Queue) (err error) {
		b, err = c.pin(q, int64(size))
		return err
	})
	return b, err
}

func (l *cardLogits) giveBack() {
	if l.memory == nil {
		return
	}
	c := l.m.card
	c.mu.Lock()
	c.idle = append(c.idle, l.memory)
	c.mu.Unlock()
	l.memory = nil
}

// free gives the memory back.
func (l *cardLogits) free() {
	l.giveBack()
	if l.used {
		l.used = false
		l.m.end()
	}
}
