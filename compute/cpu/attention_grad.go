package cpu

import (
	"autodev/compute"
	"autodev/compute/cpu/attend"
	"autodev/compute/cpu/vec"
)

// The gradient takes a block of query rows of one key head's heads at a time. Scores and their gradients are computed again for
// the rows and all keys they see; five products then give the gradients. With e the exponentials of a row against its largest,
// s their sum, M the dropout factors, dY the output's gradient and q the query:
//
//	dP = (dY·Vᵀ)∘M    mean = Σ e∘dP / s    dS = e∘(dP − mean)
//	dV += (e∘M)ᵀ·(dY/s)    dK += dSᵀ·(scale/s·q)    dq = scale/s·dS·K
//
// so that e and dS are never scaled as matrices.

// gradRows and gradTokens bound a block of the gradient; gradScores bounds its scores in elements, for sequences of thousands.
const (
	gradRows   = 128
	gradTokens = 64
	gradScores = 1 << 17
)

// maxSlots bounds the parts that the query heads of one key head are cut into for the gradient. Each part sums its own key and
// value gradients; the parts are then added in order. The bits depend on it. Where there are enough sequences and key heads to
// keep the threads busy the parts of each follow each other; otherwise they are pieces of work of their own.
const maxSlots = 8

// gradPlan says how AttentionGrad uses its scratch: the workers' memory, then the parts' gradients.
type gradPlan struct {
	packed
	layout
	slots, heads  int  // parts of a key head's query heads, and the most heads of one
	tokens        int  // of a block
	span          int  // tokens of a sequence, in whole panels
	apart         bool // parts are pieces of work of their own
	each          int  // elements of one worker's scratch
	partial, size int  // where the key and value gradients of parts that are apart start, and elements of one: [span, 2·columns]
	total         int
}

func (k Kernels) newGradPlan(n int, a compute.Attr) gradPlan {
	p := gradPlan{packed: packedLayout(a), layout: layout{operandFormat(a), a.HeadDim}}
	p.slots = min(p.group, maxSlots)
	p.heads = (p.group + p.slots - 1) / p.slots
	p.span = roundUp(a.Seq, attend.Panel)
	p.tokens = max(1, min(gradTokens, min(gradRows, max(16, gradScores/p.span))/p.heads))
	p.size = p.span * 2 * p.columns()
	p.apart = p.slots > 1 && n/a.Seq*a.KVHeads < 2*k.Threads()
	var w gradScratch
	p.each = w.cut(nil, &p)
	p.partial = k.Threads() * p.each
	p.total = p.partial
	if p.apart {
		p.total += n / a.Seq * a.KVHeads * p.slots * p.size
	}
	return p
}

// AttentionGradWork returns the scratch of AttentionGrad for n tokens.
func (k Kernels) AttentionGradWork(n int, a compute.Attr) int { return k.newGradPlan(n, a).total }

// AttentionGrad is compute.AttentionGrad for len(docStart) tokens; key is read when a.Drop > 0. Document starts out of range
// are a *compute.RangeError.
func (k Kernels) AttentionGrad(dqkv, dy, qkv []float32, docStart []int32, key [2]int32, a compute.Attr, work []float32) error {
	if err := compute.CheckDocStart(docStart, a.Seq); err != nil {
		return err
	}
	p := k.newGradPlan(len(docStart), a)
	sequences := len(docStart) / a.Seq
	drop := dropout{key, a.Salt, a.Drop}
	pieces := 1 // of a key head of a sequence
	if p.apart {
		pieces = p.slots
	}
	k.pool.RunWorker(sequences*a.KVHeads*pieces, func(worker, i int) {
		piece, g, sequence := i%pieces, i/pieces%a.KVHeads, i/pieces/a.KVHeads
		first := sequence * a.Seq
		w := &gradScratch{scale: float32(a.Scale), before: 1, after: 1, drop: drop, element: func(t, h int) uint64 { return p.element(sequence, t, h) }}
		if p.format == CacheF32 || powerOfTwo(w.scale) {
			w.before = w.scale
		} else {
			w.after = w.scale
		}
		w.cut(work[worker*p.each:][:p.each], &p)
		ks, vs := p.keysValues(qkv[first*p.width:(first+a.Seq)*p.width], g)
		w.pack(&p, ks, vs)
		part := func(slot int) {
			clear(w.grads)
			for t := 0; t < a.Seq; t += p.tokens {
				w.backward(&p, &queries{
					q: qkv[first*p.width:], qStride: p.width, y: dy[first*a.Heads*a.HeadDim:], yStride: a.Heads * a.HeadDim,
					t0: t, t1: min(a.Seq, t+p.tokens), docStart: docStart[first:],
					h0: g*p.group + slot*p.group/p.slots, h1: g*p.group + (slot+1)*p.group/p.slots,
				}, dqkv[first*p.width:])
			}
		}
		if p.apart {
			w.grads = work[p.partial+i*p.size:][:p.size]
			part(piece)
			return
		}
		sum := w.grads
		part(0)
		w.grads = w.more
		for slot := 1; slot < p.slots; slot++ {
			part(slot)
			vec.Add(sum, sum, w.grads)
		}
		dk, dv := p.keysValues(dqkv[first*p.width:(first+a.Seq)*p.width], g)
		for t := range a.Seq {
			row := sum[t*2*p.columns():]
			copy(dk[t*p.width:][:a.HeadDim], row)
			copy(dv[t*p.width:][:a.HeadDim], row[p.columns():])
		}
	})
	if p.apart {
		k.sumSlots(dqkv, work[p.partial:], sequences, &p)
	}
	return nil
}

