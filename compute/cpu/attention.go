package cpu

import (
	"autodev/compute"
)

// packed is the layout of an attention over packed queries, keys and values.
type packed struct {
	a     compute.Attr
	group int // query heads of a key head
	width int // of qkv
}

func packedLayout(a compute.Attr) packed {
	return packed{a: a, group: a.Heads / a.KVHeads, width: (a.Heads + 2*a.KVHeads) * a.HeadDim}
}

// keysValues returns the keys and values of head g in rows of qkv, to the rows' end; their stride is p.width.
func (p packed) keysValues(qkv []float32, g int) (k, v []float32) {
	at := (p.a.Heads + g) * p.a.HeadDim
	return qkv[at:], qkv[at+p.a.KVHeads*p.a.HeadDim:]
}

// element returns the index of the first attention probability of token t in head h of a sequence.
func (p packed) element(sequence, t, h int) uint64 {
	return ((uint64(sequence)*uint64(p.a.Heads)+uint64(h))*uint64(p.a.Seq) + uint64(t)) * uint64(p.a.Seq)
}

// operandFormat is how training's products get keys and values.
func operandFormat(a compute.Attr) CacheFormat {
	if a.BF16 {
		return CacheBF16
	}
	return CacheF32
}

// dropout is an attention's dropout; element indexes count from the first of the head's score matrix.
type dropout struct {
	key  [2]int32
	salt uint32
	p    float64
}

// attentionPlan says how Attention uses its scratch: for each worker the keys and values of one key head of one sequence in
// blocks, then memory for one block of queries.
type attentionPlan struct {
	packed
	layout
	blocks    int // of keys in a sequence
	tokens    int // of a block of queries
	keyFloats int // elements of a sequence's keys and values
	each      int // elements of one worker's scratch
}

func newAttentionPlan(a compute.Attr) attentionPlan {
	p := attentionPlan{packed: packedLayout(a), layout: layout{operandFormat(a), a.HeadDim}, blocks: (a.Seq + keyBlock - 1) / keyBlock}
	p.tokens = tokensPerBlock(p.group)
	p.keyFloats = roundUp(p.blocks*p.layout.words(), 16)
	p.each = scratchFloats(p.layout, p.tokens*p.group)
	return p
}

// AttentionWork returns the scratch of Attention.
func (k Kernels) AttentionWork(a compute.Attr) int {
	p := newAttentionPlan(a)
	return k.Threads() * (p.keyFloats + p.each)
}

// Attention is compute.Attention for len(docStart) tokens; lse may be nil; key is read when a.Drop > 0. Document starts out of range are a
// *compute.RangeError.
//
// Where there are enough sequences and key heads to keep the threads busy each of them is one piece of work; otherwise they
// follow each other and the threads share their blocks of queries. The bits are the same.
func (k Kernels) Attention(y, lse, qkv []float32, docStart []int32, key [2]int32, a compute.Attr, work []float32) error {
	if err := compute.CheckDocStart(docStart, a.Seq); err != nil {
		return err
	}
	p := newAttentionPlan(a)
	heads := len(docStart) / a.Seq * a.KVHeads
	drop := dropout{key, a.Salt, a.Drop}
	threads := k.Threads()
	scratches := work[threads*p.keyFloats:]
	pack := func(keys []float32, item, block int) {
		sequence, g := item/a.KVHeads, item%a.KVHeads
		first, n := block*keyBlock, min(keyBlock, a.Seq-block*keyBlock)
		ks, vs := p.keysValues(qkv[(sequence*a.Seq+first)*p.width:(sequence*a.Seq+first+n)*p.width], g)
		p.put(wordsOf(keys)[block*p.layout.words():][:p.layout.words()], 0, n, ks, vs, p.width)
	}
	attend := func(keys, memory []float32, item, block int) {
		sequence, g := item/a.KVHeads, item%a.KVHeads
		first := sequence * a.Seq
		q := &queries{
			q: qkv[first*p.width:], qStride: p.width, y: y[first*a.Heads*a.HeadDim:], yStride: a.Heads * a.HeadDim,
			t0: block * p.tokens, t1: min(a.Seq, (block+1)*p.tokens), h0: g * p.group, h1: (g + 1) * p.group, docStart: docStart[first:],
		}
		if lse != nil {
			q.lse, q.lseStride = lse[first*a.Heads:], a.Heads
		}
		w := newScratch(memory, p.layout, p.tokens*p.group, float32(a.Scale))
		w.drop, w.element = drop, func(t, h int) uint64 { return p.element(sequence, t, h) }
		w.load(q)
		from, to := q.keys()
		for j := from / keyBlock; j*keyBlock < to; j++ {
			w.block(q, wordsOf(keys)[j*p.layout.words():][:p.layout.words()], j)
			w.merge(w.rows, w.largest, w.sum, w.part, w.ldo)
		}
		w.store(q)
	}
	blocks := (a.Seq + p.tokens - 1) / p.tokens
	if heads >= 2*threads || threads == 1 {
		k.pool.RunWorker(heads, func(worker, i int) {
			keys, memory := work[worker*p.keyFloats:][:p.keyFloats], scratches[worker*p.each:][:p.each]
			for j := range p.blocks {
				pack(keys, i, j)
			}
			for b := range blocks {
				attend(keys, memory, i, b)
			}
		})
		return nil
	}
	for i0 := 0; i0 < heads; i0 += threads {
		n := min(threads, heads-i0)
		k.pool.Run(n*p.blocks, func(i int) { pack(work[i%n*p.keyFloats:][:p.keyFloats], i0+i%n, i/n) })
		k.pool.RunWorker(n*blocks, func(worker, i int) {
			// Late blocks see the most keys: they go first.
			attend(work[i%n*p.keyFloats:][:p.keyFloats], scratches[worker*p.each:][:p.each], i0+i%n, blocks-1-i/n)
		})
	}
	return nil
}
