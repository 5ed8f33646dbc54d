package cpu

import (
	"autodev/compute/cpu/gemm"
	"autodev/compute/cpu/par"
)

// Kernels are the kernels of the vocabulary as methods on slices, for callers that run them without a plan. Shapes are the
// caller's duty: slices too short panic. Kernels that need scratch take it as work, a slice of at least as many elements as
// the method of the same name with the suffix Work says, with any contents before and after.
//
// The zero value computes on the caller's goroutine. Kernels may be used by several goroutines at once.
type Kernels struct {
	pool *par.Pool
	bf16 bool // operands of matrix products are rounded
}

// NewKernels returns kernels that share work among the threads of pool, which stays the caller's; nil means the caller's
// goroutine alone.
func NewKernels(pool *par.Pool) Kernels { return Kernels{pool: pool} }

// BF16 returns kernels whose matrix products round their operands to bfloat16 (compute.Attr.BF16) or not. Attention goes by
// its own attribute.
func (k Kernels) BF16(on bool) Kernels {
	k.bf16 = on
	return k
}

// Threads returns how many threads a kernel uses at most.
func (k Kernels) Threads() int { return k.pool.Threads() }

// span is the number of elements that one piece of an element-wise kernel handles: large enough to be worth waking a thread
// for, small enough to stay in its cache. A multiple of 4, dropout's block, and of vec's lanes.
const span = 1 << 14

// spans calls f for consecutive ranges of 0..n of at most size elements.
func (k Kernels) spans(n, size int, f func(lo, hi int)) {
	if n <= size {
		f(0, n)
		return
	}
	k.pool.Run((n+size-1)/size, func(i int) { f(i*size, min(n, (i+1)*size)) })
}

// rows calls f for consecutive ranges of n rows of the given width, about span elements each.
func (k Kernels) rows(n, width int, f func(lo, hi int)) {
	k.spans(n, max(1, span/width), f)
}

// LinearWork returns the scratch of Linear, LinearGradX and LinearGradW for n tokens.
func LinearWork(n, in, out int) int {
	return max(gemm.WorkFloats(n, out, in), gemm.WorkFloats(n, in, out), gemm.WorkFloats(out, in, n))
}

// Linear is compute.Linear for x [n,in] and w [out,in]; bias [out] and base [n,out] may be nil, y may be base. A nil work lets
// package gemm find its own.
func (k Kernels) Linear(y, x, w, bias, base []float32, n, in, out int, alpha float32, work []float32) {
	o := gemm.Options{BF16: k.bf16, Bias: bias, Work: work}
	if base != nil {
		o.Base = gemm.Dense(base, n, out)
	}
	gemm.Mul(k.pool, gemm.Dense(y, n, out), alpha, gemm.Dense(x, n, in), gemm.Dense(w, out, in).Transposed(), o)
}

// LinearGradX is compute.LinearGradX for dy [n,out] and w [out,in]; base [n,in] may be nil, dx may be base.
func (k Kernels) LinearGradX(dx, dy, w, base []float32, n, in, out int, alpha float32, work []float32) {
	o := gemm.Options{BF16: k.bf16, Work: work}
	if base != nil {
		o.Base = gemm.Dense(base, n, in)
	}
	gemm.Mul(k.pool, gemm.Dense(dx, n, in), alpha, gemm.Dense(dy, n, out), gemm.Dense(w, out, in), o)
}

// LinearGradW is compute.LinearGradW for dy [n,out] and x [n,in].
func (k Kernels) LinearGradW(dw, dy, x []float32, n, in, out int, alpha float32, work []float32) {
	gemm.Mul(k.pool, gemm.Dense(dw, out, in), alpha, gemm.Dense(dy, n, out).Transposed(), gemm.Dense(x, n, in),
		gemm.Options{BF16: k.bf16, Accumulate: true, Work: work})
}
