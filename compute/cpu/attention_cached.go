package cpu

import (
	"fmt"

	"autodev/compute"
	"autodev/compute/cpu/attend"
)

// Cached is the attention of consecutive new tokens of one sequence: QKV and Y are rows of the packed layout and the output of
// compute.Attention for the tokens First, First+1, …; all earlier tokens are in Cache, which has room for the new ones.
type Cached struct {
	Y, QKV []float32
	Cache  *Cache
	First  int
}

func (c *Cached) tokens(p packed) int { return len(c.QKV) / p.width }

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
	most, rows := 0, tokensPerBlock(p.group)*p.group
	for i := range sequences {
		c := &sequences[i]
		if c.Cache.heads != a.KVHeads || c.Cache.layout.dim != a.HeadDim {
			return fmt.Errorf("sequence %d: a cache of %d key heads of %d, expected %d of %d", i, c.Cache.heads, c.Cache.layout.dim, a.KVHeads, a.HeadDim)
		}
		m := c.tokens(p)
		if capacity := c.Cache.Capacity(); c.First < 0 || c.First+m > capacity || c.First+m > length {
			return fmt.Errorf("sequence %d: tokens %d to %d, expected them within the cache's %d and the agreed %d", i, c.First, c.First+m-1, capacity, length)
		}
		if len(c.QKV) != m*p.width || len(c.Y) != m*a.Heads*a.HeadDim {
			return fmt.Errorf("sequence %d: %d elements of queries, keys and values and %d of output, expected a multiple of %d and as many times %d", i, len(c.QKV), len(c.Y), p.width, a.Heads*a.HeadDim)
		}
		most = max(most, m)
	}
	if most == 0 {
		return nil
	}
	k.putTokens(sequences, p, most)
	queriesOf := func(c *Cached, g, t0, t1 int) *queries {
		return &queries{
			q: c.QKV, qStride: p.width, y: c.Y, yStride: a.Heads * a.HeadDim, base: c.First, t0: c.First + t0, t1: c.First + t1,
			h0: g * p.group, h1: (g + 1) * p.group,
		}
	}
	tokens := tokensPerBlock(p.group)
	blocks := (most + tokens - 1) / tokens
	if len(sequences) == 1 && blocks == 1 && a.KVHeads < 4*k.Threads() {
		c := &sequences[0]
		k.attendByKeys(c, func(g int) *queries { return queriesOf(c, g, 0, most) }, a, rows, work)
		return nil
	}
	k.pool.RunWorker(len(sequences)*a.KVHeads*blocks, func(worker, i int) {
		g, s, block := i%a.KVHeads, i/a.KVHeads%len(sequences), blocks-1-i/a.KVHeads/len(sequences)
		c := &sequences[s]
		t0, t1 := block*tokens, min(c.tokens(p), (block+1)*tokens)
		if t0 >= t1 {
			return
		}
		q := queriesOf(c, g, t0, t1)
		each := scratchFloats(c.Cache.layout, rows)
		w := newScratch(work[worker*each:][:each], c.Cache.layout, rows, float32(a.Scale))
		w.load(q)
		for j := 0; j*keyBlock < q.t1; j++ {
			w.block(q, c.Cache.block(j, g), j)
			w.merge(w.rows, w.largest, w.sum, w.part, w.ldo)
		}
		w.store(q)
	})
	return nil
}

// putTokens writes the new tokens' keys and values, a key head and a panel's worth of tokens at a time.
func (k Kernels) putTokens(sequences []Cached, p packed, most int) {
	pieces := (most+attend.Panel-1)/attend.Panel + 1
	item := func(i int) {
		g, s, piece := i%p.a.KVHeads, i/p.a.KVHeads%len(sequences), i/p.a.KVHeads/len(sequences)
		c := &sequences[s]
		// Pieces end at absolute multiples of a panel: what they write is apart.
		end := c.First + c.tokens(p)
		from := max(c.First, (c.First/attend.Panel+piece)*attend.Panel)
		to := min(end, (c.First/attend.Panel+piece+1)*attend.Panel)
		if from >= to {
			return
		}
		ks, vs := p.keysValues(c.QKV[(from-c.First)*p.width:], g)
		c.Cache.layout.put(c.Cache.block(from/keyBlock, g), from%keyBlock, to-from, ks, vs, p.width)
	}
	n := len(sequences) * p.a.KVHeads * pieces
	if most <= attend.Panel {
		for i := range n { // over sooner than another thread awakes
			item(i)
		}
		return
	}
	k.pool.Run(n, item)
}

// attendByKeys is AttendCached for one block of queries of each key head: the threads share out the blocks of keys, whose
// shares are then merged in order.
func (k Kernels) attendByKeys(c *Cached, queriesOf func(g int) *queries, a compute.Attr, rows int, work []float32) {
	l := c.Cache.layout
	each := scratchFloats(l, rows)
	shares := work[k.Threads()*each:]
	blocks := (queriesOf(0).t1 + keyBlock - 1) / keyBlock
	n := queriesOf(0).rows()
	size := n * (l.columns() + 2)
	share := func(i int) (largest, sum, part []float32) {
		s := shares[i*size:][:size]
		return s[n*l.columns():][:n], s[n*(l.columns()+1):][:n], s[:n*l.columns()]
	}
	k.pool.RunWorker(a.KVHeads*blocks, func(worker, i int) {
		g, j := i%a.KVHeads, i/a.KVHeads
		q := queriesOf(g)
		w := newScratch(work[worker*each:][:each], l, rows, float32(a.Scale))
		w.load(q)
		w.largest, w.sum, w.part = share(i)
		w.block(q, c.Cache.block(j, g), j)
	})
	for g := range a.KVHeads {
		q := queriesOf(g)
		w := newScratch(work[:each], l, rows, float32(a.Scale))
		w.rows = n
		clear(w.outSum[:n])
		for j := range blocks {
			largest, sum, part := share(j*a.KVHeads + g)
			w.merge(n, largest, sum, part, w.ldo)
		}
		w.store(q)
	}
}
