package cpu

import (
	"fmt"

	"autodev/compute"
)

// Cache holds the keys and values of one layer of one sequence: row u of K and V [capacity, KVHeads·HeadDim] belongs to
// token u.
type Cache struct {
	K, V []float32
}

// Cached is the attention of consecutive new tokens of one sequence: QKV and Y are rows of the packed layout and the output of
// compute.Attention for the tokens First, First+1, …; all earlier tokens are in Cache.
type Cached struct {
	Y, QKV []float32
	Cache  Cache
	First  int
}

func (c *Cached) tokens(p packed) int { return len(c.QKV) / p.width }

// AttendCachedWork returns the scratch of AttendCached for sequences that grow to at most length tokens.
func (k Kernels) AttendCachedWork(length int, a compute.Attr) int {
	group := a.Heads / a.KVHeads
	return k.Threads() * scratchFloats(tokensPerBlock(group, length)*group, length, a.HeadDim, false)
}

// AttendCached puts the new tokens' keys and values into the caches and sets Y to causal attention over everything cached. a
// gives heads and scale; Seq and Drop are not read. Length is the bound given to AttendCachedWork.
//
// A token's bits depend only on it and its predecessors, not on how many tokens or sequences a call holds: they are those of
// Attention over the whole sequence with document start 0 and no dropout. A sequence longer than length or than its cache is
// an error, reported before anything is written.
func (k Kernels) AttendCached(sequences []Cached, length int, a compute.Attr, work []float32) error {
	p := packedLayout(a)
	kvWidth := a.KVHeads * a.HeadDim
	most := 0
	for i := range sequences {
		c := &sequences[i]
		m := c.tokens(p)
		if capacity := min(len(c.Cache.K), len(c.Cache.V)) / kvWidth; c.First < 0 || c.First+m > capacity || c.First+m > length {
			return fmt.Errorf("sequence %d: tokens %d to %d, expected them within the cache's %d and the agreed %d", i, c.First, c.First+m-1, capacity, length)
		}
		if len(c.QKV) != m*p.width || len(c.Y) != m*a.Heads*a.HeadDim {
			return fmt.Errorf("sequence %d: %d elements of queries, keys and values and %d of output, expected a multiple of %d and as many times %d", i, len(c.QKV), len(c.Y), p.width, a.Heads*a.HeadDim)
		}
		most = max(most, m)
	}
	for i := range sequences {
		c := &sequences[i]
		for t := range c.tokens(p) {
			row := c.QKV[t*p.width+a.Heads*a.HeadDim:]
			copy(c.Cache.K[(c.First+t)*kvWidth:][:kvWidth], row)
			copy(c.Cache.V[(c.First+t)*kvWidth:][:kvWidth], row[kvWidth:])
		}
	}
	// With few blocks, as when one token is decoded, the heads of a group are shared out too.
	tokens := tokensPerBlock(p.group, length)
	blocks := (most + tokens - 1) / tokens
	parts := min(p.group, max(1, (k.Threads()+blocks*len(sequences)*a.KVHeads-1)/max(1, blocks*len(sequences)*a.KVHeads)))
	each := scratchFloats(tokens*p.group, length, a.HeadDim, false)
	k.pool.RunWorker(len(sequences)*a.KVHeads*blocks*parts, func(worker, i int) {
		part, g, s, block := i%parts, i/parts%a.KVHeads, i/parts/a.KVHeads%len(sequences), i/parts/a.KVHeads/len(sequences)
		c := &sequences[s]
		t0, t1 := block*tokens, min(c.tokens(p), (block+1)*tokens)
		if t0 >= t1 {
			return
		}
		b := &queries{
			q: c.QKV, qStride: p.width, y: c.Y, yStride: a.Heads * a.HeadDim, base: c.First, t0: c.First + t0, t1: c.First + t1,
			h0: g*p.group + part*p.group/parts, h1: g*p.group + (part+1)*p.group/parts,
		}
		w := newScratch(work[worker*each:], tokens*p.group, length, a.HeadDim, false)
		kv := keysValues{k: c.Cache.K[g*a.HeadDim:], v: c.Cache.V[g*a.HeadDim:], stride: kvWidth}
		w.forward(b, kv, a.HeadDim, float32(a.Scale), dropout{}, nil)
	})
	return nil
}
