package cuda

import (
	"fmt"
	"math"

	"autodev/compute"
	"autodev/compute/cudaplan"
)

// attentionCall is a call of compute.Attention or compute.AttentionGrad on n tokens, and the kernels that do it.
type attentionCall struct {
	compute.Attr
	n     int
	store Store
	width int // of the kernels' tiles, at least HeadDim; 0 without tensor cores
	tiles attentionTiles
	name  string // of the kernels, without what is done and the store
	drop  string // part of the names of kernels with dropout of their own
}

// attentionTiles is how kernels cut their work; attention_tensor.h and attention_scalar.cu say the same.
type attentionTiles struct {
	forward, queries, gradRows int // rows of a tile of queries: of forward, of grad_queries, of grad_keys
	keys                       int // keys of a block of grad_keys
	columns                    int // blocks that share the columns of one key head's gradient
	enough                     int // blocks of grad_keys: for each of an H100's 132 multiprocessors twice as many as run there at a time, or a few fewer
	threads                    int
	fold                       int // the most heads of a tile
	shared                     [3]int
}

// The kernels' names and their places in attentionTiles.shared.
const (
	attentionForward = iota
	attentionGradQueries
	attentionGradKeys
)

// newAttentionCall checks the call and chooses the kernels: on tensor cores where store, head dimension and device allow it.
func newAttentionCall(q *Queue, n int, a compute.Attr, s Store) (c attentionCall, err error) {
	d := q.d.properties
	switch {
	case a.Heads < 1 || a.KVHeads < 1 || a.Heads%a.KVHeads != 0 || a.HeadDim < 1 || a.Seq < 1 || n < 1 || n%a.Seq != 0:
		return c, fmt.Errorf("cuda: attention of %d tokens in sequences of %d, %d heads and %d key heads of %d", n, a.Seq, a.Heads, a.KVHeads, a.HeadDim)
	case !(a.Scale > 0) || math.IsInf(a.Scale, 0):
		return c, fmt.Errorf("cuda: attention with scores multiplied by %v, expected a positive number", a.Scale)
	case a.Drop < 0 || a.Drop >= 1:
		return c, fmt.Errorf("cuda: attention with dropout %v, expected 0 to 1", a.Drop)
	case int64(a.Seq)*int64(a.Heads+2*a.KVHeads)*int64(a.HeadDim) > math.MaxInt32:
		return c, fmt.Errorf("cuda: attention over sequences of %d tokens of %d heads and %d key heads of %d: more than 2^31 elements each", a.Seq, a.Heads, a.KVHeads, a.HeadDim)
	case n/a.Seq > 65535:
		return c, fmt.Errorf("cuda: attention over %d sequences, expected at most 65535", n/a.Seq)
	}
	if err := d.CheckHeads(a.HeadDim, true); err != nil {
		return c, err
	}
	c = attentionCall{Attr: a, n: n, store: s}
	if s != F32 && d.Capability >= 80 && a.HeadDim%8 == 0 {
		w := 256
		switch {
		case a.HeadDim <= 64:
			w = 64
		case a.HeadDim <= 128:
			w = 128
		}
		c.tiles = attentionTiles{forward: 128, queries: 128, gradRows: 64, keys: 64, columns: 1, enough: 528, threads: 128, fold: 1024 / w}
		switch w {
		case 128:
			c.tiles.gradRows = 32
		case 256:
			c.tiles.forward, c.tiles.queries, c.tiles.gradRows, c.tiles.columns = 64, 64, 32, 2
		}
		t := &c.tiles
		t.shared = [3]int{2 * w * (t.forward + 2*64), 2 * w * (2*t.queries + 4*32), 2 * w * (2*64 + 4*t.gradRows)}
		c.name, c.width = fmt.Sprint("attention", w), w
		if a.Drop > 0 {
			c.drop = "drop_"
		}
		if max(t.shared[0], t.shared[1], t.shared[2])+4<<10 <= d.SharedPerBlock {
			return c, nil
		}
	}
	r := 2
	if c.tiles = scalarTiles(r, a.HeadDim); a.HeadDim > maxHeadDim/r || c.tiles.shared[attentionGradKeys] > d.SharedPerBlock {
		r = 1
		c.tiles = scalarTiles(r, a.HeadDim)
	}
	c.name, c.drop, c.width = fmt.Sprint("attention_scalar", r), "", 0
	return c, nil
}

