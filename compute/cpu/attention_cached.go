package cpu

import (
	"fmt"
	"sync"

	"autodev/compute"
	"autodev/compute/cpu/attend"
)

// Cached is the attention of consecutive new tokens of one sequence: QKV and Y are rows of the packed layout and the output of
// compute.Attention for the tokens First, First+1, …; all earlier tokens are in Cache, which has room for the new ones. The first
// Skip of the new tokens have no output: Y has as many rows fewer than QKV.
type Cached struct {
	Y, QKV []float32
	Cache  *Cache
	First  int
	Skip   int
}

func (c *Cached) tokens(p packed) int { return len(c.QKV) / p.width }

// outputs is the number of tokens with an output.
func (c *Cached) outputs(p packed) int { return c.tokens(p) - c.Skip }

// partialFloats is the scratch for the shares of all blocks of keys of one block of queries.
func partialFloats(length int, l layout, rows int) int {
	blocks := (length + keyBlock - 1) / keyBlock
	return blocks * rows * (l.columns() + 2)
}

// AttendCachedWork returns the scratch of AttendCached for sequences that grow to at most length tokens, in any format.
func (k Kernels) AttendCachedWork(length int, a compute.Attr) int {
	p, most := packedLayout(a), 0
	for f := range cacheFormatEnd {
		l, rows := layout{f, a.HeadDim}, tokensPerBlock(p.group)*p.group
		most = max(most, k.Threads()*scratchFloats(l, rows)+a.KVHeads*partialFloats(length, l, rows))
	}
	return most
}

// AttendCached puts the new tokens' keys and values into the caches and sets Y to causal attention over everything cached. a
// gives heads and scale; Seq, Drop and BF16 are not read. Length is the bound given to AttendCachedWork.
//
// A token's bits depend only on it and its predecessors, not on how many tokens or sequences a call holds: with CacheF32 they
// are those of Attention over the whole sequence with document start 0 and no dropout, with CacheBF16 the same with Attr.BF16.
// A sequence longer than length or than its cache is an error, reported before anything is written.
func (k Kernels) AttendCached(sequences []Cached, length int, a compute.Attr, work []float32) error {
	p := packedLayout(a)
	most, outputs := 0, 0
	for i := range sequences {
		c := &sequences[i]
		if c.Cache.heads != a.KVHeads || c.Cache.layout.dim != a.HeadDim {
			return fmt.Errorf("sequence %d: a cache of %d key heads of %d, expected %d of %d", i, c.Cache.heads, c.Cache.layout.dim, a.KVHeads, a.HeadDim)
		}
		m := c.tokens(p)
		if capacity := c.Cache.Capacity(); c.First < 0 || c.First+m > capacity || c.First+m > length {
			return fmt.Errorf("sequence %d: tokens %d to %d, expected them within the cache's %d and the agreed %d", i, c.First, c.First+m-1, capacity, length)
		}
		if len(c.QKV) != m*p.width || c.Skip < 0 || c.Skip > m || len(c.Y) != (m-c.Skip)*a.Heads*a.HeadDim {
			return fmt.Errorf("sequence %d: %d elements of queries, keys and values and %d of output, expected a multiple of %d and as many times %d, less %d", i, len(c.QKV), len(c.Y), p.width, a.Heads*a.HeadDim, c.Skip)
		}
		most, outputs = max(most, m), max(outputs, m-c.Skip)
	}
	if most == 0 {
		return nil
	}
	c := cachedCalls.Get().(*cachedCall)
	c.packed, c.sequences, c.most, c.outputs, c.work, c.each = p, sequences, most, outputs, work, 0
	c.tokens = tokensPerBlock(p.group)
	c.rows = c.tokens * p.group
	for i := range sequences {
		c.each = max(c.each, scratchFloats(sequences[i].Cache.layout, c.rows))
	}
	if n := k.Threads(); len(c.workers) < n {
		c.workers = make([]cachedWorker, n)
	}
	c.put(k)
	c.blocks = (outputs + c.tokens - 1) / c.tokens
	if len(sequences) == 1 && c.blocks == 1 && a.KVHeads < 4*k.Threads() {
		c.attendByKeys(k)
	} else {
		k.pool.Do(len(sequences)*a.KVHeads*c.blocks, (*attendQueries)(c))
	}
	c.sequences, c.work = nil, nil
	for i := range c.workers {
		c.workers[i] = cachedWorker{}
	}
	cachedCalls.Put(c)
	return nil
}

// cachedCall is one call of AttendCached, whose steps are par.Tasks.
type cachedCall struct {
	packed
	sequences []Cached
	most      int // new tokens of a sequence
	outputs   int // of them that have an output, at most
	tokens    int // of a block of queries
	rows      int // of a block of queries
	blocks    int // of queries of a sequence
	work      []float32
	each      int // of it for one worker
	workers   []cachedWorker
	shares    []float32 // of attendByKeys
}

