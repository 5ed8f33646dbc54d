package cuda

import (
	"fmt"
	"math"
)

const (
	// gemvRows is the most rows that a block of the kernels for few rows takes.
	gemvRows = 8
	// mostGEMV is up to how many rows these kernels are used: with more, cuBLASLt is faster by far. They are bound by reading weights up to about
	// half as many, by arithmetic from there on.
	mostGEMV = 32
)

// gemvBlocks returns the rows that a block takes of n, and the blocks that take all of them.
func gemvBlocks(n int) (rows, blocks int) {
	for rows = 1; rows < n && rows < gemvRows; {
		rows *= 2
	}
	return rows, ceilDiv(n, rows)
}

// gemv prepares y [n,out] = act(x·wᵀ + bias) + base for n of at most mostGEMV rows: x [n,in], w [out,in] and bias [out] as s, y and base
// as `to`, which is s or F32. act is GELU's approximation by tanh, or nothing. bias and base may be 0, base may be y. A row's bits
// depend on the row alone, not on n or its place.
func gemv(q *Queue, y, x, w, bias, base Ptr, n, in, out int, gelu bool, s, to Store) (*Launch, error) {
	if err := positive("product of few rows", n, in, out, mostGEMV-n+1); err != nil {
		return nil, err
	}
	if in > math.MaxInt32/gemvRows {
		return nil, fmt.Errorf("cuda: product of few rows of %d elements", in)
	}
	if to != s && to != F32 {
		return nil, fmt.Errorf("cuda: product of few rows of %v to %v", s, to)
	}
	rows, blocks := gemvBlocks(n)
	kind := ""
	if in%s.vector() != 0 {
		rows, blocks, kind = gemvRows, ceilDiv(n, gemvRows), "any_"
	}
	if to != s {
		kind += "logits_"
	}
	const threads, outputs = 128, 4
	act := 0
	if gelu {
		act = 1
	}
	return q.Prepare(fmt.Sprintf("gemv%d_%s%v", rows, kind, s), Grid{Blocks: Dim{ceilDiv(out, outputs) * blocks}, Threads: Dim{threads}}, y, x, w, bias, base, n, in, out, act)
}
