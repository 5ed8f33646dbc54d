package cuda

import (
	"autodev/compute"
	"autodev/compute/cuda/cublaslt"
	"autodev/compute/cudaplan"
)

// Inference prepares the operations that models are run with, on activations and vectors in one Store. Matrices are
// row-major, weights [out,in]. What is prepared reads its operands when it is enqueued.
//
// The bits of a row depend on the row, what it attends to and the kernels alone. Which kernels those are, and so how it is rounded, depends on the
// number of rows of an operation: up to FewRows of them (decoding, with or without guessed tokens) get the same.
type Inference struct {
	q *Queue
	s Store

	wide      Ptr // see Widening
	wideBytes int64
}

// FewRows is up to how many rows an operation's bits do not depend on their number.
const FewRows = mostGEMV

// Inference returns the operations on a Store.
func (q *Queue) Inference(s Store) Inference { return Inference{q: q, s: s} }

// CallByCall reports whether the device's options ask for launches one by one, waiting for each, instead of graphs.
func (q *Queue) CallByCall() bool { return q.d.options.CallByCall }

// Embed prepares y [n,width] = table[ids] + places[positions], of tables of rows and placeRows; ids and positions [n] int32. A table of codes has 8 bits.
func (k Inference) Embed(y Ptr, table Weight, places, ids, positions Ptr, n, rows, placeRows, width int) (Sequence, error) {
	if table.Bits != 0 {
		return sequence(embedQuant(k.q, y, table.quantised(width, rows), places, ids, positions, n, placeRows, k.s))
	}
	return sequence(embed(k.q, y, table.At, places, ids, positions, n, rows, placeRows, width, k.s))
}

// LayerNorm prepares y [rows,width] of x; y may be x.
func (k Inference) LayerNorm(y, x, gain, bias Ptr, rows, width int, epsilon float64) (Sequence, error) {
	return sequence(layerNorm(k.q, y, x, gain, bias, rows, width, float32(epsilon), k.s))
}

// Activation prepares y [n] = act(x); y may be x.
func (k Inference) Activation(y, x Ptr, n int, act compute.Act) (Sequence, error) {
	return sequence(activation(k.q, y, x, int64(n), act, k.s))
}

// Add prepares y [n] = a + b; y may be either.
func (k Inference) Add(y, a, b Ptr, n int) (Sequence, error) {
	return sequence(add(k.q, y, a, b, int64(n), k.s))
}

// Norm is a layer norm of what a product reads: Gain and Shift [In]. Scratch [N,In] may be written. Without Gain there is none.
type Norm struct {
	Gain, Shift, Scratch Ptr
	Epsilon              float64
}

// Product is Y [N,Out] = act(norm(X)·Wᵀ + Bias) + Base: X [N,In], W [Out,In], Bias [Out] and Base [N,Out], which may be Y. Bias and Base may
// be 0. Without Activate there is no act; with it no Base.
type Product struct {
	Norm
	Y, X       Ptr
	W          Weight
	Bias, Base Ptr
	N, In, Out int
	Activate   bool
	Act        compute.Act
}

// Linear prepares p.
func (k Inference) Linear(p Product) (Sequence, error) {
	gelu := p.Activate && p.Act == compute.GELUTanh
	seq, err := k.norm(&p)
	if err != nil {
		return nil, err
	}
	if p.N <= FewRows {
		product, failed := k.few(p, gelu, k.s)
		seq, err = append(seq, product), failed
	} else {
		c := cublaslt.Product{M: p.N, K: p.In, TransB: true, In: k.s.blas(), Out: k.s.blas(), StrideD: p.Out}
		plain, fused := cublaslt.None, cublaslt.GELU
		if p.Bias != 0 {
			plain, fused = cublaslt.Bias, cublaslt.BiasGELU
		}
		c.Epilogue = plain
		if gelu {
			c.Epilogue = fused
		}
		many, failed := k.many(c, p, k.s)
		if gelu && cublaslt.Unsupported(failed) {
			c.Epilogue, gelu = plain, false
			many, failed = k.many(c, p, k.s)
		}
		seq, err = append(seq, many...), failed
	}
	if err != nil {
		return nil, err
	}
	if p.Activate && !gelu {
		act, err := activation(k.q, p.Y, p.Y, int64(p.N*p.Out), p.Act, k.s)
		if err != nil {
			return nil, err
		}
		seq = append(seq, act)
	}
	return seq, nil
}

