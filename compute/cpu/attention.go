package cpu

import (
	"autodev/compute"
	"autodev/compute/cpu/gemm"
	"autodev/compute/cpu/vec"
)

// Attention is computed for blocks of query rows of the heads that share a key head. A block's scores against all keys it
// sees are one matrix product into scratch, their soft-max is taken row by row, and a second product with the values gives
// the output; keys before the first visible one of the block and after its last token are never touched. What one row
// computes is independent of its block: products are sums in key order with a cut at every absolute multiple of gemm.KC, and
// scores that a row must not see enter them as zeros.

// blockRows is the number of query rows (tokens × heads) of one block; maxScores bounds its score matrix in elements.
const (
	blockRows = 64
	maxScores = 1 << 18
)

// tokensPerBlock returns how many tokens of the given number of heads make a block for sequences of the given length. The
// gradient's bits depend on it, so it must not depend on anything else.
func tokensPerBlock(heads, length int) int {
	return max(1, min(blockRows, max(8, maxScores/length))/heads)
}

// keysValues are the keys and values of one key head of one sequence; row u starts at u·stride.
type keysValues struct {
	k, v   []float32
	stride int
}

// queries are a block of query rows: tokens t0..t1 of one sequence in heads h0..h1 that share a key head. Token t of the
// sequence is row t−base of q and y, which have the given strides; head h has columns h·dim.
type queries struct {
	q, y             []float32
	qStride, yStride int
	base             int
	t0, t1, h0, h1   int
	docStart         []int32 // of the tokens from base on; nil: 0
}

func (b *queries) rows() int { return (b.t1 - b.t0) * (b.h1 - b.h0) }

// token returns row r's token and head. A token's heads are neighbours.
func (b *queries) token(r int) (t, h int) {
	n := b.h1 - b.h0
	return b.t0 + r/n, b.h0 + r%n
}

// start returns the first token that token t sees.
func (b *queries) start(t int) int {
	if b.docStart == nil {
		return 0
	}
	return int(b.docStart[t-b.base])
}

// keys returns the range of keys that the block's score matrix covers.
func (b *queries) keys() (from, to int) {
	from = b.start(b.t0)
	for t := b.t0 + 1; t < b.t1; t++ {
		from = min(from, b.start(t))
	}
	return from, b.t1
}

// stride returns the row stride of a score matrix of n columns: whole cache lines, and not a power of two, so that rows do
// not compete for the same sets of the cache.
func stride(n int) int { return (n+15)/16*16 + 16 }

// dropout is an attention's dropout; element indexes count from the first of the head's score matrix.
type dropout struct {
	key  [2]int32
	salt uint32
	p    float64
}

// scratch is one worker's memory, for blocks of at most the rows, keys and head dimension it was cut for.
type scratch struct {
	q, o []float32 // [rows, dim]
	s    []float32 // [rows, stride(keys)]
	keep []float32 // [keys]
	gemm []float32
	// Only for gradients:
	dy, dp []float32 // as q and s
}

// scratchFloats returns the length of memory that newScratch cuts.
func scratchFloats(rows, keys, dim int, grad bool) int {
	n := 2*rows*dim + rows*stride(keys) + stride(keys) + scratchGEMM(rows, keys, dim)
	if grad {
		n += rows*dim + rows*stride(keys)
	}
	return (n + 15) / 16 * 16
}

func scratchGEMM(rows, keys, dim int) int {
	return max(gemm.WorkFloats(rows, keys, dim), gemm.WorkFloats(rows, dim, keys), gemm.WorkFloats(keys, dim, rows))
}

func newScratch(work []float32, rows, keys, dim int, grad bool) *scratch {
	cut := func(n int) []float32 {
		part := work[:n:n]
		work = work[n:]
		return part
	}
	w := &scratch{q: cut(rows * dim), o: cut(rows * dim), s: cut(rows * stride(keys)), keep: cut(stride(keys))}
	if grad {
		w.dy, w.dp = cut(rows*dim), cut(rows*stride(keys))
	}
	w.gemm = cut(scratchGEMM(rows, keys, dim))
	return w
}

// scores sets w.s, of row stride stride(keys), to e^(score − the row's largest), and to 0 where the row must not look. done is
// called in row order right after a row is ready, with the columns from..to that the row sees and the inverse of their sum.
func (w *scratch) scores(b *queries, kv keysValues, dim int, scale float32, done func(row []float32, r, from, to int, inverse float32)) {
	lo, hi := b.keys()
	rows, ld := b.rows(), stride(hi-lo)
	for r := range rows {
		t, h := b.token(r)
		vec.Scale(w.q[r*dim:][:dim], b.q[(t-b.base)*b.qStride+h*dim:][:dim], scale)
	}
	s := gemm.Mat{Data: w.s, Rows: rows, Cols: hi - lo, Stride: ld}
	keys := gemm.Mat{Data: kv.k[lo*kv.stride:], Rows: dim, Cols: hi - lo, Stride: kv.stride, T: true}
	gemm.Mul(nil, s, 1, gemm.Dense(w.q[:rows*dim], rows, dim), keys, gemm.Options{Work: w.gemm})
	for r := range rows {
		t, _ := b.token(r)
		row := w.s[r*ld:][:hi-lo]
		from, to := b.start(t)-lo, t+1-lo
		clear(row[:from])
		clear(row[to:])
		sum := vec.ExpSum(row[from:to], vec.Max(row[from:to]))
		done(row, r, from, to, 1/sum)
	}
}

