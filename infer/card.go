package infer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"unsafe"

	"autodev/compute/cuda"
	"autodev/compute/devices"
	"autodev/model"
	"autodev/model/dtype"
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
// in one type (bf16 or float32); sums and logits are float32.
//
// A pass is one hand-over to the goroutine that owns the device. What is launched for a number of tokens is prepared once; for the few
// tokens of decoding it is captured as a graph. What changes from pass to pass is read from device memory.
//
// The same passes give the same bits. A token's bits are the same in passes of up to cuda.FewRows tokens, so guessed tokens change no
// choice; they differ, by rounding, from those of longer ones, since kernels differ: so a prompt that was read in other parts may,
// between two choices that are as good as equal, end in another token.
type card struct {
	device    *devices.Device
	d         *cuda.Device
	program   *program
	rows      int // of the head's weight
	vocab     int
	context   int
	chunk     int
	store     cuda.Store
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
	matrices  map[*matrix]cuda.Ptr
	gain      []cuda.Ptr // by step; also an embedding's positions
	bias      []cuda.Ptr // by step
	registers []cuda.Ptr
	cache     []cuda.Ptr // by layer
	inputs    cuda.Ptr   // pass.fill says how
	targets   cuda.Ptr   // [chunk]
	zeros     cuda.Ptr   // [chunk]
	work      cuda.Ptr   // of attention
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

// storeOf returns the type that a card keeps a format of weights in.
func storeOf(w Weights) (cuda.Store, error) {
	switch w {
	case Float32:
		return cuda.F32, nil
	case BFloat16:
		return cuda.BF16, nil
	}
	return 0, &OptionError{"weights", fmt.Sprintf("found %s, expected float32 or bf16 on a CUDA device", w)}
}

// Settle fills in what o leaves open because it depends on the device, and reports what the device, which must be there, cannot do. Load
// and LoadPacked call it.
func (o Options) Settle() (Options, error) {
	if o.Device.Kind != devices.CUDA {
		return o, nil
	}
	short := devices.HasBF16(o.Device)
	switch {
	case o.Weights != "":
	case short:
		o.Weights = BFloat16
	default:
		o.Weights = Float32
	}
	if _, err := storeOf(o.Weights); err != nil {
		return o, err
	}
	if o.Weights == BFloat16 && !short {
		return o, &OptionError{"weights", "found bf16, expected float32: the card does not multiply in bfloat16"}
	}
	if c := o.Cache.For(o.Weights); c != CacheAuto.For(o.Weights) {
		return o, &OptionError{"kv_cache", fmt.Sprintf("found %s, expected auto or %s: on a CUDA device keys and values are kept like the weights", c, CacheAuto.For(o.Weights))}
	}
	return o, nil
}

// newCard brings a traced model to the card that spec says. data returns a matrix's elements.
func newCard(ctx context.Context, spec devices.Spec, m *Model, data func(w *matrix) ([]float32, error)) (_ *card, err error) {
	c := &card{program: m.program, rows: m.rows, vocab: m.vocab, context: m.Context(), chunk: min(cardChunk, m.Context()), passes: map[passKind]*pass{}}
	if c.store, err = storeOf(m.weights); err != nil {
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
		err = c.upload(ctx, data)
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// place finds the places of everything but the pages of keys and values, from base on, for a type of weights, and returns the bytes
// that they take.
func (c *card) place(base cuda.Ptr, s cuda.Store) (places, int64) {
	p, a, size := c.program, &arena{base: base}, int64(s.Size())
	at := places{base: base, matrices: map[*matrix]cuda.Ptr{}, gain: make([]cuda.Ptr, len(p.steps)), bias: make([]cuda.Ptr, len(p.steps))}
	for i := range p.steps {
		st := &p.steps[i]
		if w := st.weight; w != nil && at.matrices[w] == 0 {
			at.matrices[w] = a.take(size * int64(w.in) * int64(w.out))
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
	at.work = a.take(work)
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

// least returns the memory without which the model does not run with its weights in a type: it has pages for one sequence.
func (c *card) least(s cuda.Store) int64 {
	_, fixed := c.place(0, s)
	_, page := c.layerPages(s)
	return fixed + int64(pagesFor(c.context))*page
}

// fits says what would fit into free bytes.
func (c *card) fits(free int64) string {
	if need := c.least(cuda.BF16); c.store == cuda.F32 && need <= free {
		return "the model fits with bf16 weights"
	} else if need <= free {
		return "" // what is free is in pieces
	}
	return "the model fits in no format of weights that cards know: expected --device cpu"
}

// allocate takes the device memory.
func (c *card) allocate() error {
	_, fixed := c.place(0, c.store)
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
		c.at, used = c.place(base, c.store)
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

// upload brings the weights to the device.
func (c *card) upload(ctx context.Context, data func(w *matrix) ([]float32, error)) (err error) {
	var staging []byte
	if err := c.d.Do(func(q *cuda.Queue) (err error) { staging, err = q.Pinned(uploadBytes); return err }); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, c.d.Do(func(q *cuda.Queue) error { return q.FreePinned(staging) }))
	}()
	half := len(staging) / 2
	put := func(to cuda.Ptr, x []float32) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		return c.d.Do(func(q *cuda.Queue) error {
			for i := 0; len(x) > 0; i++ {
				if i > 0 && i%2 == 0 {
					if err := q.Sync(); err != nil { // both halves are free again
						return err
					}
				}
				piece := staging[i%2*half:][:half]
				n := min(len(x), half/c.store.Size())
				if c.store == cuda.F32 {
					copy(floats(piece), x[:n])
				} else {
					short := unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(piece))), n)
					for j, v := range x[:n] {
						short[j] = dtype.ToBF16(v)
					}
				}
				if err := cuda.Write(q, to, piece[:n*c.store.Size()]); err != nil {
					return err
				}
				to, x = to+cuda.Ptr(n*c.store.Size()), x[n:]
			}
			return q.Sync()
		})
	}
	done := map[*matrix]bool{}
	for i := range c.program.steps {
		st := &c.program.steps[i]
		if w := st.weight; w != nil && !done[w] {
			done[w] = true
			x, err := data(w)
			if err != nil {
				return err
			}
			if len(x) != w.in*w.out {
				return fmt.Errorf("tensor %s: %d elements, expected %d", w.name, len(x), w.in*w.out)
			}
			if err := put(c.at.matrices[w], x); err != nil {
				return err
			}
			c.bytes += int64(c.store.Size()) * int64(len(x))
		}
		if err := errors.Join(put(c.at.gain[i], slices.Concat(st.gain, st.positions)), put(c.at.bias[i], st.bias)); err != nil {
			return err
		}
	}
	return nil
}

// floats is pinned memory as float32, in the host's order, which is the device's.
func floats(b []byte) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/4)
}