// norm takes p's norm out unless the product has it in itself, and prepares it.
func (k Inference) norm(p *Product) (Sequence, error) {
	if p.Gain == 0 || p.N <= FewRows && k.q.norms(p.In, k.s) {
		return nil, nil
	}
	seq, err := k.LayerNorm(p.Scratch, p.X, p.Gain, p.Shift, p.N, p.In, p.Epsilon)
	p.X, p.Norm = p.Scratch, Norm{}
	return seq, err
}

// few prepares p for at most FewRows rows; Y and Base are as `to`.
func (k Inference) few(p Product, gelu bool, to Store) (*Launch, error) {
	norm := normed{p.Gain, p.Shift, float32(p.Epsilon)}
	if p.W.Bits != 0 {
		return gemvQuant(k.q, p.Y, p.X, p.W.quantised(p.In, p.Out), p.Bias, p.Base, norm, p.N, gelu, k.s, to)
	}
	return gemv(k.q, p.Y, p.X, p.W.At, p.Bias, p.Base, norm, p.N, p.In, p.Out, gelu, k.s, to)
}

// many prepares the product c, whose outputs p.Y and p.Base have in rows of c.StrideD as `to`: as one, or with weights of codes as one for each part of
// the outputs, whose weights are widened before.
func (k Inference) many(c cublaslt.Product, p Product, to Store) (seq Sequence, err error) {
	each := p.Out
	if p.W.Bits != 0 {
		if each, err = k.part(p.In, p.Out); err != nil {
			return nil, err
		}
	}
	past := func(at Ptr, first int, s Store) Ptr {
		if at == 0 {
			return 0
		}
		return at + Ptr(first*s.Size())
	}
	for first := 0; first < p.Out; first += each {
		c.N = min(each, p.Out-first)
		w := p.W.At
		if p.W.Bits != 0 {
			widen, err := widenQuant(k.q, k.wide, p.W.quantised(p.In, p.Out).panels(first, c.N), k.s)
			if err != nil {
				return nil, err
			}
			seq, w = append(seq, widen), k.wide
		}
		product, err := k.q.PrepareMatmul(c, cublaslt.Operands{A: p.X, B: w, C: past(p.Base, first, to), D: past(p.Y, first, to), Bias: past(p.Bias, first, k.s), Alpha: 1, Beta: present(p.Base)})
		if err != nil {
			return nil, err
		}
		seq = append(seq, product)
	}
	return seq, nil
}

// Logits prepares y [n,rows] float32 = norm(x)·wᵀ: x [n,width], w [rows,width], of 8 bits if of codes.
func (k Inference) Logits(y, x Ptr, norm Norm, w Weight, n, width, rows int) (Sequence, error) {
	p := Product{Norm: norm, Y: y, X: x, W: w, N: n, In: width, Out: rows}
	seq, err := k.norm(&p)
	if err != nil {
		return nil, err
	}
	if n <= FewRows {
		product, err := k.few(p, false, F32)
		return append(seq, product), err
	}
	product, err := k.logits(y, p.X, w, n, width, rows, rows)
	return append(seq, product...), err
}

// logits prepares y [n,stride] float32, of which the first `rows` columns are products.
func (k Inference) logits(y, x Ptr, w Weight, n, width, rows, stride int) (Sequence, error) {
	return k.many(cublaslt.Product{
		M: n, K: width, TransB: true, In: k.s.blas(), Out: cublaslt.F32, StrideD: stride, Alignment: alignment(width*k.s.Size(), x),
	}, Product{Y: y, X: x, W: w, N: n, In: width, Out: rows}, F32)
}

// NLLWork returns the scratch in bytes of NLL for n tokens.
func NLLWork(n, vocab int) int64 {
	return 4 * int64(n) * int64(cudaplan.LogitStride(vocab, compute.F32))
}