// cachedWorker is what one worker is at.
type cachedWorker struct {
	q queries
	scratch
}

// cachedCalls keeps the memory of those that are over: a token has one for each layer.
var cachedCalls = sync.Pool{New: func() any { return new(cachedCall) }}

// begin makes a worker ready for the tokens t0..t1 of those of a sequence that have an output, in the heads of key head g.
func (c *cachedCall) begin(worker int, s *Cached, g, t0, t1 int) *cachedWorker {
	w := &c.workers[worker]
	base := s.First + s.Skip
	w.q = queries{
		q: s.QKV[s.Skip*c.width:], qStride: c.width, y: s.Y, yStride: c.a.Heads * c.a.HeadDim, base: base, t0: base + t0, t1: base + t1,
		h0: g * c.group, h1: (g + 1) * c.group,
	}
	w.reset(c.work[worker*c.each:][:c.each], s.Cache.layout, c.rows, float32(c.a.Scale))
	return w
}

// attendQueries is the attention of blocks of queries. Late blocks see the most keys: they go first.
type attendQueries cachedCall

func (t *attendQueries) Item(worker, i int) {
	c := (*cachedCall)(t)
	heads := c.a.KVHeads
	g, s, block := i%heads, &c.sequences[i/heads%len(c.sequences)], c.blocks-1-i/heads/len(c.sequences)
	t0, t1 := block*c.tokens, min(s.outputs(c.packed), (block+1)*c.tokens)
	if t0 >= t1 {
		return
	}
	w := c.begin(worker, s, g, t0, t1)
	w.load(&w.q)
	for j := 0; j*keyBlock < w.q.t1; j++ {
		w.block(&w.q, s.Cache.block(j, g), j)
		w.merge(w.scratch.rows, w.largest, w.sum, w.part, w.ldo)
	}
	w.store(&w.q)
}

// put writes the new tokens' keys and values, a key head and a panel's worth of tokens at a time.
func (c *cachedCall) put(k Kernels) {
	pieces := (c.most+attend.Panel-1)/attend.Panel + 1
	pool := k.pool
	if c.most <= attend.Panel {
		pool = nil // over sooner than another thread awakes
	}
	pool.Do(len(c.sequences)*c.a.KVHeads*pieces, (*putTokens)(c))
}

// putTokens writes pieces of keys and values.
type putTokens cachedCall

func (t *putTokens) Item(_, i int) {
	c := (*cachedCall)(t)
	heads := c.a.KVHeads
	g, s, piece := i%heads, &c.sequences[i/heads%len(c.sequences)], i/heads/len(c.sequences)
	// Pieces end at absolute multiples of a panel: what they write is apart.
	end := s.First + s.tokens(c.packed)
	from := max(s.First, (s.First/attend.Panel+piece)*attend.Panel)
	to := min(end, (s.First/attend.Panel+piece+1)*attend.Panel)
	if from >= to {
		return
	}
	ks, vs := c.keysValues(s.QKV[(from-s.First)*c.width:], g)
	s.Cache.layout.put(s.Cache.block(from/keyBlock, g), from%keyBlock, to-from, ks, vs, c.width)
}

// attendByKeys is attendQueries for one block of queries of each key head: the threads share out the blocks of keys, whose shares
// are then merged in order.
func (c *cachedCall) attendByKeys(k Kernels) {
	s := &c.sequences[0]
	c.shares = c.work[k.Threads()*c.each:]
	blocks := (s.First + c.most + keyBlock - 1) / keyBlock
	k.pool.Do(c.a.KVHeads*blocks, (*attendKeys)(c))
	for g := range c.a.KVHeads {
		w := c.begin(0, s, g, 0, c.outputs)
		n := w.q.rows()
		w.scratch.rows = n
		clear(w.outSum[:n])
		for j := range blocks {
			largest, sum, part := c.share(&w.scratch, n, j*c.a.KVHeads+g)
			w.merge(n, largest, sum, part, w.ldo)
		}
		w.store(&w.q)
	}
	c.shares = nil
}

// share returns the memory of share i of n rows.
func (c *cachedCall) share(w *scratch, n, i int) (largest, sum, part []float32) {
	l := w.layout
	size := n * (l.columns() + 2)
	s := c.shares[i*size:][:size]
	return s[n*l.columns():][:n], s[n*(l.columns()+1):][:n], s[:n*l.columns()]
}

// attendKeys computes blocks of keys' shares.
type attendKeys cachedCall

func (t *attendKeys) Item(worker, i int) {
	c := (*cachedCall)(t)
	g, j := i%c.a.KVHeads, i/c.a.KVHeads
	s := &c.sequences[0]
	w := c.begin(worker, s, g, 0, c.outputs)
	w.load(&w.q)
	w.largest, w.sum, w.part = c.share(&w.scratch, w.q.rows(), i)
	w.block(&w.q, s.Cache.block(j, g), j)
}