func words(b []byte) []int32 {
	return unsafe.Slice((*int32)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/4)
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
	k, n, st := q.Inference(c.store), p.rows, &c.program.steps[i]
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
			head, err := q.Inference(c.store).Logits(at, c.hidden(from), c.at.matrices[w], n, w.in, w.out)
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
			ops, err := q.Inference(c.store).NLL(c.at.nll+cuda.Ptr(4*first), c.hidden(from+first), c.at.matrices[w], c.at.targets+cuda.Ptr(4*first), c.at.logits, n, w.in, c.vocab)
			if err == nil {
				err = ops.Enqueue(q)
			}
			if err != nil {
				return err
			}
		}
		return errors.Join(cuda.Read(q, got, c.at.nll), q.Sync())
	})
	for i, v := range got {
		nll[i] = float64(v)
	}
	return err
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

// dimensions is a packer that reads no matrices.
type dimensions struct{ *packer }

func (p dimensions) matrix(name string) (*matrix, error) {
	if m := p.matrices[name]; m != nil {
		return m, nil
	}
	shape := p.specs[name].Shape
	if len(shape) != 2 {
		return nil, fmt.Errorf("tensor %s: shape %v, expected two dimensions", name, shape)
	}
	m := &matrix{name: name, out: shape[0], in: shape[1]}
	p.matrices[name] = m
	return m, nil
}

// elements returns the elements of matrices as a source has them, valid until the next.
func elements(ctx context.Context, src model.Source, c model.Config) func(*matrix) ([]float32, error) {
	reader := newPacker(ctx, nil, c, src, Float32)
	return func(w *matrix) ([]float32, error) {
		t, err := reader.read(w.name, false)
		if err != nil {
			return nil, err
		}
		return t.Data, nil
	}
}

// unpacked returns the elements of matrices that are in memory, valid until the next.
func unpacked(ctx context.Context) func(*matrix) ([]float32, error) {
	var buffer []float32
	return func(w *matrix) ([]float32, error) {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		if n := w.in * w.out; n > len(buffer) {
			buffer = make([]float32, n)
		}
		x := buffer[:w.in*w.out]
		for r := range w.out {
			w.row(x[r*w.in:][:w.in], r)
		}
		return x, nil
	}
}
