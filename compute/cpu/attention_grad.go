package cpu

import (
	"autodev/compute"
	"autodev/compute/cpu/gemm"
	"autodev/compute/cpu/vec"
)

// maxSlots bounds the parts that the query heads of one key head are cut into for the gradient. Each part is one piece of
// work and sums its own key and value gradients; the parts are then added in order.
const maxSlots = 8

// gradLayout says how AttentionGrad uses its scratch: the workers' memory, then the parts' gradients.
type gradLayout struct {
	packed
	slots, heads  int // parts of a key head's query heads, and the most heads of one
	tokens        int // of a block
	each          int // elements of one worker's scratch
	partial, size int // where the parts' key and value gradients start, and elements of one: [Seq, 2·HeadDim]
	total         int
}

func (k Kernels) gradLayout(n int, a compute.Attr) gradLayout {
	l := gradLayout{packed: packedLayout(a)}
	l.slots = min(l.group, maxSlots)
	l.heads = (l.group + l.slots - 1) / l.slots
	l.tokens = tokensPerBlock(l.heads, a.Seq)
	l.each = scratchFloats(l.tokens*l.heads, a.Seq, a.HeadDim, true)
	l.partial, l.size = k.Threads()*l.each, a.Seq*2*a.HeadDim
	l.total = l.partial
	if l.slots > 1 {
		l.total += n / a.Seq * a.KVHeads * l.slots * l.size
	}
	return l
}

// AttentionGradWork returns the scratch of AttentionGrad for n tokens.
func (k Kernels) AttentionGradWork(n int, a compute.Attr) int { return k.gradLayout(n, a).total }

// AttentionGrad is compute.AttentionGrad for len(docStart) tokens; key is read when a.Drop > 0. Document starts out of range
// are a *compute.RangeError.
func (k Kernels) AttentionGrad(dqkv, dy, qkv []float32, docStart []int32, key [2]int32, a compute.Attr, work []float32) error {
	if err := compute.CheckDocStart(docStart, a.Seq); err != nil {
		return err
	}
	l := k.gradLayout(len(docStart), a)
	d, sequences := a.HeadDim, len(docStart)/a.Seq
	drop := dropout{key, a.Salt, a.Drop}
	k.pool.RunWorker(sequences*a.KVHeads*l.slots, func(worker, i int) {
		slot, g, sequence := i%l.slots, i/l.slots%a.KVHeads, i/l.slots/a.KVHeads
		first := sequence * a.Seq
		grads := l.keysValues(dqkv[first*l.width:(first+a.Seq)*l.width], g)
		if l.slots > 1 {
			part := work[l.partial+i*l.size:][:l.size]
			grads = keysValues{k: part, v: part[d:], stride: 2 * d}
		}
		for u := range a.Seq {
			clear(grads.k[u*grads.stride:][:d])
			clear(grads.v[u*grads.stride:][:d])
		}
		w := newScratch(work[worker*l.each:], l.tokens*l.heads, a.Seq, d, true)
		kv := l.keysValues(qkv[first*l.width:(first+a.Seq)*l.width], g)
		for t := 0; t < a.Seq; t += l.tokens {
			b := &queries{
				q: qkv[first*l.width:], qStride: l.width, y: dy[first*a.Heads*d:], yStride: a.Heads * d,
				t0: t, t1: min(a.Seq, t+l.tokens), docStart: docStart[first:],
				h0: g*l.group + slot*l.group/l.slots, h1: g*l.group + (slot+1)*l.group/l.slots,
			}
			w.backward(b, dqkv[first*l.width:], kv, grads, d, float32(a.Scale), drop,
				func(t, h int) uint64 { return l.element(sequence, t, h) })
		}
	})
	if l.slots > 1 {
		k.sumSlots(dqkv, work[l.partial:], sequences, l)
	}
	return nil
}

