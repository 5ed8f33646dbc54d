package infer

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"autodev/compute"
	"autodev/compute/cuda"
	"autodev/compute/devices"
	"autodev/model"
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
	// uploadBytes is the pinned memory that weights go through, in two halves: one is copied while the host fills the other.
	uploadBytes = 16 << 20
)

// card runs a model's program on a CUDA device. All memory is one allocation, whose parts are known before it is made: weights, registers,
// and pages of PageTokens tokens' keys and values, which sessions take and give back. Matrices, activations, keys and values are
// in one type (bf16, float16 or float32); sums and logits are float32. Matrices may be of codes instead, as they are on the processor: passes of few tokens
// multiply with them as they are, longer ones widen them first, a part at a time. Unlike the processor's, activations are not rounded to codes.
//
// A pass is one hand-over to the goroutine that owns the device. What is launched for a number of tokens is prepared once; for the few
// tokens of decoding it is captured as a graph. What changes from pass to pass is read from device memory.
//
// The same passes give the same bits. A token's bits are the same in passes of up to cuda.FewRows tokens, so guessed tokens change no
// choice; they differ, by rounding, from those of longer ones, since kernels differ: so a prompt that was read in other parts may,
// between two choices that are as good as equal, end in another token.
type card struct {
	layout
	config    model.Config
	specs     map[string]model.ParamSpec
	short     Weights // BFloat16, or Float16 where it does not multiply in that
	device    *devices.Device
	d         *cuda.Device
	program   *program
	rows      int // of the head's weight
	vocab     int
	context   int
	chunk     int
	bytes     int64 // of the matrices
	pageBytes int64 // of all layers
	pages     int

	// What follows belongs to the device's goroutine, once the card is made.
	at     places
	passes map[passKind]*pass
	inputs []byte // pinned: what at.inputs gets

	mu     sync.Mutex
	free   []int32 // pages
	pinned [][]byte
	idle   [][]byte // of pinned: for logits
}