// products calls f for consecutive ranges of the keys lo..hi, cut at the absolute multiples of gemm.KC, so that sums over keys
// are the same whatever lo is.
func products(lo, hi int, f func(from, to int, first bool)) {
	cut := min(hi, (lo/gemm.KC+1)*gemm.KC)
	f(lo, cut, true)
	if cut < hi {
		f(cut, hi, false) // gemm cuts the rest itself
	}
}

// forward computes the block's attention.
func (w *scratch) forward(b *queries, kv keysValues, dim int, scale float32, drop dropout, element func(t, h int) uint64) {
	lo, hi := b.keys()
	rows, ld := b.rows(), stride(hi-lo)
	inverse := w.q // the queries are not needed once the scores are there; one element a row
	w.scores(b, kv, dim, scale, func(row []float32, r, from, to int, inv float32) {
		if drop.p > 0 {
			t, h := b.token(r)
			keepMask(w.keep[:to-from], drop.key, drop.salt, drop.p, element(t, h)+uint64(lo+from))
			vec.Mul(row[from:to], row[from:to], w.keep[:to-from])
		}
		inverse[r] = inv
	})
	o := gemm.Dense(w.o[:rows*dim], rows, dim)
	products(lo, hi, func(from, to int, first bool) {
		p := gemm.Mat{Data: w.s[from-lo:], Rows: rows, Cols: to - from, Stride: ld}
		v := gemm.Mat{Data: kv.v[from*kv.stride:], Rows: to - from, Cols: dim, Stride: kv.stride}
		gemm.Mul(nil, o, 1, p, v, gemm.Options{Accumulate: !first, Work: w.gemm})
	})
	for r := range rows {
		t, h := b.token(r)
		vec.Scale(b.y[(t-b.base)*b.yStride+h*dim:][:dim], w.o[r*dim:][:dim], inverse[r])
	}
}

// packed is the layout of an attention over packed queries, keys and values.
type packed struct {
	a     compute.Attr
	group int // query heads of a key head
	width int // of qkv
}

func packedLayout(a compute.Attr) packed {
	return packed{a: a, group: a.Heads / a.KVHeads, width: (a.Heads + 2*a.KVHeads) * a.HeadDim}
}

// keysValues returns key head g of the sequence whose rows are qkv.
func (p packed) keysValues(qkv []float32, g int) keysValues {
	at := (p.a.Heads + g) * p.a.HeadDim
	return keysValues{k: qkv[at:], v: qkv[at+p.a.KVHeads*p.a.HeadDim:], stride: p.width}
}

// element returns the index of the first attention probability of token t in head h of a sequence.
func (p packed) element(sequence, t, h int) uint64 {
	return ((uint64(sequence)*uint64(p.a.Heads)+uint64(h))*uint64(p.a.Seq) + uint64(t)) * uint64(p.a.Seq)
}

// AttentionWork returns the scratch of Attention.
func (k Kernels) AttentionWork(a compute.Attr) int {
	p := packedLayout(a)
	rows := tokensPerBlock(p.group, a.Seq) * p.group
	return k.Threads() * scratchFloats(rows, a.Seq, a.HeadDim, false)
}

// Attention is compute.Attention for len(docStart) tokens; key is read when a.Drop > 0. Document starts out of range are a
// *compute.RangeError.
func (k Kernels) Attention(y, qkv []float32, docStart []int32, key [2]int32, a compute.Attr, work []float32) error {
	if err := compute.CheckDocStart(docStart, a.Seq); err != nil {
		return err
	}
	p := packedLayout(a)
	tokens := tokensPerBlock(p.group, a.Seq)
	blocks, each := (a.Seq+tokens-1)/tokens, scratchFloats(tokens*p.group, a.Seq, a.HeadDim, false)
	sequences := len(docStart) / a.Seq
	drop := dropout{key, a.Salt, a.Drop}
	k.pool.RunWorker(sequences*a.KVHeads*blocks, func(worker, i int) {
		// Late blocks see the most keys: they go first.
		block, g, sequence := blocks-1-i/(sequences*a.KVHeads), i%a.KVHeads, i/a.KVHeads%sequences
		first := sequence * a.Seq
		b := &queries{
			q: qkv[first*p.width:], qStride: p.width, y: y[first*a.Heads*a.HeadDim:], yStride: a.Heads * a.HeadDim,
			t0: block * tokens, t1: min(a.Seq, (block+1)*tokens), h0: g * p.group, h1: (g + 1) * p.group, docStart: docStart[first:],
		}
		w := newScratch(work[worker*each:], tokens*p.group, a.Seq, a.HeadDim, false)
		w.forward(b, p.keysValues(qkv[first*p.width:(first+a.Seq)*p.width], g), a.HeadDim, float32(a.Scale), drop,
			func(t, h int) uint64 { return p.element(sequence, t, h) })
	})
	return nil
}
