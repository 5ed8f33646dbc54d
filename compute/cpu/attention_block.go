package cpu

import (
	"math"

	"autodev/compute/cpu/attend"
	"autodev/compute/cpu/vec"
)

// Attention is computed for blocks of query rows of the heads that share a key head, one block of keys at a time: the scores
// of the block are a product into scratch, their exponentials against the row's largest are taken row by row, and a second
// product with the values gives the row's share of the output. Shares are merged in the order of the blocks. Blocks of keys that
// a row does not see do not touch it, so that what it computes depends on nothing but itself and the keys it sees.

// blockRows is the number of query rows (tokens × heads) of one block at most, unless one token has more heads; blockTokens
// bounds its tokens, so that little is computed above the diagonal.
const (
	blockRows   = 128
	blockTokens = 32
)

// tokensPerBlock returns how many tokens of the given number of heads make a block of queries.
func tokensPerBlock(heads int) int { return max(1, min(blockTokens, blockRows/heads)) }

func wordsOf(x []float32) []uint32 { return attend.Words(x) }

// queries are a block of query rows: tokens t0..t1 of one sequence in heads h0..h1 that share a key head. Token t of the
// sequence is row t−base of q and y, which have the given strides; head h has columns h·dim.
type queries struct {
	q, y             []float32
	qStride, yStride int
	lse              []float32 // the logarithms of the soft-max's sums; nil: not wanted
	lseStride        int
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

// keys returns the range of keys that the block sees.
func (b *queries) keys() (from, to int) {
	from = b.start(b.t0)
	for t := b.t0 + 1; t < b.t1; t++ {
		from = min(from, b.start(t))
	}
	return from, b.t1
}

// scratch is one worker's memory for a block of queries.
type scratch struct {
	layout
	scale   float32 // of the queries
	after   float32 // of the scores, where queries are rounded and their scaling would not be exact; else 1
	drop    dropout
	element func(t, h int) uint64

	rows               int
	ldq, lds, ldp, ldo int
	q                  []uint32  // [rows, ldq] words: the queries as left operand
	s                  []float32 // [rows, lds] scores, then their exponentials
	p                  []uint32  // [rows, ldp] the exponentials as left operand
	part, out          []float32 // [rows, ldo] the block's share of the output, and what has been merged
	largest, sum       []float32 // [rows] of the block
	outLargest, outSum []float32 // [rows] of what has been merged; a sum of 0: nothing
	factors            []float32 // [2, rows]
	keep               []float32 // [keyBlock+4]
	space              []uint32  // integers widened
}

// scratchFloats returns the length of memory that newScratch cuts for blocks of at most the given rows.
func scratchFloats(l layout, rows int) int {
	var w scratch
	return w.cut(nil, l, rows)
}

func newScratch(memory []float32, l layout, rows int, scale float32) *scratch {
	w := new(scratch)
	w.reset(memory, l, rows, scale)
	return w
}

// reset makes w what newScratch returns.
func (w *scratch) reset(memory []float32, l layout, rows int, scale float32) {
	*w = scratch{scale: scale, after: 1}
	if l.format != CacheF32 && !powerOfTwo(scale) {
		w.scale, w.after = 1, scale
	}
	w.cut(memory, l, rows)
}

// shares hands out memory in parts; without memory it only counts.
type shares struct {
	memory []float32
	used   int
}

// floats returns the next n elements, nil without memory. Parts start on cache lines where the memory does.
func (s *shares) floats(n int) []float32 {
	n = roundUp(n, 16)
	s.used += n
	if s.memory == nil {
		return nil
	}
	return s.memory[s.used-n : s.used : s.used]
}

// cut shares out memory, unless it is nil, and returns how much of it is used.
func (w *scratch) cut(memory []float32, l layout, rows int) int {
	w.layout = l
	// Rows of scores start on cache lines and are not a power of two apart, so that they do not compete for the cache's sets.
	w.ldq, w.lds, w.ldp, w.ldo = roundUp(l.inner(), 16), stride(keyBlock), (keyBlock+32)/2, l.columns()
	m := shares{memory: memory}
	floats := m.floats
	w.q = wordsOf(floats(rows * w.ldq))
	w.s = floats(rows * w.lds)
	if l.format != CacheF32 {
		w.p = wordsOf(floats(rows * w.ldp))
	}
	w.part, w.out = floats(rows*w.ldo), floats(rows*w.ldo)
	w.largest, w.sum, w.outLargest, w.outSum = floats(rows), floats(rows), floats(rows), floats(rows)
	w.factors, w.keep = floats(2*rows), floats(keyBlock+4)
	w.space = wordsOf(floats(l.unpacked()))
	return m.used
}

// load begins a block of queries.
func (w *scratch) load(b *queries) {
	w.rows = b.rows()
	for r := range w.rows {
		t, h := b.token(r)
		q, row := b.q[(t-b.base)*b.qStride+h*w.dim:][:w.dim], w.q[r*w.ldq:][:w.inner()]
		if w.format == CacheF32 {
			vec.Scale(attend.Floats(row), q, w.scale)
			continue
		}
		scaled := w.part[:w.dim]
		vec.Scale(scaled, q, w.scale)
		attend.Round(row, scaled)
	}
	clear(w.outSum[:w.rows])
}

// scoreRows is the number of rows whose scores are computed as far as the last of them sees.
const scoreRows = 32

// block attends to block j of the keys: it sets largest, sum and part of the rows that see any of it, and sum to 0 for others.
func (w *scratch) block(b *queries, keys []uint32, j int) {
	first := j * keyBlock
	visible := func(t int) (from, to int) {
		return max(b.start(t)-first, 0), min(t+1-first, keyBlock)
	}
	lo, hi := keyBlock, 0
	for t := b.t0; t < b.t1; t++ {
		if from, to := visible(t); from < to {
			lo, hi = min(lo, from), max(hi, to)
		}
	}
	if lo >= hi {
		clear(w.sum[:w.rows])
		return
	}
	o := w.operands(keys, w.space, lo, hi)
	left := lo / attend.Panel * attend.Panel
	for r := 0; r < w.rows; r += scoreRows {
		n := min(scoreRows, w.rows-r)
		last, _ := b.token(r + n - 1)
		_, to := visible(last)
		w.product(attend.Product{
			Rows: n, Cols: roundUp(to, attend.Panel) - left, K: w.inner(), LDA: w.ldq, LDB: w.inner() * attend.Panel, LDC: w.lds,
		}, w.s[r*w.lds+left:], w.q[r*w.ldq:], o.keys[left*w.inner():])
	}
	// What a row does not see is filled up to whole pairs and lines.
	begin, end := lo&^15, roundUp(hi, 16)
	for r := range w.rows {
		t, h := b.token(r)
		from, to := visible(t)
		row := w.s[r*w.lds:][begin:end]
		element := func() uint64 { return w.element(t, h) + uint64(first+from) }
		if w.format == CacheF32 {
			w.exponentials(row, r, from-begin, to-begin, element)
		} else {
			w.exponentialPairs(w.p[r*w.ldp+begin/2:][:len(row)/2], row, r, from-begin, to-begin, o, begin, element)
		}
	}
	if w.format == CacheF32 {
		w.product(attend.Product{Rows: w.rows, Cols: w.columns(), K: hi - lo, LDA: w.lds, LDB: keyBlock * attend.Panel, LDC: w.ldo},
			w.part, wordsOf(w.s)[lo:], o.values[lo*attend.Panel:])
		return
	}
	lo, hi = lo/2, (hi+1)/2
	w.product(attend.Product{Rows: w.rows, Cols: w.columns(), K: hi - lo, LDA: w.ldp, LDB: keyBlock / 2 * attend.Panel, LDC: w.ldo},
		w.part, w.p[lo:], o.values[lo*attend.Panel:])
}

// exponentials replaces the scores of row r by what is multiplied with the values: exponentials from..to, else zeros.
func (w *scratch) exponentials(row []float32, r, from, to int, element func() uint64) {
	if from >= to {
		w.sum[r] = 0
		clear(row)
		return
	}
	clear(row[:from])
	clear(row[to:])
	row = row[from:to]
	w.largest[r] = vec.Max(row)
	w.sum[r] = vec.ExpSum(row, w.largest[r])
	if w.drop.p > 0 {
		keep := w.keep[:len(row)]
		keepMask(keep, w.drop.key, w.drop.salt, w.drop.p, element())
		vec.Mul(row, row, keep)
	}
}

// exponentialPairs is exponentials for bfloat16 and integers, whose keys begin at the block's key number begin.
func (w *scratch) exponentialPairs(pairs []uint32, row []float32, r, from, to int, o keyOperands, begin int, element func() uint64) {
	if from >= to {
		w.sum[r] = 0
		clear(pairs)
		return
	}
	var columns []float32
	if o.keyScale != nil {
		vec.Mul(row[from:to], row[from:to], o.keyScale[begin+from:][:to-from])
		columns = o.vScale[begin:][:len(row)]
	}
	if w.drop.p > 0 { // only in training, where nothing else multiplies columns
		columns = w.keep[:len(row)]
		clear(columns)
		keepMask(columns[from:to], w.drop.key, w.drop.salt, w.drop.p, element())
	}
	for i := range from {
		row[i] = unseen
	}
	for i := to; i < len(row); i++ {
		row[i] = unseen
	}
	w.largest[r], w.sum[r] = attend.Exponentials(pairs, row, columns, w.after)
}

var unseen = float32(math.Inf(-1))

// product multiplies words of the layout's kind.
func (w *scratch) product(p attend.Product, c []float32, a, b []uint32) {
	if w.format == CacheF32 {
		p.Floats(c, attend.Floats(a), attend.Floats(b))
	} else {
		p.Pairs(c, a, b)
	}
}

// merge adds the shares of one block of keys to what has been merged: rows of part, of the given stride, with the largest score
// and the sum of each. Rows whose sum is 0 did not see the block.
func (w *scratch) merge(rows int, largest, sum, part []float32, stride int) {
	old, share := w.factors[:rows], w.factors[rows:][:rows]
	for r := range rows {
		m := max(w.outLargest[r], largest[r])
		old[r], share[r] = w.outLargest[r]-m, largest[r]-m
		if w.outSum[r] == 0 || sum[r] == 0 {
			old[r], share[r] = 0, 0
			continue
		}
		w.outLargest[r] = m
	}
	vec.Exp(old, old)
	vec.Exp(share, share)
	for r := range rows {
		from, to := part[r*stride:][:w.ldo], w.out[r*w.ldo:][:w.ldo]
		switch {
		case sum[r] == 0:
		case w.outSum[r] == 0:
			copy(to, from)
			w.outLargest[r], w.outSum[r] = largest[r], sum[r]
		default:
			attend.Merge(to, from, old[r], share[r])
			w.outSum[r] = float32(old[r]*w.outSum[r]) + float32(share[r]*sum[r])
		}
	}
}

// store writes the block's output.
func (w *scratch) store(b *queries) {
	for r := range w.rows {
		t, h := b.token(r)
		vec.Scale(b.y[(t-b.base)*b.yStride+h*w.dim:][:w.dim], w.out[r*w.ldo:][:w.dim], 1/w.outSum[r])
		if b.lse != nil {
			b.lse[(t-b.base)*b.lseStride+h] = w.outLargest[r] + float32(math.Log(float64(w.outSum[r])))
		}
	}
}

// powerOfTwo reports whether multiplication by x is exact.
func powerOfTwo(x float32) bool {
	fraction, exponent := math.Frexp(float64(x))
	return fraction == 0.5 && exponent > -32 && exponent < 32
}

// stride returns the row stride of a score matrix of n columns: whole cache lines, and not a power of two, so that rows do
// not compete for the same sets of the cache.
func stride(n int) int { return (n+15)/16*16 + 16 }