// places are the addresses of what is on the device.
type places struct {
	base      cuda.Ptr
	matrices  map[*matrix]cuda.Weight
	gain      []cuda.Ptr // by step; also an embedding's positions
	bias      []cuda.Ptr // by step
	registers []cuda.Ptr
	cache     []cuda.Ptr // by layer
	inputs    cuda.Ptr   // pass.fill says how
	targets   cuda.Ptr   // [chunk]
	zeros     cuda.Ptr   // [chunk]
	work      cuda.Ptr   // of attention
	wide      cuda.Ptr   // matrices of codes, widened
	wideBytes int64
	logits    cuda.Ptr
	nll       cuda.Ptr // [chunk]
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

// newCard brings a traced model to the card that spec says. data returns a matrix's elements.
func newCard(ctx context.Context, spec devices.Spec, m *Model, data func(w *matrix) ([]float32, error)) (_ *card, err error) {
	c := &card{config: m.config, specs: map[string]model.ParamSpec{}, short: BFloat16, program: m.program, rows: m.rows, vocab: m.vocab, context: m.Context(), chunk: min(cardChunk, m.Context()), passes: map[passKind]*pass{}}
	for _, s := range m.config.Params() {
		c.specs[s.Name] = s
	}
	if devices.Short(spec) != compute.BF16 {
		c.short = Float16
	}
	c.layout = layout{m.weights, storeOf(m.kept)}
	if err := c.check(c.layout); err != nil {
		return nil, err
	}
	if c.device, err = devices.Open(spec, devices.Options{Fits: c.fits}); err != nil {
		return nil, err
	}
	var ok bool
	if c.d, ok = c.device.Device.(*cuda.Device); !ok {
		return nil, errors.Join(fmt.Errorf("device %v: models run on the CPU and on CUDA only", spec), c.device.Close())
	}
	if err = c.allocate(); err == nil {
		err = c.upload(ctx, m.pool, data)
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
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
	n := int64(c.chunk)
	for _, width := range p.widths {
		at.registers = append(at.registers, a.take(size*n*int64(width)))
	}
	at.inputs = a.take(4 * int64(c.inputWords()))
	at.targets, at.zeros, at.nll = a.take(4*n), a.take(4*n), a.take(4*n)
	work := int64(0)
	for i := range p.steps {
		if st := &p.steps[i]; st.op == opAttention {
			work = max(work, c.paged(st, min(attendRows, c.chunk)).WorkBytes())
		}
	}
	at.work, at.wide = a.take(work), a.take(at.wideBytes)
	at.logits = a.take(max(4*headTokens*int64(c.rows), cuda.NLLWork(min(scoreRows, c.chunk), c.vocab)))
	return at, a.used
}

// paged is a step's attention of at most n new tokens.
func (c *card) paged(st *step, n int) cuda.Paged {
	return cuda.Paged{Attr: attributes(st.spec), New: n, Pages: pagesFor(c.context)}
}

func pagesFor(tokens int) int { return (tokens + cuda.PageTokens - 1) / cuda.PageTokens }

// layerPages returns the bytes of a page of each layer.
func (c *card) layerPages(s cuda.Store) (bytes []int64, all int64) {
	bytes = make([]int64, c.program.layers)
	for i := range c.program.steps {
		if st := &c.program.steps[i]; st.op == opAttention {
			bytes[st.layer] = c.paged(st, 1).PageBytes(s)
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
		if c.inputs, err = c.pin(q, 4*int64(c.inputWords())); err != nil {
			return err
		}
		return q.Fill(c.at.zeros, 0, 4*int64(c.chunk))
	})
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

// close gives the device back. A nil card has none, nor has one that was closed.
func (c *card) close() error {
	if c == nil || c.device == nil {
		return nil
	}
	err := c.d.Do(func(q *cuda.Queue) error {
		var errs []error
		for _, p := range c.passes {
			if p.graph != nil {
				errs = append(errs, p.graph.Free(q))
			}
		}
		for _, b := range c.pinned {
			errs = append(errs, q.FreePinned(b))
		}
		if c.at.base != 0 {
			errs = append(errs, q.Free(c.at.base))
		}
		return errors.Join(errs...)
	})
	if lost := (*cuda.LostError)(nil); errors.As(err, &lost) {
		err = nil // the driver has freed everything
	}
	err = errors.Join(err, c.device.Close())
	c.device = nil
	return err
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

// passKind is what the launches of a pass depend on.
type passKind struct {
	rows  int  // tokens, with those that only fill it up
	fresh bool // nothing is before the tokens
}

// pass is what is launched for a number of tokens.
type pass struct {
	passKind
	parts int           // of the attention to cached tokens
	body  cuda.Sequence // up to the head, with it for few tokens
	graph *cuda.Graph
	ran   bool
}

// passRows returns how many rows a pass of n tokens has: some more than n, so that not every number of tokens is prepared on its own.
func passRows(n, most int) int {
	if n <= cuda.FewRows {
		return n
	}
	step := 16
	for 8*step < n {
		step *= 2
	}
	return min((n+step-1)/step*step, most)
}

func partsOf(rows int) int { return (rows + attendRows - 1) / attendRows }

// Words of at.inputs: the sequence's pages; of all new tokens and then of each part of them where they begin and end and how long the
// sequence is with them (and one word of nothing); the tokens; their positions.
const partWords = 4

func (c *card) inputWords() int {
	return pagesFor(c.context) + partWords*(1+partsOf(c.chunk)) + 2*c.chunk
}

func (c *card) tokensAt(p *pass) int { return pagesFor(c.context) + partWords*(1+p.parts) }

// fill writes a pass's inputs and returns them.
func (c *card) fill(p *pass, ids []int32, at int, pages []int32) []byte {
	first := c.tokensAt(p)
	in := words(c.inputs)[:first+2*p.rows]
	clear(in)
	copy(in, pages)
	for i := range 1 + p.parts {
		begin, end := 0, len(ids)
		if i > 0 {
			begin, end = min((i-1)*attendRows, len(ids)), min(i*attendRows, len(ids))
		}
		part := in[pagesFor(c.context)+partWords*i:]
		part[1], part[2] = int32(end-begin), int32(at+end)
	}
	copy(in[first:], ids)
	positions := in[first+p.rows:]
	for i := range ids {
		positions[i] = int32(at + i)
	}
	return c.inputs[:4*len(in)]
}

// pass returns what is launched for n tokens.
func (c *card) pass(q *cuda.Queue, n int, fresh bool) (*pass, error) {
	kind := passKind{passRows(n, c.chunk), fresh && n > cuda.FewRows}
	if p := c.passes[kind]; p != nil {
		return p, nil
	}
	p := &pass{passKind: kind, parts: partsOf(kind.rows)}
	if kind.fresh {
		p.parts = 0
	}
	for i := range c.program.steps {
		ops, err := c.prepare(q, p, i)
		if err != nil {
			return nil, err
		}
		p.body = append(p.body, ops...)
	}
	c.passes[kind] = p
	return p, nil
}

// prepare returns a step's launches.
func (c *card) prepare(q *cuda.Queue, p *pass, i int) (cuda.Sequence, error) {
	k, n, st := c.operations(q), p.rows, &c.program.steps[i]
	register := func(r int) cuda.Ptr {
		if r < 0 {
			return 0
		}
		return c.at.registers[r]
	}
	x, y, out := register(st.x), register(st.y), register(st.out)
	word := func(i int) cuda.Ptr { return c.at.inputs + cuda.Ptr(4*i) }
	switch st.op {
	case opEmbed:
		w, first := st.weight, c.tokensAt(p)
		return k.Embed(out, c.at.matrices[w], c.at.gain[i], word(first), word(first+n), n, w.out, len(st.positions)/w.in, w.in)
	case opLayerNorm:
		return k.LayerNorm(out, x, c.at.gain[i], c.at.bias[i], n, len(st.gain), st.epsilon)
	case opLinear:
		return k.Linear(cuda.Product{Y: out, X: x, W: c.at.matrices[st.weight], Bias: c.at.bias[i], Base: y, N: n, In: st.weight.in, Out: st.weight.out, Activate: st.fused, Act: st.act})
	case opAttention:
		return c.attention(k, p, st, out, x)
	case opActivate:
		return k.Activation(out, x, n*c.program.widths[st.x], st.act)
	case opAdd:
		return k.Add(out, x, y, n*c.program.widths[st.x])
	case opHead:
		if n > cuda.FewRows {
			return nil, nil
		}
		return k.Logits(c.at.logits, x, c.at.matrices[st.weight], n, st.weight.in, st.weight.out)
	}
	return nil, fmt.Errorf("step %d of the model has no kernel on cards", i)
}

// attention puts the new tokens' keys and values into their pages. Tokens with nothing before them attend to one another directly;
// others to what is in the pages, some at a time.
func (c *card) attention(k cuda.Inference, p *pass, st *step, y, qkv cuda.Ptr) (cuda.Sequence, error) {
	operands := func(part int) cuda.PagedOperands {
		first := c.at.inputs + cuda.Ptr(4*(pagesFor(c.context)+partWords*part))
		return cuda.PagedOperands{Cache: c.at.cache[st.layer], Table: c.at.inputs, First: first, Length: first + 8, Work: c.at.work}
	}
	seq, err := k.Append(qkv, c.paged(st, p.rows), operands(0))
	if err != nil {
		return nil, err
	}
	if p.fresh {
		ops, err := k.Attention(y, qkv, c.at.zeros, p.rows, attributes(st.spec))
		return append(seq, ops...), err
	}
	a := attributes(st.spec)
	for part := range p.parts {
		row, size := part*attendRows, c.store.Size()
		ops, err := k.Attend(y+cuda.Ptr(row*a.Heads*a.HeadDim*size), qkv+cuda.Ptr(row*(a.Heads+2*a.KVHeads)*a.HeadDim*size), c.paged(st, min(attendRows, p.rows-row)), operands(1+part))
		if err != nil {
			return nil, err
		}
		seq = append(seq, ops...)
	}
	return seq, nil
}

// enqueue gives a pass to the device: as a graph when it is of few tokens and has run before, so that the libraries have loaded what
// they need, unless graphs are not wanted.
func (p *pass) enqueue(q *cuda.Queue) (err error) {
	if p.rows > cuda.FewRows || !p.ran {
		p.ran = true
		return p.body.Enqueue(q)
	}
	if q.CallByCall() {
		for _, op := range p.body {
			if err := errors.Join(op.Enqueue(q), q.Sync()); err != nil {
				return err
			}
		}
		return nil
	}
	if p.graph == nil {
		if p.graph, err = q.Capture(func() error { return p.body.Enqueue(q) }); err != nil {
			return err
		}
	}
	return p.graph.Enqueue(q)
}

// run gives a pass over ids to the device.
func (c *card) run(q *cuda.Queue, ids []int32, at int, pages []int32) (*pass, error) {
	p, err := c.pass(q, len(ids), at == 0)
	if err != nil {
		return nil, err
	}
	if err := cuda.Write(q, c.at.inputs, c.fill(p, ids, at, pages)); err != nil {
		return nil, err
	}
	return p, p.enqueue(q)
}

// hidden is the address of a row of what the head reads.
func (c *card) hidden(row int) cuda.Ptr {
	st := &c.program.steps[len(c.program.steps)-1]
	return c.at.registers[st.x] + cuda.Ptr(row*st.weight.in*c.store.Size())
}

// cardSequence is a sequence on a card.
type cardSequence struct {
	c      *card
	m      *Model
	held   []*block
	pages  []int32 // of held
	logits []byte  // pinned, between forward and park
}

func (c *card) sequence(m *Model) sequence { return &cardSequence{c: c, m: m} }

func (s *cardSequence) capacity() int { return len(s.pages) * cuda.PageTokens }

func (s *cardSequence) blocks() []*block { return s.held }

func (s *cardSequence) share(b *block) { s.add(b.hold()) }

func (s *cardSequence) add(b *block) {
	s.held, s.pages = append(s.held, b), append(s.pages, b.page)
}

func (s *cardSequence) replace(i int, b *block) {
	s.held[i].drop()
	s.held[i], s.pages[i] = b.hold(), b.page
}

func (s *cardSequence) reserve(n int) error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	more := pagesFor(n) - len(s.pages)
	if more > len(c.free) {
		return fmt.Errorf("%s: keys and values of %d tokens more: %d pages of %d tokens are free, expected %d: fewer sequences at a time fit", c.d.Name(), n-s.capacity(), len(c.free), cuda.PageTokens, more)
	}
	if more > 0 {
		rest := len(c.free) - more
		for _, page := range c.free[rest:] {
			b := &block{home: c, page: page}
			s.add(b.hold())
		}
		c.free = c.free[:rest]
	}
	return nil
}

func (c *card) takeBack(b *block) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.free = append(c.free, b.page)
}

func (s *cardSequence) free() {
	s.park()
	for _, b := range s.held {
		b.drop()
	}
	s.held, s.pages = nil, nil
}

// park gives the memory for logits back.
func (s *cardSequence) park() {
	if s.logits == nil {
		return
	}
	s.c.mu.Lock()
	s.c.idle = append(s.c.idle, s.logits)
	s.c.mu.Unlock()
	s.logits = nil
	s.m.end()
}

// prepare takes memory for logits.
func (s *cardSequence) prepare() error {
	if s.logits != nil {
		return nil
	}
	if err := s.m.begin(); err != nil {
		return err
	}
	c := s.c
	c.mu.Lock()
	if n := len(c.idle); n > 0 {
		s.logits, c.idle = c.idle[n-1], c.idle[:n-1]
	}
	c.mu.Unlock()
	if s.logits != nil {
		return nil
	}
	err := c.d.Do(func(q *cuda.Queue) (err error) {
		s.logits, err = c.pin(q, 4*headTokens*int64(c.rows))
		return err
	})
	if err != nil {
		s.m.end()
	}
	return err
}

func (s *cardSequence) forward(ctx context.Context, ids []int32, at, from int) ([]float32, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if err := s.prepare(); err != nil {
		return nil, err
	}
	c, n := s.c, len(ids)-from
	logits := floats(s.logits)[:n*c.rows]
	err := c.d.Do(func(q *cuda.Queue) error {
		p, err := c.run(q, ids, at, s.pages)
		if err != nil {
			return err
		}
		at := c.at.logits
		switch {
		case n == 0:
		case p.rows > cuda.FewRows:
			w := c.program.head()
			head, err := c.operations(q).Logits(at, c.hidden(from), c.at.matrices[w], n, w.in, w.out)
			if err == nil {
				err = head.Enqueue(q)
			}
			if err != nil {
				return err
			}
		default:
			at += cuda.Ptr(4 * from * c.rows)
		}
		return errors.Join(cuda.Read(q, logits, at), q.Sync())
	})
	if err != nil {
		return nil, err
	}
	for i := range n {
		if err := c.overflow(logits[i*c.rows]); err != nil {
			return nil, err
		}
	}
	return logits, nil
}

// extend evaluates no more tokens at a time than have their logits returned: other sequences use the same registers.
func (s *cardSequence) extend(ctx context.Context, ids []int32, at, from int, visit func(first, n int, logits []float32) error) error {
	if from > 0 {
		if _, err := s.forward(ctx, ids[:from], at, from); err != nil {
			return err
		}
	}
	for ; from < len(ids); from += headTokens {
		n := min(headTokens, len(ids)-from)
		logits, err := s.forward(ctx, ids[from:from+n], at+from, 0)
		if err != nil {
			return err
		}
		if err := visit(from, n, logits); err != nil {
			return err
		}
	}
	return nil
}

func (s *cardSequence) score(ctx context.Context, ids []int32, at, from int, targets []int32, nll []float64) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := s.prepare(); err != nil {
		return err
	}
	c := s.c
	got := make([]float32, len(targets))
	err := c.d.Do(func(q *cuda.Queue) error {
		if _, err := c.run(q, ids, at, s.pages); err != nil {
			return err
		}
		if err := cuda.Write(q, c.at.targets, targets); err != nil {
			return err
		}
		w := c.program.head()
		for first := 0; first < len(targets); first += scoreRows {
			n := min(scoreRows, len(targets)-first)
			ops, err := c.operations(q).NLL(c.at.nll+cuda.Ptr(4*first), c.hidden(from+first), c.at.matrices[w], c.at.targets+cuda.Ptr(4*first), c.at.logits, n, w.in, c.vocab)
			if err == nil {
				err = ops.Enqueue(q)
			}
			if err != nil {
				return err
			}
		}
		return errors.Join(cuda.Read(q, got, c.at.nll), q.Sync())
	})
	if err != nil {
		return err
	}
	for i, v := range got {
		if err := c.overflow(v); err != nil {
			return err
		}
		nll[i] = float64(v)
	}
	return nil
}

// copyTokens copies the whole page; what is behind n in it is not used.
func (s *cardSequence) copyTokens(i int, from *block, _ int) error {
	c := s.c
	layers, _ := c.layerPages(c.store)
	return c.d.Do(func(q *cuda.Queue) error {
		for layer, size := range layers {
			page := func(i int32) cuda.Ptr { return c.at.cache[layer] + cuda.Ptr(int64(i)*size) }
			if err := q.Copy(page(s.pages[i]), page(from.page), size); err != nil {
				return err
			}
		}
		return q.Sync()
	})
}
