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

// cachedCall is attention of new tokens of any number of sequences over cached keys and values. Heads, KVHeads, HeadDim and Scale of Attr are read.
type cachedCall struct {
	compute.Attr
	store Store
	rows  int // new tokens, with places that have none
	tiles int
	pages int // of a sequence, at most: columns of the table
}

// cachedOperands are the device addresses of a call. What is in table, sequence, position and tiles may change between runs of one launch,
// within the bounds of the call.
type cachedOperands struct {
	pages    Ptr // the cache: pages of pageBytes
	table    Ptr // [sequences,pages] i32: the page of each cachePage tokens of a sequence
	sequence Ptr // [rows] i32: a row's row of the table, negative for one that is no token
	position Ptr // [rows] i32: a row's place in its sequence
	tiles    Ptr // [tiles,2] i32: first row and number of rows, of one sequence and in its order, at most tileRows; 0 for none
	starts   Ptr // [rows] i32: the first row of a row's sequence, where the rows' keys and values are not in the cache yet; 0: they are
	work     Ptr // workBytes
	counts   Ptr // countBytes: zeros, which a call leaves as such
}

// pageBytes returns the size of a page of one layer.
func (c *cachedCall) pageBytes() int64 {
	return int64(c.store.Size()) * int64(2*c.KVHeads*c.HeadDim) * cachePage
}

func (c *cachedCall) chunks() int { return ceilDiv(c.pages*cachePage, cacheChunk) }

// tileQueries is how many queries, of rows and heads that share keys, the tensor cores take at a time.
const tileQueries = 16

// tileRows returns how many rows a tile has at most.
func (c *cachedCall) tileRows() int { return max(1, tileQueries*c.KVHeads/c.Heads) }

// countBytes returns how many counters attend has, in bytes.
func (c *cachedCall) countBytes() int64 { return 4 * int64(c.tiles) * int64(c.Heads) }

// workBytes returns the scratch of attend: the shares of all chunks.
func (c *cachedCall) workBytes() int64 {
	return 4 * int64(c.rows) * int64(c.Heads) * int64(c.chunks()) * int64(c.HeadDim+4)
}

func (c *cachedCall) check() error {
	switch {
	case c.Heads < 1 || c.KVHeads < 1 || c.Heads%c.KVHeads != 0 || c.HeadDim < 1 || c.HeadDim > 256:
		return fmt.Errorf("cuda: cached attention with %d heads and %d key heads of %d, expected a multiple and dimensions to 256", c.Heads, c.KVHeads, c.HeadDim)
	case c.rows < 1 || c.rows > 65535 || c.tiles < 1 || c.tiles > 65535 || c.pages < 1:
		return fmt.Errorf("cuda: cached attention of %d rows in %d tiles, %d pages a sequence", c.rows, c.tiles, c.pages)
	case !(c.Scale > 0) || math.IsInf(c.Scale, 0):
		return fmt.Errorf("cuda: cached attention with scores multiplied by %v, expected a positive number", c.Scale)
	}
	return nil
}

// appendCache prepares putting the keys and values of the rows' qkv [rows,(H+2·KV)·D] into the cache.
func appendCache(q *Queue, qkv Ptr, c cachedCall, o cachedOperands) (*Launch, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	return q.Prepare("cache_append_"+c.store.String(), Grid{Blocks: Dim{c.rows}, Threads: Dim{128}},
		o.pages, qkv, o.table, o.sequence, o.position, c.pages, c.Heads, c.KVHeads, c.HeadDim)
}

// attendCached prepares y [rows,H·D] = causal attention of the rows over everything cached, which they are part of; with starts it puts them there. On tensor
// cores it is one launch. A token's bits depend on it and its predecessors alone, not on what else the call holds or has room for. Rows that are no
// token become 0.
func attendCached(q *Queue, y, qkv Ptr, c cachedCall, o cachedOperands) (seq Sequence, err error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	scale := float32(c.Scale * math.Log2E)
	if d := q.d.properties; c.store != F32 && d.Capability >= 80 && c.HeadDim%8 == 0 {
		w := 64
		for w < c.HeadDim {
			w *= 2
		}
		if shared := 2 * w * (16 + 2*cacheChunk); shared+1<<10 <= d.SharedPerBlock {
			grid := Grid{Blocks: Dim{c.chunks(), ceilDiv(c.Heads/c.KVHeads, tileQueries) * c.KVHeads, c.tiles}, Threads: Dim{128}, Shared: shared}
			return sequence(q.Prepare(fmt.Sprintf("attention_cached%d_%v", w, c.store), grid, y, o.pages, o.counts, o.work, qkv, o.tiles, o.starts,
				o.table, o.sequence, o.position, c.pages, c.Heads, c.KVHeads, c.HeadDim, c.rows, scale))
		}
	}
	add := func(l *Launch, failed error) {
		if err == nil {
			err = failed
			seq = append(seq, l)
		}
	}
	if o.starts != 0 {
		add(appendCache(q, qkv, c, o))
	}
	add(q.Prepare("attention_cached_scalar_"+c.store.String(), Grid{Blocks: Dim{c.chunks(), c.Heads, c.rows}, Threads: Dim{128}},
		o.work, qkv, o.pages, o.table, o.sequence, o.position, c.pages, c.Heads, c.KVHeads, c.HeadDim, scale))
	add(q.Prepare("attention_cached_merge_"+c.store.String(), Grid{Blocks: Dim{c.Heads, c.rows}, Threads: Dim{128}},
		y, o.work, o.pages, o.table, o.sequence, o.position, c.pages, c.Heads, c.KVHeads, c.HeadDim, c.chunks()))
	if err != nil {
		return nil, err
	}
	return seq, nil
}
