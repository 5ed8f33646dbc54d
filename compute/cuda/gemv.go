package cuda

import (
	"fmt"
	"math"
)

// gemvRows is the most rows that the kernels for few rows take.
const gemvRows = 8

// gemv prepares y [n,out] = act(x·wᵀ + bias) + base for n of at most gemvRows rows: x [n,in], w [out,in] and bias [out] as s, y and base
// as `to`, which is s or F32. act is GELU's approximation by tanh, or nothing. bias and base may be 0, base may be y. A row's bits
// depend on the row alone, not on n.
func gemv(q *Queue, y, x, w, bias, base Ptr, n, in, out int, gelu bool, s, to Store) (*Launch, error) {
	if err := positive("product of few rows", n, in, out, gemvRows-n+1); err != nil {
		return nil, err
	}
	if in > math.MaxInt32/gemvRows {
		return nil, fmt.Errorf("cuda: product of few rows of %d elements", in)
	}
	if to != s && to != F32 {
		return nil, fmt.Errorf("cuda: product of few rows of %v to %v", s, to)
	}
	rows, kind := 1, ""
	for rows < n {
		rows *= 2
	}
	if in%s.vector() != 0 {
		rows, kind = gemvRows, "any_"
	}
	if to != s {
		kind += "logits_"
	}
	const threads, outputs = 128, 4
	act := 0
	if gelu {
		act = 1
	}
	return q.Prepare(fmt.Sprintf("gemv%d_%s%v", rows, kind, s), Grid{Blocks: Dim{ceilDiv(out, outputs)}, Threads: Dim{threads}}, y, x, w, bias, base, n, in, out, act)
}