// NLL prepares nll [n] float32 = −ln p(targets), 0 where a target is negative, of the soft-max over the first vocab rows of x·wᵀ, which is float32:
// x [n,width], w [vocab or more,width], targets [n] int32, work of NLLWork.
func (k Inference) NLL(nll, x Ptr, w Weight, targets, work Ptr, n, width, vocab int) (Sequence, error) {
	stride := cudaplan.LogitStride(vocab, compute.F32)
	seq, err := k.logits(work, x, w, n, width, vocab, stride)
	if err != nil {
		return nil, err
	}
	score, err := k.q.Prepare("token_nll_f32", Grid{Blocks: Dim{n}, Threads: Dim{softMaxThreads(vocab, F32)}}, nll, work, targets, vocab, stride)
	if err != nil {
		return nil, err
	}
	return append(seq, score), nil
}

// Attention prepares causal attention of n tokens, whole sequences one after the other: y [n,H·D] of qkv [n,(H+2·KV)·D]. starts [n] int32 are the first
// rows of the rows' sequences.
func (k Inference) Attention(y, qkv, starts Ptr, n int, a compute.Attr) (Sequence, error) {
	a.Seq = n
	return sequence(attention(k.q, y, 0, qkv, starts, 0, n, a, k.s))
}

// PageTokens is how many tokens' keys and values a page has.
const PageTokens = cachePage

// Paged is attention of Rows new tokens of any number of sequences over keys and values in at most Pages pages each, which those of the new tokens are
// put into. Heads, KVHeads, HeadDim and Scale of Attr are read.
type Paged struct {
	compute.Attr
	Rows, Tiles, Pages int
}

// PagedOperands say where a layer's pages are, [sequences,Pages] int32 in Table which of them each sequence has, [Rows] int32 in Sequences which row
// of it a new token's is, negative for a row that is none, and in Positions the token's place in its sequence. Tiles [Tiles,2] int32 are
// runs of rows of one sequence, first row and number, at most TileRows; the number may be 0. Starts [Rows] int32, unless it is 0, are the first rows
// of the rows' sequences: Attend puts the rows into their pages then. Work has WorkBytes, Counts CountBytes of zeros, which stay zeros.
type PagedOperands struct{ Cache, Table, Sequences, Positions, Tiles, Starts, Work, Counts Ptr }

func (k Inference) paged(p Paged, o PagedOperands) (cachedCall, cachedOperands) {
	c := p.call()
	c.store = k.s
	return c, cachedOperands{pages: o.Cache, table: o.Table, sequence: o.Sequences, position: o.Positions, tiles: o.Tiles, starts: o.Starts, work: o.Work, counts: o.Counts}
}

func (p Paged) call() cachedCall {
	return cachedCall{Attr: p.Attr, rows: p.Rows, tiles: p.Tiles, pages: p.Pages}
}

// PageBytes returns the size of a page of one layer.
func (p Paged) PageBytes(s Store) int64 {
	c := p.call()
	c.store = s
	return c.pageBytes()
}

// TileRows returns how many rows a tile has at most.
func (p Paged) TileRows() int { c := p.call(); return c.tileRows() }

// WorkBytes returns the scratch of Attend.
func (p Paged) WorkBytes() int64 { c := p.call(); return c.workBytes() }

// CountBytes returns the counters of Attend.
func (p Paged) CountBytes() int64 { c := p.call(); return c.countBytes() }

// Append prepares putting the keys and values of the new tokens' qkv into their pages.
func (k Inference) Append(qkv Ptr, p Paged, o PagedOperands) (Sequence, error) {
	c, operands := k.paged(p, o)
	return sequence(appendCache(k.q, qkv, c, operands))
}

// Attend prepares y [Rows,H·D], the attention of the new tokens, which have been put into their pages or, with Starts, are put there.
func (k Inference) Attend(y, qkv Ptr, p Paged, o PagedOperands) (Sequence, error) {
	c, operands := k.paged(p, o)
	return attendCached(k.q, y, qkv, c, operands)
}
