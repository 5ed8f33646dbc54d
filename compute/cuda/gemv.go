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

// normed is the layer norm of the rows that a product reads: gain and shift [in] in their Store; without gain there is none.
type normed struct {
	gain, shift Ptr
	epsilon     float32
}

// norms reports whether products of few rows of `in` elements norm these themselves: blocks keep all that they take in shared memory.
func (q *Queue) norms(in int, s Store) bool {
	return in%s.vector() == 0 && gemvRows*in*s.Size() <= q.d.properties.SharedPerBlock/2
}

// shares returns into how many shares the outputs of a product are cut, of `each` outputs or more, for blocks that take a row group each of
// `groups`. As many as multiprocessors have some of each in turn keep memory busy; a few more than that are better than two turns.
func (q *Queue) shares(out, each, groups, most int) int {
	n, all := ceilDiv(out, each), most*q.d.properties.Multiprocessors
	if n*groups > 2*all {
		n = max(1, all/groups)
	}
	return n
}

// gemv prepares y [n,out] = act(norm(x)·wᵀ + bias) + base for n of at most mostGEMV rows: x [n,in], w [out,in] and bias [out] as s, y and base
// as `to`, which is s or F32. act is GELU's approximation by tanh, or nothing. bias and base may be 0, base may be y. A row's bits
// depend on the row alone, not on n or its place.
func gemv(q *Queue, y, x, w, bias, base Ptr, norm normed, n, in, out int, gelu bool, s, to Store) (*Launch, error) {
	if err := positive("product of few rows", n, in, out, mostGEMV-n+1); err != nil {
		return nil, err
	}
	if in > math.MaxInt32/gemvRows {
		return nil, fmt.Errorf("cuda: product of few rows of %d elements", in)
	}
	if to != s && to != F32 {
		return nil, fmt.Errorf("cuda: product of few rows of %v to %v", s, to)
	}
	rows, groups := gemvBlocks(n)
	kind, shared := "", 0
	if in%s.vector() != 0 {
		rows, groups, kind = gemvRows, ceilDiv(n, gemvRows), "any_"
	}
	if norm.gain != 0 {
		if !q.norms(in, s) {
			return nil, fmt.Errorf("cuda: product of few rows of %d elements, which it cannot norm", in)
		}
		shared = rows * in * s.Size()
	}
	if to != s {
		kind += "logits_"
	}
	const warps, outputs = 8, 2 // of a block, of a warp at a time
	act, most := 0, 1
	if gelu {
		act = 1
	}
	if rows == gemvRows {
		most = 2 // its blocks have less under way
	}
	grid := Grid{Blocks: Dim{q.shares(out, warps*outputs, groups, most) * groups}, Threads: Dim{32 * warps}, Shared: shared}
	return q.Prepare(fmt.Sprintf("gemv%d_%s%v", rows, kind, s), grid, y, x, w, bias, base, norm.gain, norm.shift, n, in, out, act, norm.epsilon)
}