// maxHeadDim is the largest dimension of heads that there are kernels for.
const maxHeadDim = 256

// scalarTiles is the work of the kernels without tensor cores, with 16·r rows.
func scalarTiles(r, dim int) attentionTiles {
	rows, wide := 16*r, (dim+3)/4*4
	tile, scores := 4*rows*(wide+4), 4*rows*(rows+1)
	return attentionTiles{forward: rows, queries: rows, gradRows: rows, keys: rows, columns: 1, enough: 528, threads: 256, fold: rows,
		shared: [3]int{2*tile + scores, 4*tile + scores, 4*tile + 2*scores}}
}

// CheckHeads reports heads of a dimension that the device has no attention for; training needs gradients too.
func (p Properties) CheckHeads(dim int, training bool) error {
	if dim > maxHeadDim {
		return fmt.Errorf("cuda: attention with a head dimension of %d, expected at most %d", dim, maxHeadDim)
	}
	if need := scalarTiles(1, dim).shared[attentionGradKeys]; training && need > p.SharedPerBlock {
		return fmt.Errorf("cuda: attention with a head dimension of %d needs %d bytes of shared memory, the device has %d", dim, need, p.SharedPerBlock)
	}
	return nil
}

// foldOf returns the exponent of the largest power of two that divides heads and is at most most.
func foldOf(heads, most int) int {
	fold := 0
	for 2<<fold <= most && heads%(2<<fold) == 0 {
		fold++
	}
	return fold
}

// launch prepares one of the call's kernels. between are the arguments between the sizes and the scales.
func (c *attentionCall) launch(q *Queue, kernel, fold int, blocks Dim, pointers []Ptr, between []any, scales ...float32) (*Launch, error) {
	name := c.name + [3]string{"_", "_grad_queries_", "_grad_keys_"}[kernel] + c.drop + c.store.String()
	grid := Grid{Blocks: blocks, Threads: Dim{c.tiles.threads}, Shared: c.tiles.shared[kernel]}
	return q.Prepare(name, grid, c.arguments(fold, pointers, between, scales...)...)
}

// arguments are those of all kernels of attention.
func (c *attentionCall) arguments(fold int, pointers []Ptr, between []any, scales ...float32) []any {
	args := make([]any, 0, len(pointers)+7+len(between)+len(scales))
	for _, p := range pointers {
		args = append(args, p)
	}
	args = append(args, c.Heads, c.KVHeads, c.HeadDim, c.Seq, fold, c.Salt, compute.DropThreshold(c.Drop))
	args = append(args, between...)
	for _, s := range scales {
		args = append(args, s)
	}
	return args
}

// key returns the dropout key's address, none without dropout.
func (c *attentionCall) key(p Ptr) (Ptr, error) {
	switch {
	case c.Drop == 0:
		return 0, nil
	case p == 0:
		return 0, fmt.Errorf("cuda: attention with dropout %v without a key", c.Drop)
	}
	return p, nil
}

// scale is what the kernels multiply scores with, in front of powers of two.
func (c *attentionCall) scale() float32 { return float32(c.Scale * math.Log2E) }

// keep is what is left of a probability that is not dropped, upside down.
func (c *attentionCall) keep() float32 { return float32(1 / (1 - c.Drop)) }

func ceilDiv(a, b int) int { return (a + b - 1) / b }

// queryBlocks is the grid of kernels whose blocks own tiles of queries. The tiles come last, so that the longest go first, of all heads and
// sequences.
func (c *attentionCall) queryBlocks(rows, fold int) Dim {
	return Dim{c.Heads >> fold, c.n / c.Seq, ceilDiv(c.Seq, rows>>fold)}
}

// attention prepares compute.Attention on n tokens, its floats kept as s: y [n,H·D] and, unless it is 0, lse [n,H] f32 of qkv [n,(H+2·KV)·D],
// docStart [n] i32 and, with a.Drop, key [2] i32.
func attention(q *Queue, y, lse, qkv, docStart, key Ptr, n int, a compute.Attr, s Store) (*Launch, error) {
	c, err := newAttentionCall(q, n, a, s)
	if err != nil {
		return nil, err
	}
	if key, err = c.key(key); err != nil {
		return nil, err
	}
	return c.forward(q, c.takesWarpgroups(q), y, lse, qkv, docStart, key)
}