// sumSlots sets the key and value columns of dqkv to the sums of the parts, in order.
func (k Kernels) sumSlots(dqkv, parts []float32, sequences int, p *gradPlan) {
	d, row := p.a.HeadDim, 2*p.columns()
	k.rows(sequences*p.a.Seq, p.a.KVHeads*row*p.slots, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			sequence, t := i/p.a.Seq, i%p.a.Seq
			for g := range p.a.KVHeads {
				part := func(slot int) []float32 {
					return parts[((sequence*p.a.KVHeads+g)*p.slots+slot)*p.size+t*row:][:row]
				}
				sum := part(0)
				for slot := 1; slot < p.slots; slot++ {
					vec.Add(sum, sum, part(slot))
				}
				dk, dv := p.keysValues(dqkv[i*p.width:(i+1)*p.width], g)
				copy(dk[:d], sum)
				copy(dv[:d], sum[p.columns():])
			}
		}
	})
}

// gradScratch is one worker's memory: the operands of a key head of one sequence, the gradients of its keys and values, and a
// block of query rows.
type gradScratch struct {
	scale   float32
	before  float32 // the part of scale that the queries are multiplied with before their product
	after   float32 // the part that scores are multiplied with
	drop    dropout
	element func(t, h int) uint64

	keysDown, valuesDown []uint32  // panels of 32 tokens: right operands of q·Kᵀ and dY·Vᵀ
	keys                 []uint32  // panels of 32 dimensions: right operand of dS·K
	grads, more          []float32 // [span, 2·columns]: gradients of the keys, then of the values, of one part

	ldq, lds              int
	q, dy                 []uint32  // [rows, ldq] left operands
	e, ds                 []float32 // [rows, lds]
	eDown, dsDown, dsRows []uint32  // bfloat16: left operands made of them
	qDown, dyDown         []uint32  // panels of 32 dimensions, scaled: right operands
	row, rowUpper         []float32 // [columns]
	out                   []float32 // [rows, columns]
	inverse               []float32 // [rows] 1/s
	keep                  []float32 // [span+4]
}

// cut shares out memory, unless it is nil, and returns how much of it is used.
func (w *gradScratch) cut(memory []float32, p *gradPlan) int {
	rows := roundUp(p.tokens*p.heads, 2)
	w.ldq, w.lds = roundUp(p.inner(), 16), stride(p.span)
	m := shares{memory: memory}
	floats := m.floats
	words := func(n int) []uint32 { return wordsOf(floats(n)) }
	w.keysDown, w.valuesDown = words(p.span*p.inner()), words(p.span*p.inner())
	w.keys = words(p.span * p.columns() / p.perWord())
	if !p.apart {
		w.grads = floats(p.size)
		if p.slots > 1 {
			w.more = floats(p.size)
		}
	}
	w.q, w.dy = words(rows*w.ldq), words(rows*w.ldq)
	w.e, w.ds = floats(rows*w.lds), floats(rows*w.lds)
	if p.format != CacheF32 {
		w.eDown, w.dsDown, w.dsRows = words(rows/2*w.lds), words(rows/2*w.lds), words(rows*(w.lds/2))
	}
	w.qDown, w.dyDown = words(rows*p.columns()/p.perWord()), words(rows*p.columns()/p.perWord())
	w.row, w.rowUpper, w.out = floats(p.columns()), floats(p.columns()), floats(rows*p.columns())
	w.inverse, w.keep = floats(rows), floats(p.span+4)
	return m.used
}