// sumSlots sets the key and value columns of dqkv to the sums of the parts, in order.
func (k Kernels) sumSlots(dqkv, parts []float32, sequences int, l gradLayout) {
	d := l.a.HeadDim
	k.rows(sequences*l.a.Seq, 2*l.a.KVHeads*d*l.slots, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			sequence, t := i/l.a.Seq, i%l.a.Seq
			for g := range l.a.KVHeads {
				part := func(slot int) []float32 {
					return parts[((sequence*l.a.KVHeads+g)*l.slots+slot)*l.size+t*2*d:][:2*d]
				}
				grads := l.keysValues(dqkv[i*l.width:(i+1)*l.width], g)
				sum := part(0)
				for slot := 1; slot < l.slots; slot++ {
					vec.Add(sum, sum, part(slot))
				}
				copy(grads.k[:d], sum[:d])
				copy(grads.v[:d], sum[d:])
			}
		}
	})
}

// backward computes the gradient of the block's queries into dq (laid out as b.q) and adds the block's share of the gradients
// of keys and values to grads. b.y is the gradient of the block's output.
//
// With P the probabilities, M the dropout factors and dY the output's gradient: dV += (P∘M)ᵀ·dY; dP = (dY·Vᵀ)∘M;
// dS = P∘(dP − rowsum(P∘dP)); dQ = scale·dS·K; dK += dSᵀ·(scale·Q).
func (w *scratch) backward(b *queries, dq []float32, kv, grads keysValues, dim int, scale float32, drop dropout, element func(t, h int) uint64) {
	lo, hi := b.keys()
	rows, keys, ld := b.rows(), hi-lo, stride(hi-lo)
	for r := range rows {
		t, h := b.token(r)
		copy(w.dy[r*dim:][:dim], b.y[(t-b.base)*b.yStride+h*dim:][:dim])
	}
	dy := gemm.Dense(w.dy[:rows*dim], rows, dim)
	dp := gemm.Mat{Data: w.dp, Rows: rows, Cols: keys, Stride: ld}
	p := gemm.Mat{Data: w.s, Rows: rows, Cols: keys, Stride: ld}
	gemm.Mul(nil, dp, 1, dy, gemm.Mat{Data: kv.v[lo*kv.stride:], Rows: dim, Cols: keys, Stride: kv.stride, T: true}, gemm.Options{Work: w.gemm})
	w.scores(b, kv, dim, scale, func(row []float32, r, from, to int, inverse float32) {
		grad := w.dp[r*ld:][:keys]
		clear(grad[:from])
		clear(grad[to:])
		row, grad = row[from:to], grad[from:to]
		vec.Scale(row, row, inverse)
		if drop.p == 0 {
			vec.SoftmaxGrad(grad, row, grad, vec.Dot(row, grad))
			return
		}
		t, h := b.token(r)
		keep := w.keep[:to-from]
		keepMask(keep, drop.key, drop.salt, drop.p, element(t, h)+uint64(lo+from))
		vec.Mul(grad, grad, keep)
		vec.SoftmaxGrad(grad, row, grad, vec.Dot(row, grad))
		vec.Mul(row, row, keep)
	})
	into := func(m []float32) gemm.Mat {
		return gemm.Mat{Data: m[lo*grads.stride:], Rows: keys, Cols: dim, Stride: grads.stride}
	}
	add := gemm.Options{Accumulate: true, Work: w.gemm}
	gemm.Mul(nil, into(grads.v), 1, p.Transposed(), dy, add)
	gemm.Mul(nil, into(grads.k), 1, dp.Transposed(), gemm.Dense(w.q[:rows*dim], rows, dim), add)
	o := gemm.Dense(w.o[:rows*dim], rows, dim)
	products(lo, hi, func(from, to int, first bool) {
		ds := gemm.Mat{Data: w.dp[from-lo:], Rows: rows, Cols: to - from, Stride: ld}
		k := gemm.Mat{Data: kv.k[from*kv.stride:], Rows: to - from, Cols: dim, Stride: kv.stride}
		gemm.Mul(nil, o, scale, ds, k, gemm.Options{Accumulate: !first, Work: w.gemm})
	})
	for r := range rows {
		t, h := b.token(r)
		copy(dq[(t-b.base)*b.qStride+h*dim:][:dim], w.o[r*dim:][:dim])
	}
}