// forward is attention with the call's kernels, or with those for products of warpgroups.
func (c *attentionCall) forward(q *Queue, warpgroups bool, y, lse, qkv, docStart, key Ptr) (*Launch, error) {
	fold, pointers := foldOf(c.Heads/c.KVHeads, c.tiles.fold), []Ptr{y, lse, qkv, docStart, key}
	if warpgroups {
		return c.warpgroupForward(q, fold, pointers)
	}
	return c.launch(q, attentionForward, fold, c.queryBlocks(c.tiles.forward, fold), pointers, nil, c.scale(), c.keep())
}

// attentionGrad prepares compute.AttentionGrad, two or three launches in order: dqkv of dy, the outputs y and lse of attention, and its qkv,
// docStart and key. work has cudaplan.WorkBytes of the call. Blocks that own queries and then blocks that own keys write what is
// theirs, so that nothing is added in an order that differs from run to run; the first leave Σ dy·y per token and head for the others.
// Where several query heads share keys, their gradients are added up last.
func attentionGrad(q *Queue, dqkv, dy, y, lse, qkv, docStart, key, work Ptr, n int, a compute.Attr, s Store) (Sequence, error) {
	c, err := newAttentionCall(q, n, a, s)
	if err != nil {
		return nil, err
	}
	if key, err = c.key(key); err != nil {
		return nil, err
	}
	if y == 0 || lse == 0 {
		return nil, fmt.Errorf("cuda: AttentionGrad without y and lse of its Attention: the plan was made for another device")
	}
	if c.takesWarpgroups(q) {
		c = c.warpgroupGradients()
	}
	return c.gradients(q, dqkv, dy, y, lse, qkv, docStart, key, work)
}

// gradients is attentionGrad with the call's kernels.
func (c *attentionCall) gradients(q *Queue, dqkv, dy, y, lse, qkv, docStart, key, work Ptr) (launches Sequence, err error) {
	delta := work
	parts := delta + Ptr(4*c.n*c.Heads)
	group := c.Heads / c.KVHeads
	share := c.headShare(cudaplan.HeadSplits(c.Attr))
	splits := ceilDiv(group, share)
	if splits == 1 {
		parts = 0
	}
	add := func(l *Launch, e error) {
		launches = append(launches, l)
		if err == nil {
			err = e
		}
	}
	gain := float32(c.Scale)
	fold := foldOf(group, c.tiles.fold)
	add(c.launch(q, attentionGradQueries, fold, c.queryBlocks(c.tiles.queries, fold), []Ptr{dqkv, delta, dy, y, qkv, docStart, key, lse}, nil, c.scale(), gain, c.keep()))
	add(c.launch(q, attentionGradKeys, foldOf(share, c.tiles.fold), Dim{c.KVHeads * splits * c.tiles.columns, c.n / c.Seq, ceilDiv(c.Seq, c.tiles.keys)},
		[]Ptr{dqkv, parts, dy, qkv, docStart, key, lse, delta}, []any{share}, c.scale(), gain, c.keep()))
	if splits > 1 {
		elements := int64(c.n) * int64(2*c.KVHeads*c.HeadDim)
		add(q.Prepare("attention_sum_"+c.store.String(), Grid{Blocks: Dim{blocksFor(elements, 256, 4096)}, Threads: Dim{256}}, dqkv, parts, c.n, c.Heads, c.KVHeads, c.HeadDim, splits))
	}
	return launches, err
}

// headShare returns how many of the query heads that share a key head one block of grad_keys goes over. Sums depend on it, so it is a function of the
// call and its kernels alone: the most that leaves enough blocks.
func (c *attentionCall) headShare(most int) int {
	blocks := ceilDiv(c.Seq, c.tiles.keys) * c.KVHeads * c.tiles.columns * (c.n / c.Seq)
	return ceilDiv(c.Heads/c.KVHeads, min(most, ceilDiv(c.tiles.enough, blocks)))
}