// pack brings the keys and values of a sequence, rows of p.width, into the operands.
func (w *gradScratch) pack(p *gradPlan, k, v []float32) {
	for t := 0; t < p.a.Seq; t += attend.Panel {
		n := min(attend.Panel, p.a.Seq-t)
		packKeys(p.layout, w.keysDown[t*p.inner():], k[t*p.width:], p.width, n)
		packKeys(p.layout, w.valuesDown[t*p.inner():], v[t*p.width:], p.width, n)
	}
	packValues(p.layout, w.keys, p.span, 0, k, p.width, p.a.Seq)
}

func (w *gradScratch) product(p *gradPlan, m attend.Product, c []float32, a, b []uint32) {
	if p.format == CacheF32 {
		m.Floats(c, attend.Floats(a), attend.Floats(b))
	} else {
		m.Pairs(c, a, b)
	}
}

// backward computes the gradient of the block's queries into dq (laid out as b.q) and adds the block's share of the gradients
// of keys and values to w.grads. b.y is the gradient of the block's output.
func (w *gradScratch) backward(p *gradPlan, b *queries, dq []float32) {
	lo, hi := b.keys()
	left, right := lo/attend.Panel*attend.Panel, roundUp(hi, attend.Panel)
	rows, heads, cols := b.rows(), b.h1-b.h0, right-left
	for r := range rows {
		t, h := b.token(r)
		q, dy := b.q[(t-b.base)*b.qStride+h*p.dim:][:p.dim], b.y[(t-b.base)*b.yStride+h*p.dim:][:p.dim]
		if p.format == CacheF32 {
			vec.Scale(attend.Floats(w.q[r*w.ldq:][:p.dim]), q, w.before)
			copy(w.dy[r*w.ldq:][:p.dim], wordsOf(dy))
		} else {
			vec.Scale(w.row[:p.dim], q, w.before)
			attend.Round(w.q[r*w.ldq:][:p.inner()], w.row[:p.dim])
			attend.Round(w.dy[r*w.ldq:][:p.inner()], dy)
		}
	}
	// Scores and the probabilities' gradients, as far as each group of rows sees.
	for r := 0; r < rows; r += scoreRows {
		n := min(scoreRows, rows-r)
		last, _ := b.token(r + n - 1)
		m := attend.Product{Rows: n, Cols: roundUp(last+1, attend.Panel) - left, K: p.inner(), LDA: w.ldq, LDB: p.inner() * attend.Panel, LDC: w.lds}
		w.product(p, m, w.e[r*w.lds:], w.q[r*w.ldq:], w.keysDown[left*p.inner():])
		w.product(p, m, w.ds[r*w.lds:], w.dy[r*w.ldq:], w.valuesDown[left*p.inner():])
	}
	for r := range rows {
		t, h := b.token(r)
		from, to := b.start(t)-left, t+1-left
		row, grad := w.e[r*w.lds:][:cols], w.ds[r*w.lds:][:cols]
		for _, x := range [][]float32{row, grad} {
			clear(x[:from])
			clear(x[to:])
		}
		row, grad = row[from:to], grad[from:to]
		if w.after != 1 {
			vec.Scale(row, row, w.after)
		}
		w.inverse[r] = 1 / vec.ExpSum(row, vec.Max(row))
		var keep []float32
		if w.drop.p > 0 {
			keep = w.keep[:to-from]
			keepMask(keep, w.drop.key, w.drop.salt, w.drop.p, w.element(t, h)+uint64(left+from))
			vec.Mul(grad, grad, keep)
		}
		vec.SoftmaxGrad(grad, row, grad, vec.Dot(row, grad)*w.inverse[r])
		if keep != nil {
			vec.Mul(row, row, keep)
		}
	}
	w.downOperands(p, b, rows, cols)

	// Gradients of values and keys: rows of tokens before a key are zeros, which the products pass over in the last panels.
	inner := (rows + p.perWord() - 1) / p.perWord()
	e, ds := wordsOf(w.e), wordsOf(w.ds)
	if p.format != CacheF32 {
		e, ds = w.eDown, w.dsDown
	}
	for key := left; key < right; {
		n, skip := attend.Panel, max(0, key-b.t0)*heads/p.perWord()
		if skip == 0 {
			n = max(n, min(right, b.t0/attend.Panel*attend.Panel)-key)
		}
		m := attend.Product{Rows: n, Cols: p.columns(), K: inner - skip, LDA: w.lds, LDB: inner * attend.Panel, LDC: 2 * p.columns(), Add: true, Down: true}
		to := w.grads[key*2*p.columns():]
		w.product(p, m, to[p.columns():], e[skip*w.lds+key-left:], w.dyDown[skip*attend.Panel:])
		w.product(p, m, to, ds[skip*w.lds+key-left:], w.qDown[skip*attend.Panel:])
		key += n
	}

	// Gradient of the queries.
	a, lda := ds, w.lds
	if p.format != CacheF32 {
		a, lda = w.dsRows, w.lds/2
	}
	for r := 0; r < rows; r += scoreRows {
		n := min(scoreRows, rows-r)
		last, _ := b.token(r + n - 1)
		w.product(p, attend.Product{
			Rows: n, Cols: p.columns(), K: (last + 1 - left + p.perWord() - 1) / p.perWord(), LDA: lda, LDB: p.span / p.perWord() * attend.Panel, LDC: p.columns(),
		}, w.out[r*p.columns():], a[r*lda:], w.keys[left/p.perWord()*attend.Panel:])
	}
	for r := range rows {
		t, h := b.token(r)
		vec.Scale(dq[(t-b.base)*b.qStride+h*p.dim:][:p.dim], w.out[r*p.columns():][:p.dim], w.scale*w.inverse[r])
	}
}

