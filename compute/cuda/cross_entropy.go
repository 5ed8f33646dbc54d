package cuda

import (
	"autodev/compute"
	"autodev/compute/cuda/cublaslt"
	"autodev/compute/cudaplan"
)

// head is the model's last product and what is scored: x [n,width] and w [rows,width] as the call's Store, targets [n] int32. Rows of
// w from vocab on are not scored. work holds the logits of cudaplan.LogitRows tokens at a time, then n float32.
type head struct {
	x, w, targets, work   Ptr
	n, width, rows, vocab int
}

// logits says where a piece of the tokens' logits lie.
type logits struct {
	at              Ptr
	first, n        int // tokens
	stride, columns int // elements between rows; columns that are products
}

// pieces returns the pieces of the tokens and the end of the logits.
func (h head) pieces(s Store) (all []logits, end Ptr) {
	stride := cudaplan.LogitStride(h.vocab, s.dtype())
	columns := min(stride, h.rows) // a multiple of a vector where w has rows enough; what is behind vocab is masked
	for first := 0; first < h.n; first += cudaplan.LogitRows {
		all = append(all, logits{h.work, first, min(cudaplan.LogitRows, h.n-first), stride, columns})
	}
	return all, h.work + Ptr(min(h.n, cudaplan.LogitRows)*stride*s.Size())
}

// product prepares the logits of a piece.
func (h head) product(q *Queue, l logits, s Store) (*Matmul, error) {
	x := h.x + Ptr(l.first*h.width*s.Size())
	return q.PrepareMatmul(cublaslt.Product{
		M: l.n, N: l.columns, K: h.width, TransB: true, In: s.blas(), Out: s.blas(), StrideD: l.stride, Alignment: alignment(h.width*s.Size(), x),
	}, cublaslt.Operands{A: x, B: h.w, C: l.at, D: l.at, Alpha: 1})
}

// blas is the store as cuBLASLt names it, dtype as plans do.
func (s Store) blas() cublaslt.Type {
	return map[Store]cublaslt.Type{F32: cublaslt.F32, BF16: cublaslt.BF16, F16: cublaslt.F16}[s]
}

func (s Store) dtype() compute.DType {
	return map[Store]compute.DType{F32: compute.F32, BF16: compute.BF16, F16: compute.F16}[s]
}

// alignment returns the largest power of two up to 16 that divides rows of the given bytes and addresses.
func alignment(bytes int, p ...Ptr) int {
	a := Ptr(bytes) | 16
	for _, p := range p {
		a |= p
	}
	return int(a & -a)
}

// softMaxThreads is a thread for each vector of a row, up to a whole block.
func softMaxThreads(vocab int, s Store) int {
	warps := (vocab/s.vector() + 31) / 32
	return 32 * max(1, min(32, warps))
}

// crossEntropy prepares loss [1] float32 = scale·Σ nll, dx [n,width] = its gradient, as s, and dw [rows,width] float32 += that of the head,
// unless dw is 0. scale is [1] float32.
func crossEntropy(q *Queue, loss, dx, dw Ptr, h head, scale Ptr, s Store) (Sequence, error) {
	if err := positive("cross-entropy", h.n, h.width, h.rows, h.vocab, h.rows-h.vocab+1); err != nil {
		return nil, err
	}
	pieces, nll := h.pieces(s)
	var seq Sequence
	for _, l := range pieces {
		offset := Ptr(l.first * h.width * s.Size())
		product, err := h.product(q, l, s)
		if err != nil {
			return nil, err
		}
		gradient, err := q.Prepare("cross_entropy_"+s.String(), Grid{Blocks: Dim{l.n}, Threads: Dim{softMaxThreads(h.vocab, s)}},
			l.at, nll+Ptr(4*l.first), h.targets+Ptr(4*l.first), scale, h.vocab, l.stride)
		if err != nil {
			return nil, err
		}
		toX, err := q.PrepareMatmul(cublaslt.Product{
			M: l.n, N: h.width, K: l.columns, In: s.blas(), Out: s.blas(), StrideA: l.stride, Alignment: alignment(h.width*s.Size(), dx+offset),
		}, cublaslt.Operands{A: l.at, B: h.w, C: dx + offset, D: dx + offset, Alpha: 1})
		if err != nil {
			return nil, err
		}
		seq = append(seq, product, gradient, toX)
		if dw == 0 {
			continue
		}
		toW, err := q.PrepareMatmul(cublaslt.Product{
			M: l.columns, N: h.width, K: l.n, TransA: true, In: s.blas(), Out: cublaslt.F32, StrideA: l.stride, Alignment: alignment(h.width*s.Size(), h.x+offset),
		}, cublaslt.Operands{A: l.at, B: h.x + offset, C: dw, D: dw, Alpha: 1, Beta: 1})
		if err != nil {
			return nil, err
		}
		seq = append(seq, toW)
	}
	sum, err := q.Prepare("cross_entropy_loss_f32", Grid{Blocks: Dim{1}, Threads: Dim{1024}}, loss, nll, scale, int64(h.n))
	if err != nil {
		return nil, err
	}
	return append(seq, sum), nil
}

// tokenNLL prepares nll [n] float32 = −log of the targets' probabilities, 0 where a target is negative.
func tokenNLL(q *Queue, nll Ptr, h head, s Store) (Sequence, error) {
	if err := positive("token likelihoods", h.n, h.width, h.rows, h.vocab, h.rows-h.vocab+1); err != nil {
		return nil, err
	}
	pieces, _ := h.pieces(s)
	var seq Sequence
	for _, l := range pieces {
		product, err := h.product(q, l, s)
		if err != nil {
			return nil, err
		}
		score, err := q.Prepare("token_nll_"+s.String(), Grid{Blocks: Dim{l.n}, Threads: Dim{softMaxThreads(h.vocab, s)}},
			nll+Ptr(4*l.first), l.at, h.targets+Ptr(4*l.first), h.vocab, l.stride)
		if err != nil {
			return nil, err
		}
		seq = append(seq, product, score)
	}
	return seq, nil
}
