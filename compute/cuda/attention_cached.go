package cuda

import (
	"fmt"
	"math"

	"autodev/compute"
)

// The cache of keys and values consists of pages of cachePage tokens; attention cuts keys at multiples of cacheChunk (kernels/cache.h).
const (
	cachePage  = 64
	cacheChunk = 128
)

// cachedCall is attention of new tokens over cached keys and values. Heads, KVHeads, HeadDim and Scale of Attr are read.
type cachedCall struct {
	compute.Attr
	store     Store
	sequences int // in the call
	most      int // new tokens of a sequence, at most
	pages     int // of a sequence, at most: columns of the table
}

// cachedOperands are the device addresses of a call. What is in table, first and length may change between runs of one launch, within
// the bounds of the call.
type cachedOperands struct {
	pages  Ptr // the cache: pages of pageBytes
	table  Ptr // [sequences,pages] i32: the page of each cachePage tokens of a sequence
	first  Ptr // [sequences+1] i32: sequence b's new tokens are the rows first[b] to first[b+1] of qkv
	length Ptr // [sequences] i32: tokens of each sequence in the cache, with the new ones
	work   Ptr // workBytes
}

// pageBytes returns the size of a page of one layer.
func (c *cachedCall) pageBytes() int64 {
	return int64(c.store.Size()) * int64(2*c.KVHeads*c.HeadDim) * cachePage
}

func (c *cachedCall) chunks() int { return ceilDiv(c.pages*cachePage, cacheChunk) }

// workBytes returns the scratch of attend: the shares of all chunks.
func (c *cachedCall) workBytes() int64 {
	return 4 * int64(c.sequences*c.most) * int64(c.Heads) * int64(c.chunks()) * int64(c.HeadDim+2)
}

func (c *cachedCall) check() error {
	switch {
	case c.Heads < 1 || c.KVHeads < 1 || c.Heads%c.KVHeads != 0 || c.HeadDim < 1 || c.HeadDim > 256:
		return fmt.Errorf("cuda: cached attention with %d heads and %d key heads of %d, expected a multiple and dimensions to 256", c.Heads, c.KVHeads, c.HeadDim)
	case c.sequences < 1 || c.sequences > 65535 || c.most < 1 || c.pages < 1:
		return fmt.Errorf("cuda: cached attention of %d sequences, %d new tokens each, %d pages each", c.sequences, c.most, c.pages)
	case !(c.Scale > 0) || math.IsInf(c.Scale, 0):
		return fmt.Errorf("cuda: cached attention with scores multiplied by %v, expected a positive number", c.Scale)
	}
	return nil
}

// appendCache prepares putting the keys and values of the new tokens' qkv [rows,(H+2·KV)·D] into the cache.
func appendCache(q *Queue, qkv Ptr, c cachedCall, o cachedOperands) (*Launch, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	return q.Prepare("cache_append_"+c.store.String(), Grid{Blocks: Dim{c.most, c.sequences}, Threads: Dim{128}},
		o.pages, qkv, o.table, o.first, o.length, c.pages, c.Heads, c.KVHeads, c.HeadDim)
}

// attendCached prepares y [rows,H·D] = causal attention of the new tokens over everything cached, which they are part of: two launches. A
// token's bits depend on it and its predecessors alone, not on what else the call holds or has room for.
func attendCached(q *Queue, y, qkv Ptr, c cachedCall, o cachedOperands) (Sequence, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	grid, name := Grid{Blocks: Dim{c.chunks(), c.Heads * c.most, c.sequences}, Threads: Dim{128}}, "attention_cached_scalar_"
	if d := q.d.properties; c.store != F32 && d.Capability >= 80 && c.HeadDim%8 == 0 {
		w := 64
		for w < c.HeadDim {
			w *= 2
		}
		if shared := 2 * w * (16 + 2*cacheChunk); shared+1<<10 <= d.SharedPerBlock {
			name = fmt.Sprintf("attention_cached%d_", w)
			grid.Blocks[1], grid.Shared = ceilDiv(c.most*c.Heads/c.KVHeads, 16)*c.KVHeads, shared
		}
	}
	share, err := q.Prepare(name+c.store.String(), grid, o.work, qkv, o.pages, o.table, o.first, o.length, c.pages, c.Heads, c.KVHeads, c.HeadDim, float32(c.Scale*math.Log2E))
	if err != nil {
		return nil, err
	}
	merge, err := q.Prepare("attention_cached_merge_"+c.store.String(), Grid{Blocks: Dim{c.Heads, c.most, c.sequences}, Threads: Dim{128}},
		y, o.work, o.pages, o.table, o.first, o.length, c.pages, c.Heads, c.KVHeads, c.HeadDim, c.chunks())
	if err != nil {
		return nil, err
	}
	return Sequence{share, merge}, nil
}
