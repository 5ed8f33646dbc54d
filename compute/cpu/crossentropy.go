package cpu

import (
	"math"

	"autodev/compute"
	"autodev/compute/cpu/gemm"
	"autodev/compute/cpu/vec"
)

// maxLogits bounds the logits that exist at a time, in elements (64 MiB), and minChunk and maxChunk the tokens: the head's
// weight and its gradient pass by once a chunk, so that few tokens would make the kernel wait for memory. More than 512 gain
// nothing: that is a whole block of package gemm's inner dimension in the weight's gradient.
const (
	maxLogits = 16 << 20
	minChunk  = 64
	maxChunk  = gemm.KC
)

// headLayout says how the head's kernels use their scratch.
type headLayout struct {
	chunk          int // scored tokens at a time
	ld             int // row stride of the logits
	logits, x      int // ends of the regions
	dx, nll, index int
	gemm, total    int
}

func layoutHead(n, width, vocab int, grad bool) headLayout {
	var l headLayout
	l.chunk = min(n, max(minChunk, min(maxChunk, maxLogits/vocab/16*16)))
	l.ld = stride(vocab)
	l.logits = l.chunk * l.ld
	l.x = l.logits + l.chunk*width
	l.dx = l.x
	products := gemm.WorkFloats(l.chunk, vocab, width)
	if grad {
		l.dx += l.chunk * width
		products = max(products, gemm.WorkFloats(l.chunk, width, vocab), gemm.WorkFloats(vocab, width, l.chunk))
	}
	l.nll = l.dx + n
	l.index = l.nll + n
	l.gemm = l.index
	l.total = l.gemm + products
	return l
}

// CrossEntropyWork returns the scratch of CrossEntropy for n tokens.
func CrossEntropyWork(n, width, vocab int) int { return layoutHead(n, width, vocab, true).total }

// CrossEntropy is compute.CrossEntropy for x [len(targets),width] and returns the loss; dw may be nil. Targets out of range
// are a *compute.RangeError.
func (k Kernels) CrossEntropy(dx, dw, x, w []float32, targets []int32, scale float32, width, vocab int, work []float32) (float32, error) {
	if err := compute.CheckTargets(targets, vocab); err != nil {
		return 0, err
	}
	l := layoutHead(len(targets), width, vocab, true)
	nll := work[l.dx:l.nll]
	clear(nll)
	for i, t := range targets {
		if t < 0 {
			clear(dx[i*width : (i+1)*width])
		}
	}
	k.chunks(x, w, targets, width, vocab, work, l, func(tokens []int32, rows gemm.Mat, logits gemm.Mat) {
		k.pool.Run(len(tokens), func(r int) {
			row, token := logits.Data[r*l.ld:][:vocab], tokens[r]
			target := targets[token]
			logit, largest := row[target], vec.Max(row)
			sum := expSum(row, largest)
			nll[token] = float32(math.Log(sum) + float64(largest) - float64(logit))
			vec.Scale(row, row, float32(float64(scale)/sum))
			row[target] -= scale
		})
		weight := gemm.Dense(w[:vocab*width], vocab, width)
		into := gemm.Dense(dx[int(tokens[0])*width:], len(tokens), width)
		gathered := !consecutive(tokens)
		if gathered {
			into.Data = work[l.x:l.dx]
		}
		gemm.Mul(k.pool, into, 1, logits, weight, gemm.Options{BF16: k.bf16, Work: work[l.gemm:l.total]})
		if gathered {
			for r, token := range tokens {
				copy(dx[int(token)*width:][:width], into.Data[r*width:])
			}
		}
		if dw != nil {
			gemm.Mul(k.pool, gemm.Dense(dw[:vocab*width], vocab, width), 1, logits.Transposed(), rows,
				gemm.Options{BF16: k.bf16, Accumulate: true, Work: work[l.gemm:l.total]})
		}
	})
	total := 0.0
	for _, v := range nll {
		total += float64(v)
	}
	return float32(float64(scale) * total), nil
}

// TokenNLLWork returns the scratch of TokenNLL for n tokens.
func TokenNLLWork(n, width, vocab int) int { return layoutHead(n, width, vocab, false).total }

// TokenNLL is compute.TokenNLL for x [len(targets),width]. Targets out of range are a *compute.RangeError.
func (k Kernels) TokenNLL(nll, x, w []float32, targets []int32, width, vocab int, work []float32) error {
	if err := compute.CheckTargets(targets, vocab); err != nil {
		return err
	}
	l := layoutHead(len(targets), width, vocab, false)
	clear(nll[:len(targets)])
	k.chunks(x, w, targets, width, vocab, work, l, func(tokens []int32, _, logits gemm.Mat) {
		k.pool.Run(len(tokens), func(r int) {
			row := logits.Data[r*l.ld:][:vocab]
			logit, largest := row[targets[tokens[r]]], vec.Max(row)
			nll[tokens[r]] = float32(math.Log(expSum(row, largest)) + float64(largest) - float64(logit))
		})
	})
	return nil
}

// chunks computes the logits of the scored tokens, a chunk at a time, and calls f with the chunk's tokens, their rows of x and
// their logits.
func (k Kernels) chunks(x, w []float32, targets []int32, width, vocab int, work []float32, l headLayout, f func(tokens []int32, rows, logits gemm.Mat)) {
	scored := view[int32](bytesOf(work[l.nll:l.index]))[:0]
	for i, t := range targets {
		if t >= 0 {
			scored = append(scored, int32(i))
		}
	}
	weight := gemm.Dense(w[:vocab*width], vocab, width).Transposed()
	for len(scored) > 0 {
		tokens := scored[:min(l.chunk, len(scored))]
		scored = scored[len(tokens):]
		rows := gemm.Dense(x[int(tokens[0])*width:], len(tokens), width)
		if !consecutive(tokens) {
			rows.Data = work[l.logits:l.x]
			for r, token := range tokens {
				copy(rows.Data[r*width:][:width], x[int(token)*width:])
			}
		}
		logits := gemm.Mat{Data: work[:l.logits], Rows: len(tokens), Cols: vocab, Stride: l.ld}
		gemm.Mul(k.pool, logits, 1, rows, weight, gemm.Options{BF16: k.bf16, Work: work[l.gemm:l.total]})
		f(tokens, rows, logits)
	}
}

// consecutive reports whether ascending tokens have no gap.
func consecutive(tokens []int32) bool {
	return int(tokens[len(tokens)-1]-tokens[0]) == len(tokens)-1
}

// expSum replaces row by e^(row − shift) and returns the sum, blocks of 1,024 summed in float64.
func expSum(row []float32, shift float32) float64 {
	total := 0.0
	for len(row) > 0 {
		n := min(len(row), 1024)
		total += float64(vec.ExpSum(row[:n], shift))
		row = row[n:]
	}
	return total
}
