package cuda

import (
	"fmt"
	"math"
)

// quantised is a weight [out,in] in 8 or 4 bits as package compute/cpu/quant stores it, on the device.
type quantised struct {
	codes, scales Ptr
	bits          int
	in, out       int
}

func (w quantised) check() error {
	if w.bits != 8 && w.bits != 4 || w.in < 4 || w.in%4 != 0 || w.out < 1 || w.in > math.MaxInt32/gemvRows {
		return fmt.Errorf("cuda: weights [%d,%d] in %d bits, expected 8 or 4 bits and a multiple of 4 inputs", w.out, w.in, w.bits)
	}
	return nil
}

const (
	quantPanel = 16 // outputs of a panel
	quantLine  = 512
)

// gemvQuant prepares y [n,out] = act(norm(x)·wᵀ + bias) + base for n of at most mostGEMV rows as gemv does, with x and bias as s, y and
// base as `to`, which is s or, with 8 bits, F32.
func gemvQuant(q *Queue, y, x Ptr, w quantised, bias, base Ptr, norm normed, n int, gelu bool, s, to Store) (*Launch, error) {
	if err := w.check(); err != nil {
		return nil, err
	}
	if to != s && (to != F32 || w.bits != 8) {
		return nil, fmt.Errorf("cuda: product of few rows of %v to %v", s, to)
	}
	if err := positive("product of few rows", n, mostGEMV-n+1); err != nil {
		return nil, err
	}
	rows, groups := gemvBlocks(n)
	kind, act, shared := "", 0, 0
	if norm.gain != 0 {
		if !q.norms(w.in, s) {
			return nil, fmt.Errorf("cuda: product of few rows of %d elements, which it cannot norm", w.in)
		}
		shared = rows * w.in * s.Size()
	}
	if s != BF16 {
		kind = s.String() + "_"
	}
	if to != s {
		kind += "logits_"
	}
	if gelu {
		act = 1
	}
	grid := Grid{Blocks: Dim{q.shares(w.out, quantPanel, groups, 2) * groups}, Threads: Dim{256}, Shared: shared}
	return q.Prepare(fmt.Sprintf("gemv%d_%sint%d", rows, kind, w.bits), grid, y, x, w.codes, w.scales, bias, base, norm.gain, norm.shift, n, w.in, w.out, act, norm.epsilon)
}

// widenQuant prepares y [out,in] as s = the weights.
func widenQuant(q *Queue, y Ptr, w quantised, s Store) (*Launch, error) {
	if err := w.check(); err != nil {
		return nil, err
	}
	const warps = 8
	lines := ceilDiv(w.in, 64) * 64 * quantPanel * w.bits / 8 / quantLine
	return q.Prepare(fmt.Sprintf("widen_int%d_%v", w.bits, s), Grid{Blocks: Dim{ceilDiv(lines, warps), ceilDiv(w.out, quantPanel)}, Threads: Dim{32 * warps}}, y, w.codes, w.scales, w.in, w.out)
}

// embedQuant prepares y [n,in] = w[ids] + places[positions] as embed does, of a table in 8 bits; places and y as s.
func embedQuant(q *Queue, y Ptr, w quantised, places, ids, positions Ptr, n, placeRows int, s Store) (*Launch, error) {
	if err := w.check(); err != nil {
		return nil, err
	}
	if w.bits != 8 {
		return nil, fmt.Errorf("cuda: embeddings in %d bits, expected 8", w.bits)
	}
	if err := positive("embed", n, placeRows); err != nil {
		return nil, err
	}
	return q.overArray("embed_int8_"+s.String(), int64(n)*int64(w.in), 4, y, w.codes, w.scales, places, ids, positions, int64(n), w.out, placeRows, w.in)
}

// panels returns the outputs from `first`, a multiple of quantPanel, on: rows of them.
func (w quantised) panels(first, rows int) quantised {
	inner := ceilDiv(w.in, 64) * 64
	group := 256
	if w.bits == 4 {
		group = 64
	}
	w.codes += Ptr(int64(first) * int64(inner) * int64(w.bits) / 8)
	w.scales += Ptr(int64(first) * int64(ceilDiv(w.in, group)) * 2)
	w.out = rows
	return w
}