// downOperands makes the operands of the products over query rows: e and dS as pairs of rows, and queries and output gradients
// in panels, scaled.
func (w *gradScratch) downOperands(p *gradPlan, b *queries, rows, cols int) {
	inner := (rows + p.perWord() - 1) / p.perWord()
	scaled := func(dst []float32, r int, query bool) {
		t, h := b.token(r)
		if query {
			vec.Scale(dst[:p.dim], b.q[(t-b.base)*b.qStride+h*p.dim:][:p.dim], w.scale*w.inverse[r])
		} else {
			vec.Scale(dst[:p.dim], b.y[(t-b.base)*b.yStride+h*p.dim:][:p.dim], w.inverse[r])
		}
	}
	for i := range 2 {
		panels := [][]uint32{w.qDown, w.dyDown}[i]
		for r := 0; r < rows; r += p.perWord() {
			scaled(w.row, r, i == 0)
			if p.format != CacheF32 {
				if r+1 < rows {
					scaled(w.rowUpper, r+1, i == 0)
				} else {
					clear(w.rowUpper)
				}
			}
			for c := 0; c < p.dim; c += attend.Panel {
				n, at := min(attend.Panel, p.dim-c), c*inner+r/p.perWord()*attend.Panel
				if p.format == CacheF32 {
					copy(panels[at:][:n], wordsOf(w.row[c:]))
				} else {
					attend.Interleave(panels[at:][:n], w.row[c:][:n], w.rowUpper[c:][:n])
				}
			}
		}
	}
	if p.format == CacheF32 {
		return
	}
	if rows%2 == 1 {
		clear(w.e[rows*w.lds:][:cols])
		clear(w.ds[rows*w.lds:][:cols])
	}
	for r := 0; r < rows; r += 2 {
		attend.Interleave(w.eDown[r/2*w.lds:][:cols], w.e[r*w.lds:][:cols], w.e[(r+1)*w.lds:][:cols])
		attend.Interleave(w.dsDown[r/2*w.lds:][:cols], w.ds[r*w.lds:][:cols], w.ds[(r+1)*w.lds:][:cols])
	}
	for r := range rows {
		attend.Round(w.dsRows[r*(w.lds/2):][:cols/2], w.ds[r*w.lds:][:cols])
	}
}
